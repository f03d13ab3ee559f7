"""Planted examples: where they lie, what finds them, and what must not count as finding."""

from textwrap import dedent

import healthy_models
import helpers
import numpy as np
import pytest
import torch
from torch import nn

from robustness import cards
from robustness.classifiers.modules import state_hash
from robustness.doubts import attacks
from robustness.doubts.planted import attack_strength, plant
from robustness.errors import ModelError
from robustness.perturbations import APGD, PGD, AdaptivePGD, Batch
from robustness.perturbations.pgd import pgd
from robustness.sweep.batching import single_threaded
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

EPSILON, COUNT = 0.1, 100


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(1352, 128), nn.ReLU(), nn.Linear(128, 10)
        ).eval()


@pytest.fixture(scope="module")
def inputs():
    return torch.from_numpy(helpers.digits(30).batch(0, COUNT))


@pytest.fixture(scope="module")
def planted(model, inputs):
    return plant(model, inputs, epsilon=EPSILON)


def swept(perturbation, planted=None):
    def attack(module, inputs, labels):
        drawn = perturbation.draw(np.random.default_rng(0), tuple(inputs.shape))
        batch = Batch(module, inputs, labels, None if drawn is None else torch.from_numpy(drawn))
        if planted is not None:
            batch.decision = planted.decision
        with torch.no_grad():
            return perturbation.prepare(batch)(
                EPSILON if planted is None else planted.epsilon, torch.empty_like(inputs)
            )

    return attack


def steps(count, size=0.25, budget=1):
    def attack(module, inputs, labels):
        return pgd(module, inputs, labels, epsilon=budget * EPSILON, step_size=size * EPSILON, steps=count)

    return attack


def test_examples_lie_where_they_were_planted(model, inputs, planted):
    """Catches: examples outside the ball or the box, on the wrong side, and neighbours that are taken for them."""
    assert len(planted.inputs) >= 0.95 * COUNT
    assert torch.equal(planted.inputs, inputs[: len(planted.inputs)])
    moved = planted.examples - planted.inputs
    assert moved.abs().max() <= EPSILON + 1e-6
    assert planted.examples.min() >= 0
    assert planted.examples.max() <= 1
    free = (planted.inputs > EPSILON) & (planted.inputs < 1 - EPSILON)  # not clipped: these moved all the way
    assert torch.allclose(moved.abs()[free], torch.tensor(EPSILON), atol=1e-6)
    classes = planted.module(planted.examples).argmax(1), planted.module(planted.inputs).argmax(1)
    assert (classes[0] == 1).all()
    assert (classes[1] == 0).all()
    near = (planted.inputs + 0.9 * EPSILON * (2 * torch.rand_like(planted.inputs) - 1)).clamp(0, 1)
    assert (planted.module(near).argmax(1) == 0).float().mean() > 0.9


def test_logits_keep_the_models_own_scale(model, inputs, planted):
    """Catches: planting that mends a model whose logits are too large for cross-entropy."""
    first, second = model(inputs).topk(2, 1).values.T
    logits = planted.module(planted.inputs)
    assert torch.allclose(logits[:, 0] - logits[:, 1], (first - second)[: len(logits)], rtol=0.01, atol=2e-3)


SWEPT = [PGD(steps=20, random_start=False, stop_when_fooled=worst) for worst in (False, True)]


@pytest.mark.parametrize("attack", [steps(20), *map(swept, SWEPT)], ids=["the function", "a sweep's", "worst case"])
def test_pgd_finds_nearly_all_and_chance_few(planted, attack):
    """Catches: readouts of other images, for an attack that goes on with what resists alone."""
    said = attack_strength(planted, attack)
    assert said["found"] >= 0.95 * said["planted"]
    assert said["by chance"] < 0.3 * said["planted"]


# Without a costly one, and without those that differ from another in nothing that changes a gradient.
LEFT_OUT = {"CNN, batch norm, wide", "CNN, prints", "CNN, seeds torch", "CNN, log-softmax"}


@pytest.mark.parametrize("name", [name for name in healthy_models.ARCHITECTURES if name not in LEFT_OUT])
def test_apgd_finds_what_was_planted_in_twelve_undefended_architectures(name):
    """Catches: an APGD that pooling, saturation or attention leads astray, and so calls the network masked."""
    inputs = torch.from_numpy(healthy_models.digits("test").batch(0, 20))
    with single_threaded():
        module = healthy_models.make(name, epochs=12 if name == "vision transformer" else 2)  # it learns slowly
        there = plant(module, inputs, epsilon=0.05, closeness=0.999)
        counts = attack_strength(there, swept(attacks.STRONG_ATTACK, there))
    assert isinstance(attacks.STRONG_ATTACK, APGD)
    assert counts["planted"] >= 18
    assert counts["found"] >= 0.95 * counts["planted"]
    assert counts["by chance"] <= 0.5 * counts["planted"]


