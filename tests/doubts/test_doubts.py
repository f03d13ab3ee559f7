"""Each doubt is raised by a model that was broken in just that way, and none by the same model unbroken."""

import re
from collections import OrderedDict

import helpers
import numpy as np
import pytest
import torch
from ill_models import Around, backwards, network, train
from torch import nn

from robustness import cards
from robustness.cards import doubts
from robustness.cards.profiles import PGD
from robustness.cards.schema import SweepTable
from robustness.classifiers.modules import state_hash
from robustness.data import from_arrays
from robustness.doubts import card_doubts, forward, permuted_classes
from robustness.doubts.checks import run_checks
from robustness.errors import CardError
from robustness.perturbations import APGD, IFGSM

EPSILON = 0.2


@pytest.fixture(scope="module")
def healthy() -> nn.Module:
    """A perceptron that knows its digits."""
    return train(network())


def reversed_gradients(inputs):
    return backwards(lambda gradient, _: -gradient)(inputs)


BROKEN = {  # in ways that are not in the zoo of test_ill_models
    "noise beats FGSM": {"before": reversed_gradients},
    "boundless budget survived": {"before": reversed_gradients},
    "misses planted examples": {"before": reversed_gradients},
    "non-deterministic forward": {"after": lambda logits: logits + 1e-4 * torch.randn_like(logits)},
}


ATTACKS = {"pgd": SweepTable.model_validate({**PGD, "strengths": [0.1]}).perturbation}


def others():
    """Images that are none of those that are looked at."""
    return from_arrays(np.zeros((1, 28, 28), np.uint8), [0])


def doubted(model, epsilon=EPSILON, attacks=ATTACKS, **given):
    found = run_checks(model, helpers.digits(30), epsilon=epsilon, attacks=attacks, training=others, **given)
    return {name for name, one in found.items() if one["doubted"]}, found


def test_a_healthy_model_raises_none(healthy):
    before = state_hash(healthy)
    raised, found = doubted(healthy, source=Around(healthy))
    assert raised == set()
    assert set(found) == set(doubts.DOUBTS)
    assert all(one["doubted"] is False for one in found.values()), found
    assert state_hash(healthy) == before
    assert all(p.grad is None for p in healthy.parameters())
    assert doubted(healthy, source=Around(healthy))[1] == found


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_raises_its_doubt(healthy, name):
    raised, found = doubted(Around(healthy, **BROKEN[name]), 0.6 if name == "noise beats FGSM" else EPSILON)
    assert name in raised, found[name]


def test_what_is_seen_has_numbers(healthy):
    _, found = doubted(Around(healthy, after=lambda logits: logits.softmax(1)))
    assert found["probabilities for logits"]["seen"].endswith("with sums from 1 to 1")
    _, found = doubted(Around(healthy, before=lambda x: x.round()))
    assert found["zero gradients"]["seen"] == "cross-entropy's gradient is zero for 100 of 100 images"


def test_a_permutation_is_named(healthy):
    """Catches: the two sides taken for each other (its 1 is 0, for logits moved up by one), or none named."""
    raised, found = doubted(Around(healthy, after=lambda logits: logits.roll(1, 1)))
    assert "permuted classes" in raised
    assert ": its 0 is the data's 9, its 1 is the data's 0, its 2 is the data's 1," in found["permuted classes"]["seen"]
    assert found["permuted classes"]["seen"].endswith(" and 5 more")


def test_a_head_that_was_never_trained_is_named():
    """Catches: zero gradients of a library's blank head (vit_b_16, mixer) told as if some layer hid them."""
    model = nn.Sequential(OrderedDict(flat=nn.Flatten(), body=nn.Linear(784, 8), head=nn.Linear(8, 10)))
    told = run_checks(model, helpers.digits(2), attacked=False)["zero gradients"]
    assert "weights" not in told["seen"]
    nn.init.zeros_(model.head.weight)
    told = run_checks(model, helpers.digits(2), attacked=False)["zero gradients"]
    assert told["doubted"]
    assert told["seen"].endswith("20 of 20 images; all weights of head are zero: they were never trained")


