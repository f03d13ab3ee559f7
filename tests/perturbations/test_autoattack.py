"""AutoAttack: against closed forms of linear models, its members in turn, and the strengths that share their work."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_attacks import Linear, batch_of, dual, grey, perceptron, weight_of
from torch import nn

from robustness.data import from_arrays
from robustness.decisions import Null
from robustness.metrics.evidence import OK
from robustness.perturbations import PGD, AutoAttack
from robustness.perturbations.ensemble import NOBODY, Ladder
from robustness.sweep.runner import run_sweep

NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
STRENGTHS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)
FEW = {"steps": 10, "queries": 30}


def images_of(inputs, labels, classes=2):
    names = [str(number) for number in range(classes)]
    return from_arrays(inputs.permute(0, 2, 3, 1).numpy(), labels.numpy(), names)


def robust(module, images, attack, strengths=STRENGTHS, **more):
    evidence = run_sweep(module, images, attack, strengths, threads=1, **more)
    assert set(evidence.status) == {OK}
    return evidence.predictions == evidence.labels, evidence


@NORMS
@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
def test_a_linear_model_resists_exactly_below_its_margin(norm, share):
    """Catches: a radius of another image or strength, an image that resists because no member attacked it."""
    weight, (inputs, labels) = weight_of(1), grey(low=0.3, high=0.7)
    module = Linear(weight, bias=-float(0.5 * weight.sum()))
    distance = (module.margin(inputs) * (2 * labels - 1)).detach().numpy() / dual(weight, norm)
    right, _ = robust(module, images_of(inputs, labels), AutoAttack(norm=norm, share_strengths=share, **FEW))
    for ε, row in zip(STRENGTHS, right, strict=True):
        clear = abs(distance - ε) > 1e-4
        assert (row[clear] == (distance > ε)[clear]).all()
    assert right[-1].sum() < right[2].sum() < right[0].sum(), "else this shows nothing"


def test_shared_strengths_find_the_same_robust_images_with_fewer_passes():
    """Catches: a ladder that stops early, examples of another image, every strength attacked anew."""
    inputs, _ = grey(30)
    module, counted, passes, found = perceptron(3), [], {}, {}
    images = images_of(inputs, module(inputs).argmax(1), 3)
    for share in (True, False):
        counted.clear()
        with module.register_forward_pre_hook(lambda _, arguments: counted.append(len(arguments[0]))):
            found[share], _ = robust(module, images, AutoAttack(share_strengths=share, **FEW))
        passes[share] = sum(counted)
    assert (np.diff(found[True].astype(int), axis=0) <= 0).all(), "robust accuracy rises with ε"
    assert (found[True] == found[False]).mean() > 0.99
    assert passes[True] < 0.6 * passes[False]


def test_a_misled_image_keeps_its_example_at_larger_radii():
    """Catches: an example outside of the smallest ball that has one, or shown at a smaller radius."""
    inputs, _ = grey(20)
    module = perceptron(5)
    labels = module(inputs).argmax(1)
    attack = AutoAttack(**FEW)
    batch = batch_of(module, inputs, labels, attack, strengths=STRENGTHS)
    perturb = attack.prepare(batch)
    shown = torch.stack([perturb(ε, torch.empty_like(inputs)).clone() for ε in STRENGTHS])
    wrong = torch.stack([module(images).argmax(1) != labels for images in shown])
    assert wrong[-1].any()
    for row in range(len(inputs)):
        first = int(wrong[:, row].int().argmax()) if wrong[:, row].any() else len(STRENGTHS)
        for level in range(first, len(STRENGTHS)):
            assert torch.equal(shown[level, row], shown[first, row])
    for ε, images in zip(STRENGTHS, shown, strict=True):
        assert float((images - inputs).abs().max()) <= ε + 1e-6


def test_notes_count_what_each_member_misled():
    """Catches: images counted twice or at smaller strengths, images that were wrong without a perturbation."""
    inputs, labels = grey(40)
    images = images_of(inputs, labels, 3)
    right, evidence = robust(perceptron(3), images, AutoAttack(**FEW))
    clean = robust(perceptron(3), images, AutoAttack(**FEW), strengths=[0])[0][0]
    notes = evidence.provenance["notes"]
    for ε, row in zip(STRENGTHS, right, strict=True):
        misled = [note for note in notes.get(str(ε), "").split("; ") if note.startswith("misled by")]
        counts = [int(note.split(": ")[1].split()[0]) for note in misled]
        assert sum(counts) == clean.sum() - row.sum()
    assert "misled by apgd:" in notes[str(STRENGTHS[-1])]


class Steps(nn.Module):
    """A linear model that sees images in steps of 1/50: its gradient is zero everywhere."""

    def __init__(self):
        super().__init__()
        self.linear = Linear(weight_of(2), bias=-float(0.5 * weight_of(2).sum()))

    def forward(self, inputs):
        return self.linear(inputs + (torch.round(inputs * 50) / 50 - inputs).detach() - inputs + inputs.detach())


def test_square_misleads_what_has_no_gradient():
    """Catches: masked gradients that count as robust, or as an error although a member needs none."""
    inputs, _ = grey(30)
    module = Steps()
    labels = module(inputs).argmax(1)
    right, evidence = robust(module, images_of(inputs, labels), AutoAttack(steps=5, queries=200))
    assert right[-1].mean() < 0.5
    assert "misled by square" in evidence.provenance["notes"][str(STRENGTHS[-1])]


@pytest.mark.parametrize("attacks", [("apgd", "apgd-t"), ("fab",)], ids=str)
def test_masked_gradients_are_an_error_without_a_member_that_needs_none(attacks):
    """Catches: masking that counts as robust because the full ensemble would have seen it."""
    inputs, _ = grey(30)
    module = Steps()
    images = images_of(inputs, module(inputs).argmax(1))
    evidence = run_sweep(module, images, AutoAttack(attacks=attacks, steps=5), STRENGTHS, threads=1)
    assert OK not in evidence.status[:3]


@pytest.mark.parametrize("attacks", [("apgd", "apgd-t"), ("fab",), ("apgd", "apgd-t", "fab", "square")], ids=str)
@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
def test_gradients_that_are_not_finite_are_an_error_at_every_strength(attacks, share):
    """Catches: one search for all strengths, whose faults only the first strength shows."""

    class NotFinite(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = perceptron(3)

        def forward(self, inputs):
            first = inputs.flatten(1)[:, :1]
            return self.inner(inputs) + (first - first).abs().sqrt() * 0

    inputs, _ = grey(20)
    images = images_of(inputs, perceptron(3)(inputs).argmax(1), 3)
    attack = AutoAttack(attacks=attacks, steps=3, queries=3, share_strengths=share)
    evidence = run_sweep(NotFinite(), images, attack, (0.005, 0.01, 0.02), threads=1)
    assert OK not in evidence.status


def test_rand_is_no_weaker_than_pgd_on_a_model_with_random_outputs():
    """Catches: one lucky pass that ends the attack on an image at a point where the next pass is right again."""

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = perceptron(3)

        def forward(self, inputs):
            return self.inner(inputs + 0.05 * torch.randn_like(inputs))

    torch.manual_seed(0)
    inputs, _ = grey(100)
    images = images_of(inputs, perceptron(3)(inputs).argmax(1), 3)
    rand, _ = robust(Noisy(), images, AutoAttack(version="rand", steps=20, eot=10), (0.05, 0.2))
    pgd, _ = robust(Noisy(), images, PGD(steps=20), (0.05, 0.2))
    assert (rand.mean(1) <= pgd.mean(1) + 0.08).all()
    assert rand[-1].mean() < 0.1


def test_strengths_are_attacked_apart_where_more_than_the_decision_counts():
    """Catches: a detector, or a target of transfer, that sees examples just behind a boundary at every strength."""
    inputs, _ = grey(4)
    module, attack = perceptron(1), AutoAttack()
    plain = batch_of(module, inputs, module(inputs).argmax(1), attack, strengths=STRENGTHS)
    assert attack.shares(plain)
    assert not AutoAttack(version="rand").shares(plain)
    assert not attack.shares(replace(plain, source=module))
    assert not attack.shares(replace(plain, decision=Null()))


def test_notes_count_images_that_resist_at_a_larger_strength():
    """Catches: images that a strength never attacked, in silence."""
    inputs, labels = grey(40)
    right, evidence = robust(perceptron(3), images_of(inputs, labels, 3), AutoAttack(**FEW))
    assert right[1].any(), "else this shows nothing"
    for ε, above in zip(STRENGTHS, right[1:], strict=False):
        text = f"not attacked at this one, were {above.sum()} of"
        assert (text in evidence.provenance["notes"][str(ε)]) == above.any()


def test_a_change_that_fails_in_a_large_ball_is_tried_in_smaller_ones():
    """Wrong in a shell alone, and the loss rises outwards. Catches: what resists at a large ε trusted below it."""

    class Shell(nn.Module):
        def forward(self, inputs):
            shift = (inputs - 0.5).flatten(1).mean(1)
            wrong = (shift > 0.08) & (shift < 0.105)
            return torch.stack([torch.where(wrong, -1.0, 1.0) - 4 * shift, 4 * shift], 1)

    inputs = torch.full((5, 1, 4, 4), 0.5)
    images = images_of(inputs, torch.zeros(5, dtype=torch.long))
    right, _ = robust(Shell(), images, AutoAttack(attacks=("apgd",), steps=20), (0.1, 0.11))
    assert not right[0].any()


def test_no_numbers_are_no_robustness():
    """Catches: an image of which the model says nothing, counted as resisting."""

    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = perceptron(3)

        def forward(self, inputs):
            return self.inner(inputs) / (inputs.amax((1, 2, 3), keepdim=True)[:, :, 0, 0] < 0.65)

    inputs, _ = grey(10)
    images = images_of(inputs, perceptron(3)(inputs).argmax(1), 3)
    evidence = run_sweep(Fragile(), images, AutoAttack(**FEW), STRENGTHS, threads=1)
    assert evidence.status[-1] != OK


def test_batches_do_not_matter():
    """Catches: draws by position in the batch, padding that is attacked, a ladder of another batch."""
    inputs, _ = grey(23)
    module = perceptron(7)
    images = images_of(inputs, module(inputs).argmax(1), 3)
    all_, several = (robust(module, images, AutoAttack(**FEW), batch_size=size)[0] for size in (23, 5))
    assert (all_ == several).mean() > 0.99


@pytest.mark.parametrize(
    ("classes", "losses"),
    [(2, ["cross_entropy", "margin"]), (3, ["cross_entropy", "margin"]), (4, ["cross_entropy", "dlr"])],
)
def test_losses_fit_the_number_of_classes(classes, losses):
    """Catches: the targeted DLR on a model with fewer than four classes."""
    assert [member.loss for member in AutoAttack().members(classes)[:2]] == losses
    inputs, _ = grey(6)
    module = perceptron(1, classes=classes)
    robust(module, images_of(inputs, module(inputs).argmax(1), classes), AutoAttack(steps=3, queries=3))


def test_rand_averages_gradients_over_passes():
    """Catches: one pass per gradient of a model with random outputs, members without averages."""
    inputs, _ = grey(8)
    module, counted = perceptron(1, classes=4), []
    attack = AutoAttack(version="rand", steps=4, eot=3)
    assert [(member.kind, member.loss, member.eot) for member in attack.members(4)] == [
        ("apgd", "cross_entropy", 3), ("apgd", "dlr", 3)
    ]  # fmt: skip
    batch = batch_of(module, inputs, module(inputs).argmax(1), attack, strengths=(0.001,))
    with module.register_forward_pre_hook(lambda _, arguments: counted.append(len(arguments[0]))):
        attack.prepare(batch)(0.001, torch.empty_like(inputs))
    gradients = 2 * 3 * 4 * 8  # members, passes, steps, images: none is misled
    assert sum(counted) >= gradients


def test_the_ladder_attacks_where_a_shrunk_example_no_longer_misleads():
    """Catches: a ladder that attacks at every radius, leaves an image undecided, or shows another radius's example."""
    limits, tried = torch.tensor([0.005, 0.015, 0.045, 0.13, 9.0]), []

    class Oracle:
        """An ensemble that misleads each image from a known radius on, with an example on the border of the ball."""

        batch = type("B", (), {"inputs": torch.zeros(5, 1, 1, 1), "labels": torch.zeros(5, dtype=torch.long)})
        correct, distances, members = torch.ones(5, dtype=torch.bool), torch.zeros(5), [None]

        def misled(self, open_, images):
            return open_ & (images.flatten() >= limits)

        def attack(self, open_, radii):
            tried.append(open_.int())
            misled = open_ & (radii >= limits)
            return torch.where(open_, radii, 0).view(-1, 1, 1, 1), torch.where(misled, 0, NOBODY)

    ladder = Ladder(Oracle(), list(STRENGTHS))
    for level, ε in enumerate(STRENGTHS):
        images, misled_by = ladder.at(level)
        assert ((misled_by == 0) == (limits <= ε)).all()
        reached = misled_by == 0
        smallest = torch.tensor([min(s for s in (*STRENGTHS, 9.0) if s >= limit) for limit in limits.tolist()])
        assert images.flatten()[reached].tolist() == pytest.approx(smallest[reached].tolist())
    # At the largest radius, and at the first radius that the shrunk example does not reach.
    assert torch.stack(tried).sum(0).tolist() == [1, 2, 2, 2, 1]