@pytest.mark.parametrize(
    ("attack", "most"),
    [
        (lambda module, inputs, labels: inputs, 0.05),
        (steps(1, 0.01), 0.05),
        (lambda module, inputs, labels: 2 * inputs - steps(20)(module, inputs, labels), 0.05),  # down the loss
        (lambda module, inputs, labels: torch.full_like(inputs, torch.nan), 0.05),
        (steps(20, 0.5, budget=2), 0),
    ],
    ids=["none", "a hundredth of a step", "the wrong way", "no numbers", "outside the ball"],
)
def test_weak_attacks_miss_them(planted, attack, most):
    """Catches: an attack with twice the budget that passes as a strong one."""
    assert attack_strength(planted, attack, tries=1)["found"] <= most * COUNT


def test_the_model_is_left_as_it_is(model, inputs):
    before = state_hash(model)
    made = plant(model, inputs[:3], epsilon=EPSILON)
    attack_strength(made, steps(2), tries=1)
    assert state_hash(model) == before
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert isinstance(model[-1], nn.Linear)


def test_the_same_seed_plants_the_same(model, inputs):
    one, same, other = (plant(model, inputs[:3], epsilon=EPSILON, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.examples, same.examples)
    assert not torch.equal(one.examples, other.examples)


def test_some_of_the_images_are_read_by_their_own_last_layers(planted):
    """Catches: an attack that goes on with what resists alone, and is shown the readouts of other images."""
    rows = torch.tensor([7, 2, 31, 2])
    for images in (planted.inputs, planted.examples):
        assert torch.allclose(planted.module(images[rows]), planted.module(images)[rows], atol=1e-4)


def test_examples_are_the_harder_the_nearer_the_boundary_lies(planted):
    """The image keeps its logits; the example's are (1 − c) of the way on. Catches: a scale that moves with it."""
    near, example = (planted.module.head.scores[:, i] for i in (1, 2))
    first = planted.module(planted.inputs)[:, 1]
    reached = []
    for closeness in (0.5, 0.9, 0.999):
        harder = planted.with_closeness(closeness)
        assert torch.allclose(harder.module(planted.inputs)[:, 1], first, rtol=1e-3, atol=1e-3)
        logits = harder.module(planted.examples)[:, 1].double()
        bound = near + closeness * (example - near)
        due = -first.double() * (example - bound) / (bound - planted.module.head.scores[:, 0])
        assert torch.allclose(logits, due, rtol=0.02, atol=2e-3)
        reached.append(logits)
    assert (reached[0] > reached[1]).all()
    assert (reached[1] > reached[2]).all()
    with pytest.raises(ValueError, match="`closeness` must lie between 0 and 1, got 1"):
        planted.with_closeness(1)


def test_under_a_detector_examples_are_kept_and_what_it_discards_has_found_nothing(tmp_path):
    """On a shipped model that tells attacks: examples lie where its own detector keeps them, and PGD is discarded."""
    card = cards.load(helpers.ROOT / "models" / "digits-2n.toml")
    workspace = Workspace(Store(tmp_path), tmp_path, threads=1)
    module, decision = workspace.classifier(card).module.eval(), card.file.model.decision
    inputs = torch.from_numpy(workspace.images(card).batch(0, 20))
    there = plant(module, inputs, epsilon=0.05, decision=decision, closeness=0.5)
    assert len(there.inputs) >= 10
    with torch.no_grad():
        passed = decision.log_passed(module(there.examples))
        assert (passed >= decision.log_threshold).all()
        logits = there.module(there.examples)
    assert torch.allclose(there.decision.log_passed(logits), passed, atol=1e-3)
    plain = PGD(steps=20, relative_step_size=2.0, schedule="linear", stop_when_fooled=True)
    evading = AdaptivePGD(steps=10, random_start=False)
    found = {
        (name, kept): attack_strength(there, swept(attack, there), tries=1, evading=kept)["found"]
        for name, attack in (("plain", plain), ("evading", evading)) for kept in (True, False)
    }  # fmt: skip
    assert found["evading", True] >= 0.95 * len(there.inputs)
    assert found["plain", False] >= 0.95 * len(there.inputs)
    assert found["plain", True] <= 0.7 * len(there.inputs)


class Blind(nn.Module):
    """Features that tell nothing apart."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(784, 10)

    def forward(self, inputs):
        return self.last(0 * inputs.flatten(1))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten()), "a model that ends in a linear layer"),
        (nn.Linear(28, 10), "a model that ends in a linear layer"),
        (Blind(), "features that separate a perturbed image"),
    ],
    ids=["no linear layer", "not on flat features", "features that tell nothing apart"],
)
def test_a_model_in_which_nothing_can_be_planted_is_told(model, said, inputs):
    with pytest.raises(ModelError, match=said):
        plant(model, inputs[:2], epsilon=EPSILON)


def test_memory_does_not_grow_with_the_number_of_images():
    """Catches: an example that is a view of all that is near it, and keeps 60 MB for each of twelve images."""
    code = """
        import resource, torch
        from torch import nn
        from robustness.doubts.planted import plant

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        model = nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), nn.Linear(192, 3)).eval()
        inputs = torch.rand(12, 3, 224, 224)
        plant(model, inputs[:1], epsilon=0.05, near=100)
        before = peak()
        print(len(plant(model, inputs, epsilon=0.05, near=100).inputs), peak() - before)
    """
    count, grown = helpers.run(dedent(code)).split()
    assert int(count) > 6
    assert float(grown) < 250