@pytest.mark.parametrize("seed", range(3))
def test_an_untrained_model_is_no_permuted_one(seed):
    """Catches: a permutation fitted to the images that it is counted on, which explains anything."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
    assert "permuted classes" not in doubted(model)[0]


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_nor_is_one_that_always_says_the_same(share):
    """Catches: the largest class taken for knowledge, where a permutation gives it to a constant classifier."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, 4, 4), dtype=np.uint8)
    images = from_arrays(pixels, (np.arange(200) >= share * 200).astype(int))

    def says(inputs):
        return np.ones(len(inputs), np.int64)

    assert permuted_classes.check_permutation(says, images, 100, 0)["doubted"] is False


def test_a_permutation_of_many_classes_is_looked_for_on_more_images():
    """Catches: 100 images of 100 classes, in which every permutation is as good as any; and images class by class."""
    labels = np.repeat(np.arange(100), 10)
    images = from_arrays(labels.astype(np.uint8)[:, None, None], labels)
    asked = []

    def says(inputs):
        asked.append(len(inputs))
        return ((inputs[:, 0, 0, 0] * 255).round().astype(np.int64) + 50) % 100

    found = permuted_classes.check_permutation(says, images, 100, 0)
    assert found["doubted"], found
    assert sum(asked) == 100 + 800
    few = images.select(np.arange(0, 1000, 5), "some")
    assert permuted_classes.check_permutation(says, few, 100, 0)["doubted"] is None


def test_large_images_take_little_memory():
    """Catches: hundreds of large images passed through at once, or differentiated: gigabytes for a usual network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.AvgPool2d(56), nn.Flatten(), nn.Linear(48, 3))
    passed, kept = [], []

    def note(module, given):
        (kept if torch.is_grad_enabled() else passed).append(len(given[0]))

    model.register_forward_pre_hook(note)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 224, 224, 3), dtype=np.uint8)
    found = run_checks(model, from_arrays(pixels, np.arange(60) % 3))
    assert "of 16 images" in found["zero gradients"]["seen"]
    assert "of 60 images" in found["permuted classes"]["seen"]  # of 16 chance alone would explain all
    assert max(passed) <= 16
    assert max(kept) <= 16


def test_a_weak_attack_is_named_and_not_the_model(healthy):
    """Catches: the model blamed for its card's attack, one weak attack behind a strong one, no word of which it is."""
    raised, found = doubted(healthy, attacks={**ATTACKS, "short": IFGSM(steps=1)})
    assert raised == set(), "one step of ε is enough on a model that is all but linear"
    raised, found = doubted(healthy, attacks={**ATTACKS, "short": Short()})
    assert raised == {"weak attack", "attack weaker than FGSM"}
    assert re.match(
        r"attack `pgd` finds 40, attack `short` is too weak: it finds \d+ \(of 40", found["weak attack"]["seen"]
    )
    assert found["attack weaker than FGSM"]["seen"].startswith("at ε 0.2 attack `short` misleads")
    assert " apgd-40 finds 40" in found["misses planted examples"]["seen"]


def test_an_attack_by_the_ratio_of_logits_is_tested_on_two_classes(healthy):
    """Planted examples have two. Catches: an attack of a card that errors there, though it works on the model."""
    raised, found = doubted(healthy, attacks={"ratio": APGD(loss="dlr", steps=40)})
    assert raised == set()
    assert found["weak attack"]["seen"].startswith("attack `ratio` finds 4")


class Short(IFGSM):
    """Steps that sum to a tenth of the budget."""

    def step(self):
        return 0.1 / self.steps


def test_attacks_on_a_model_that_hides_its_gradients_are_not_blamed(healthy):
    raised, found = doubted(Around(healthy, before=reversed_gradients))
    assert "misses planted examples" in raised
    assert found["weak attack"] == {
        "seen": "not checked: a strong attack misses planted examples as well", "doubted": None,
    }  # fmt: skip


def test_without_an_attack_none_is_tested(healthy):
    raised, found = doubted(healthy, attacks=None)
    assert raised == set()
    assert {name for name, one in found.items() if one["doubted"] is None} == {
        "transfer beats white-box", "weak attack", "attack weaker than FGSM",
    }  # fmt: skip


def test_transfer_beats_white_box(healthy):
    """Catches: the two taken for each other, and a source that is attacked on its own decisions."""
    masked = Around(healthy, before=reversed_gradients)
    assert "transfer beats white-box" in doubted(masked, source=healthy)[0]
    assert "transfer beats white-box" not in doubted(healthy, source=masked)[0]
    _, alone = doubted(healthy)
    assert alone["transfer beats white-box"] == {"seen": "not checked: the card names no source model", "doubted": None}


@pytest.mark.parametrize("how", ["numpy", "no_grad"])
def test_without_gradients_only_the_forward_is_looked_at(healthy, how):
    """Catches: a model that no gradient attack can be made on and that is cleared of what such attacks show."""

    def constant(inputs):
        return torch.from_numpy(inputs.detach().numpy().copy())

    model = Around(healthy, before=constant)
    if how == "no_grad":
        model = Around(healthy)
        model.forward = torch.no_grad()(model.forward)
    _, found = doubted(model)
    told = {name for name, one in found.items() if one["doubted"] is not None}
    assert told == {
        "non-deterministic forward", "depends on the batch", "probabilities for logits", "permuted classes",
        "no better than chance", "wrong input range", "jumps within a grey level", "outputs that are no numbers",
        "edits its input", "keeps state between calls", "another output knows more",
        "dim images", "tested on training images",
    }  # fmt: skip
    assert set(found) == set(doubts.DOUBTS)
    assert not any("broken" in one for one in found.values()), found
    assert "do not depend on the images differentiably" in found["zero gradients"]["seen"]


def test_a_doubt_that_breaks_takes_no_other_with_it(healthy, monkeypatch):
    """Catches: a traceback for all; what was raised taken for a property of the model."""

    def broken(trial):
        raise KeyError("mean")

    _, found = doubted(healthy)
    monkeypatch.setattr(forward, "check_outputs_are_logits", broken)
    _, now = doubted(healthy)
    assert now.pop("probabilities for logits") == {
        "seen": "could not be checked: KeyError: 'mean'", "doubted": None, "broken": True,
    }  # fmt: skip
    found.pop("probabilities for logits")
    assert now == found


@pytest.mark.parametrize(
    "after",
    [
        lambda logits: logits - torch.linspace(-1, 1, 10),  # log-priors
        lambda logits: logits.masked_fill(torch.arange(10) > 9, -1e3),
        lambda logits: torch.stack([logits, logits + torch.arange(10) / 100]).mean(0),  # heads
        lambda logits: logits[:, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]],
        lambda logits: logits.view(-1, 2, 5).flatten(1),
        lambda logits: logits @ torch.eye(10),
    ],
)
def test_what_comes_after_the_last_layer_may_have_the_shape_of_the_classes(healthy, after):
    """Catches: a last layer of two outputs before a sum, a mask or an index over ten; no examples planted there."""
    raised, found = doubted(Around(healthy, after=after), source=healthy)
    assert raised == set()
    assert all(one["doubted"] is False for one in found.values()), found


def test_a_forward_that_raises_for_one_image_depends_on_the_batch(healthy):
    """Catches: an error that hides what is ill: batch norm in training mode takes no image alone."""

    def some(inputs):
        if len(inputs) == 1 and not torch.is_grad_enabled():
            raise ValueError("expected more than 1 value\nper channel")
        return inputs

    raised, found = doubted(Around(healthy, before=some))
    assert raised == {"depends on the batch"}
    assert found["depends on the batch"]["seen"] == "an image alone raises ValueError: expected more than 1 value"


def test_a_forward_that_always_raises_breaks_every_doubt(healthy):
    """Catches: what could not be looked for told as a property of the model, which is skipped and stands in no way."""

    def fail(inputs):
        raise RuntimeError("boom")

    _, found = doubted(Around(healthy, before=fail))
    broken = {name for name, one in found.items() if one.get("broken")}
    of_images = {"dim images", "tested on training images"}  # no pass is needed to look at them
    assert broken == set(doubts.DOUBTS) - {"transfer beats white-box", "another output knows more"} - of_images
    assert {found[name]["seen"] for name in broken} == {"could not be checked: RuntimeError: boom"}


CARD = helpers.CARD.replace("[sweeps.normal]", '[sweeps.fgsm]\nkind = "fgsm"\nstrengths = [0.1]\n\n[sweeps.normal]')
SOFTMAX = helpers.MODULE.replace("nn.Linear(784, classes))", "nn.Linear(784, classes), nn.Softmax(1))")


@pytest.fixture
def suite(run_suites):
    """Run the suite of doubts on a card's model."""
    return lambda card, *more: run_suites(
        card.parents[1], "-rs", "--robustness-card", card, "--robustness-model", "tiny", *more, suites="test_doubts.py"
    )


def test_the_suite_says_what_was_seen_why_it_matters_and_what_to_try(tmp_path, suite):
    card = helpers.project(tmp_path, SOFTMAX, CARD)
    run = suite(card, "-k", "probabilities")
    assert run.returncode == 1, run.stdout
    assert "tiny: probabilities for logits" in run.stdout
    assert "seen: outputs from 0" in run.stdout
    assert "why it matters: cross-entropy applies a softmax to the outputs" in run.stdout
    assert "to try: return the classifier without its last softmax or sigmoid (docs/doubts.md)" in run.stdout
    kept = sorted((tmp_path / "store").rglob("*.json"))
    again = suite(card)
    assert "probabilities for logits" in again.stdout
    assert "tiny, transfer beats white-box: not checked: the card names no source model" in again.stdout
    assert sorted((tmp_path / "store").rglob("*.json")) == kept


def test_a_model_without_gradients_is_not_red_for_that(tmp_path, suite):
    """Catches: doubts about gradients that break on every ONNX model, and take those about the forward with them."""
    source = f"import torch\n{helpers.MODULE}".replace(
        "nn.Sequential(nn.Flatten(), nn.Linear(784, classes))", "Net(nn.Flatten(), nn.Linear(784, classes))"
    )
    source = source.replace("def recipe(", f"{NO_GRAD}\ndef recipe(")
    run = suite(helpers.project(tmp_path, source, helpers.CARD), "-k", "not chance")  # it was never trained
    assert "tiny, zero gradients: not checked: the model's outputs do not depend on the images" in run.stdout
    assert "passed" in run.stdout
    assert "failed" not in run.stdout, run.stdout


NO_GRAD = """
class Net(nn.Sequential):
    @torch.no_grad()
    def forward(self, inputs):
        return super().forward(inputs)
"""


def test_a_doubt_that_the_card_knows_is_said_and_not_red(tmp_path, suite):
    known = CARD + '\n[doubts]\n"probabilities for logits" = "as it was sold to us"\n'
    run = suite(helpers.project(tmp_path, SOFTMAX, known), "-k", "probabilities", "-rx")
    assert run.returncode == 0, run.stdout
    assert "1 xfailed" in run.stdout
    assert "its card: as it was sold to us" in run.stdout


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('"probability for logits" = "why not"', "did you mean 'probabilities for logits'?"),
        ('"probabilities for logits" = " "', "must say why the card's numbers are trusted anyway"),
    ],
)
def test_a_card_cannot_wave_doubts_away(tmp_path, table, said):
    with pytest.raises(CardError, match=re.escape(said)):
        cards.load(helpers.project(tmp_path, card=f"{CARD}\n[doubts]\n{table}\n"))


def test_autoattack_is_represented_by_its_first_iterated_member():
    """Catches: an ensemble that no check sees, examples of another model taken for attacks on this one."""
    tables = {
        "first": {"kind": "autoattack", "steps": 7, "strengths": [0.1]},
        "second": {"kind": "autoattack", "attacks": ["fab", "apgd"], "steps": 8, "strengths": [0.2]},
        "none": {"kind": "autoattack", "attacks": ["fab", "square"], "strengths": [0.3]},
        "transfer": {"kind": "autoattack", "source": "other.toml", "strengths": [0.4]},
        "l2": {"kind": "autoattack", "norm": "l2", "strengths": [0.5]},
    }
    attacks = card_doubts.linf_attacks({name: SweepTable.model_validate(table) for name, table in tables.items()})
    assert attacks == {"first": (APGD(steps=7), [0.1]), "second": (APGD(steps=8), [0.2])}
