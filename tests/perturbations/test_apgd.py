"""APGD and APGD-T against the algorithm in plain lines, and what a sweep may rely on."""

import helpers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_attacks import assert_inside, batch_of, made
from torch import nn
from torch.nn import functional as F

from robustness.data import from_arrays
from robustness.decisions import Argmax, Null
from robustness.errors import GradientError
from robustness.metrics.evidence import OK
from robustness.perturbations import APGD, FGSM, PGD, Batch, TargetedAPGD
from robustness.perturbations.apgd import apgd
from robustness.perturbations.attack import attack_loss, difference_of_logits_ratio
from robustness.sweep.runner import run_sweep
from robustness.util.rng import Purpose, generator

SETTINGS = settings(deadline=None, max_examples=15)
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
SEEDS = st.integers(0, 2**16)
ATTACKS = [APGD(steps=12), APGD(steps=12, loss="dlr", norm="l2", restarts=2), TargetedAPGD(steps=12, target_classes=3)]


class Wavy(nn.Module):
    """Classes by waves across the images: many small regions, in which a run can lose its way."""

    def __init__(self, classes=5, scale=4.0):
        super().__init__()
        random = np.random.default_rng(8)
        self.scale = scale
        self.first = nn.Parameter(torch.from_numpy(random.normal(size=(12, 12))).float())
        self.last = nn.Parameter(torch.from_numpy(random.normal(size=(12, classes))).float())

    def forward(self, inputs):
        return (inputs.flatten(1) @ self.first * self.scale).sin() @ self.last


def examples(module, count=40, seed=0):
    """Images (N, 1, 3, 4) and the model's own classes."""
    inputs = torch.from_numpy(np.random.default_rng(seed).random((count, 1, 3, 4), dtype=np.float32))
    with torch.no_grad():
        return inputs, module(inputs).argmax(1)


def wrong(module, labels, perturbed):
    with torch.no_grad():
        return module(perturbed).argmax(1) != labels


def dlr(z, y, t=None):
    """The two losses of the paper, of one image."""
    p = z.sort(descending=True).values
    if t is None:
        return -(z[y] - max(z[i] for i in range(len(z)) if i != y)) / (p[0] - p[2])
    return -(z[y] - z[t]) / (p[0] - (p[2] + p[3]) / 2)


def algorithm(loss, image, start, epsilon, norm, rho=0.75, alpha=0.75):
    """Algorithm 1 of one image in 100 steps, with the whole history of its losses; returns the best point."""

    def project(x):
        d = x - image
        d = d.clamp(-epsilon, epsilon) if norm == "linf" else d * min(1, epsilon / max(float(d.norm()), 1e-30))
        return (image + d).clamp(0, 1)

    def gradient(x):
        x = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(loss(x), x)
        return g.sign() if norm == "linf" else g / g.norm()

    checks = [0, 22]
    while checks[-1] < 100:
        checks.append(checks[-1] + max(checks[-1] - checks[-2] - 3, 6))
    x = previous = best = project(image + start)
    losses = [loss(x).item()]
    size, halved, reviewed = 2 * epsilon, True, losses[0]
    for k in range(100):
        z = project(x + size * gradient(x))
        moved = z if k == 0 else project(x + alpha * (z - x) + (1 - alpha) * (x - previous))
        previous, x = x, moved
        best = x if loss(x).item() > max(losses) else best
        losses.append(loss(x).item())
        if k + 1 in checks:
            first = checks[checks.index(k + 1) - 1]
            before = [0.0, *losses[1:]]  # the authors' code compares the first step with 0, not with the start
            rises = sum(losses[i + 1] > before[i] for i in range(first, k + 1))
            halved = rises <= rho * (k + 1 - first) or (not halved and reviewed == max(losses))
            reviewed = max(losses)
            if halved:
                size, x = size / 2, best
    return best


@NORMS
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr", "dlr towards a target"])
def test_each_image_gets_the_algorithm_of_the_paper(norm, loss):
    """Catches: a checkpoint a step off, a step size for the whole batch, a run that does not go on from its best."""
    module = Wavy(scale=1.0)
    inputs, labels = examples(module, 8)
    targets = (labels + 2) % 5 if "target" in loss else None
    epsilon = 0.1 if norm == "linf" else 0.25
    start = torch.from_numpy(APGD(norm=norm).draw(generator(3, Purpose.NOISE), tuple(inputs.shape)))[:, 0] * epsilon
    rho = 0.5 if targets is None else 0.75  # at a half, as many steps may rise as are needed
    got = apgd(
        module, inputs, labels, epsilon=epsilon, norm=norm, start=start, loss=loss.split()[0], targets=targets, rho=rho
    )  # fmt: skip
    close = 0
    for i in range(len(inputs)):

        def value(x, i=i):
            z = module(x[None])[0]
            if loss == "cross_entropy":
                return F.cross_entropy(z[None], labels[i : i + 1])
            return dlr(z, int(labels[i]), None if targets is None else int(targets[i]))

        best = algorithm(value, inputs[i], start[i], epsilon, norm, rho)
        close += torch.allclose(got[i], best, atol=1e-4)
    assert close >= 7, "a sign of nearly nothing may fall either way"


@SETTINGS
@given(seed=SEEDS, classes=st.integers(4, 9), scale=st.floats(0.1, 50), shift=st.floats(-5, 5))
def test_the_difference_of_logits_ratio_is_its_formula(seed, classes, scale, shift):
    """Catches: the label taken for its own rival, an order that begins elsewhere, a loss that grows with the logits."""
    random = np.random.default_rng(seed)
    z = torch.from_numpy(random.normal(size=(20, classes)))
    y, t = (torch.from_numpy(random.integers(0, classes, 20)) for _ in range(2))
    for targets in (None, t):
        due = torch.stack([dlr(z[i], int(y[i]), None if targets is None else int(targets[i])) for i in range(20)])
        got = difference_of_logits_ratio(z, y, targets)
        assert torch.allclose(got, due)
        assert torch.allclose(difference_of_logits_ratio(scale * z + shift, y, targets), due)
        assert torch.equal(attack_loss(z, y, "dlr", targets), got)
    misled = z.argmax(1) != y
    assert torch.equal(difference_of_logits_ratio(z, y) > 0, misled)


@pytest.mark.parametrize(("targeted", "classes"), [(False, 2), (True, 3), (True, 2)])
def test_the_difference_of_logits_ratio_needs_classes(targeted, classes):
    """Catches: a ratio to no spread, or an index out of range that names no repair."""
    logits, labels = torch.randn(2, classes), torch.zeros(2, dtype=torch.long)
    needed = "4 classes with a target" if targeted else "3 classes"
    with pytest.raises(GradientError, match=f"needs at least {needed}, got {classes}; use margin or cross_entropy"):
        difference_of_logits_ratio(logits, labels, labels + 1 if targeted else None)


@pytest.mark.parametrize(("attack", "classes"), [(APGD(loss="dlr"), 2), (TargetedAPGD(), 3)], ids=["dlr", "apgd-t"])
def test_a_loss_that_the_model_has_too_few_classes_for_is_an_error_of_the_cell(attack, classes):
    """Catches: an attack that cannot run taken for a model that resists."""
    pixels = helpers.images(20).pixels
    images = from_arrays(pixels, np.arange(20) % classes, tuple("abc"[:classes]))
    (status,) = run_sweep(helpers.linear(images), images, attack, [0.1]).status
    assert "use margin or cross_entropy" in status


@pytest.mark.parametrize("attack", ATTACKS, ids=["apgd", "apgd-dlr", "apgd-t"])
def test_an_image_that_is_misled_at_any_point_is_misled_at_the_end(attack):
    """Catches: a point of larger loss that is no longer misled, an early stop that changes another image's run."""
    module = Wavy(scale=2.0)
    inputs, labels = examples(module, 60)
    labels[:5] = (labels[:5] + 1) % 5
    seen = []

    class Looks(Wavy):
        def forward(self, inputs):
            seen.append(inputs.detach().clone())
            return super().forward(inputs)

    epsilon = 0.02 if attack.norm == "linf" else 0.06
    alone, misled = [], []
    for i in range(60):
        seen.clear()
        rows = slice(i, i + 1)
        batch = batch_of(module, inputs, labels, attack)
        single = Batch(Looks(scale=2.0), inputs[rows], labels[rows], batch.drawn[rows])
        alone.append(made(attack, single, epsilon))
        misled.append(any(bool(wrong(module, labels[rows], each)) for each in seen))
    perturbed = made(attack, batch_of(module, inputs, labels, attack), epsilon)
    assert wrong(module, labels, perturbed).tolist() == misled
    assert 5 < sum(misled) < 55, "else this shows nothing"
    assert torch.equal(perturbed[:5], inputs[:5]), "misled to begin with: they stay there"
    assert torch.allclose(perturbed, torch.cat(alone), atol=1e-3)


@pytest.mark.parametrize("attack", ATTACKS, ids=["apgd", "apgd-dlr", "apgd-t"])
@SETTINGS
@given(seed=SEEDS, order=st.permutations(range(9)), size=st.integers(1, 9), padding=st.integers(0, 3))
def test_an_image_does_not_depend_on_its_neighbours(attack, seed, order, size, padding):
    """Catches: draws by the row of a batch, padding that is attacked, a row that is left taken for another."""
    module = Wavy(scale=2.0)
    inputs, labels = examples(module, 9, seed)
    whole = batch_of(module, inputs, labels, attack, seed)
    epsilon = torch.linspace(0, 0.08, 9).view(-1, 1, 1, 1) * (1 if attack.norm == "linf" else 3)
    due = made(attack, whole, epsilon)
    assert torch.equal(due[0], inputs[0]), "strength 0"
    rows = torch.tensor(order)[:size]
    padded = torch.cat([rows, rows[:1].expand(padding)])
    part = Batch(module, inputs[padded], labels[padded], whole.drawn[padded], size=size)
    got = made(attack, part, epsilon[padded])[:size]
    assert torch.equal(wrong(module, labels[rows], got), wrong(module, labels[rows], due[rows]))
    assert torch.allclose(got, due[rows], atol=1e-3)


@NORMS
@SETTINGS
@given(seed=SEEDS, epsilon=st.floats(0, 1), steps=st.integers(1, 30), start=st.floats(0, 3))
def test_every_point_is_in_the_ball_and_in_the_box(norm, seed, epsilon, steps, start):
    """Catches: a momentum that leaves the ball, a start that is not brought back."""
    module, shown = Wavy(), []
    inputs, labels = examples(module, 5, seed)
    inputs = (2 * inputs - 0.5).clamp(0, 1)
    with module.register_forward_pre_hook(lambda _, given: shown.append(given[0].detach().clone())):
        begin = torch.from_numpy(np.random.default_rng(seed).normal(size=inputs.shape)).float() * start
        shown.append(apgd(module, inputs, labels, epsilon=epsilon, steps=steps, norm=norm, start=begin))
    assert len(shown) == steps + 2
    assert_inside(shown, inputs, epsilon, norm)


@NORMS
def test_runs_begin_on_the_surface_of_the_ball(norm):
    """Catches: a start of another radius, the same for two images or runs."""
    drawn = TargetedAPGD(norm=norm, restarts=2, target_classes=3).draw(generator(0, Purpose.NOISE), (50, 1, 3, 4))
    assert drawn.shape == (50, 6, 1, 3, 4)
    assert drawn.dtype == np.float32
    flat = drawn.reshape(300, 12)
    sizes = np.abs(flat).max(1) if norm == "linf" else np.linalg.norm(flat, axis=1)
    assert np.allclose(sizes, 1, atol=1e-6)
    assert len(np.unique(flat, axis=0)) == 300
    assert abs(flat.mean()) < 0.03
    module = Wavy()
    inputs, labels = examples(module)
    attack, seen = APGD(norm=norm, steps=1), []
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    batch = batch_of(module, inputs, labels, attack)
    made(attack, batch, 0.03)
    assert torch.allclose(seen[1], (inputs + 0.03 * batch.drawn[:, 0]).clamp(0, 1), atol=1e-6)


def test_targets_are_the_likeliest_wrong_classes_in_order():
    """Catches: the label among its targets, the least likely first, targets that a model does not have."""
    module = Wavy()
    inputs, labels = examples(module)
    labels = (labels + torch.arange(40) % 2) % 5
    with torch.no_grad():
        logits = module(inputs)
    for count, due in ((2, 2), (4, 4), (9, 4)):
        attack = TargetedAPGD(target_classes=count, restarts=2)
        aims = attack.aims(batch_of(module, inputs, labels, attack), logits)
        assert len(aims) == 2 * due
        for i in range(40):
            order = [c for c in logits[i].argsort(descending=True).tolist() if c != labels[i]]
            assert [int(aim[i]) for aim in aims] == [c for c in order[:due] for _ in range(2)]


def test_each_target_has_a_run_and_any_wrong_class_counts():
    """A run towards one class, on images that only another class can take. Catches: a run without its target."""

    class Corner(nn.Module):
        """Class 1 is likeliest and out of reach; class 3 is the last of the targets, and near."""

        def forward(self, inputs):
            x = inputs.flatten(1)
            return torch.stack([x[:, 0] * 0 + 1, 0.9 - 0.1 * x[:, 1], 0.5 + 0 * x[:, 0], 2 * x[:, 0] - 0.2], 1)

    inputs, labels = torch.full((3, 1, 3, 4), 0.2), torch.zeros(3, dtype=torch.long)
    epsilon = 0.45
    for count, due in ((2, False), (3, True)):
        attack = TargetedAPGD(target_classes=count, steps=10, loss="cross_entropy")
        batch = batch_of(Corner(), inputs, labels, attack)
        batch.drawn *= 0  # from the images themselves
        assert wrong(Corner(), labels, made(attack, batch, epsilon)).all() == due


@pytest.mark.parametrize("kind", [APGD, TargetedAPGD])
@pytest.mark.parametrize("loss", ["adaptive", "selective"])
def test_losses_of_detectors_are_rejected(kind, loss):
    """Catches: an attack that promises to evade a detector and does not."""
    with pytest.raises(ValidationError, match="'cross_entropy', 'margin' or 'dlr'"):
        kind(loss=loss)


def test_a_single_target_of_many_is_rejected():
    """Catches: a target in a card that the attack would pass over."""
    with pytest.raises(ValidationError, match="target"):
        TargetedAPGD(target=3)


@pytest.mark.parametrize("field", ["rho", "momentum"])
@pytest.mark.parametrize("value", [0, 1.1, float("nan")])
def test_shares_lie_between_0_and_1(field, value):
    with pytest.raises(ValidationError, match=field):
        APGD(**{field: value})


@pytest.mark.parametrize("wrong_size", [{"epsilon": -0.1}, {"steps": -1}, {"epsilon": float("nan")}])
def test_apgd_takes_no_size_below_zero(wrong_size):
    module = Wavy()
    (name,) = wrong_size
    with pytest.raises(ValueError, match=f"`{name}` must be at least 0, got"):
        apgd(module, *examples(module, 4), **{"epsilon": 0.1, **wrong_size})


@pytest.mark.parametrize("attack", [APGD(steps=4), APGD(steps=4, loss="margin"), TargetedAPGD(steps=4)], ids=repr)
def test_a_constant_model_has_no_numbers(attack):
    """Catches: a model that ignores the image taken for one that resists."""

    class Constant(nn.Module):
        def forward(self, inputs):
            return 0 * inputs.flatten(1)[:, :4] + torch.tensor([1.0, 0.5, 0.2, 0.0])

    images = from_arrays(helpers.images(40).pixels, np.zeros(40, int), tuple("abcd"))
    (status,) = run_sweep(Constant(), images, attack, [0.1]).status
    assert status.startswith("no gradient (neither cross-entropy's nor the margin's) for 40 of 40 images")


@pytest.mark.parametrize("attack", [APGD(steps=4), TargetedAPGD(steps=4)], ids=["apgd", "apgd-t"])
@pytest.mark.parametrize("reached", [False, True], ids=["at the image", "on the way"])
def test_logits_that_are_no_numbers_fail_the_cell(attack, reached):
    """Catches: an image of which the model says nothing taken for one that is misled, or that resists."""
    module = Wavy()
    pixels = np.random.default_rng(0).integers(60, 200, (30, 3, 4), dtype=np.uint8)
    inputs = torch.from_numpy(pixels[:, None] / np.float32(255))
    with torch.no_grad():
        labels = module(inputs).argmax(1).numpy()

    class Gaps(Wavy):
        def forward(self, images):
            logits = super().forward(images)
            known = torch.cat([inputs, 1 - inputs]) if reached else inputs[1:]
            near = (images.flatten(1)[:, None] - known.flatten(1)[None]).abs().amax(2).amin(1) < (
                1e-6 if reached else 0.05
            )
            return logits.masked_fill(~near[:, None], torch.nan)

    evidence = run_sweep(Gaps(), from_arrays(pixels, labels, tuple("abcde")), attack, [0.02], batch_size=30, threads=1)
    assert evidence.status != (OK,)
    assert (evidence.predictions == -1).all() or "finite" in evidence.status[0]


def test_steps_are_counted_and_the_misled_cost_none():
    """Catches: a gradient at the last point, which nothing needs; runs of images that are misled already."""
    module, gradients = Wavy(), []
    inputs, labels = examples(module)

    def look(_, given):
        if given[0].requires_grad:
            gradients.append(len(given[0]))

    module.register_forward_pre_hook(look)
    tiny = 1e-7
    for attack in (APGD(steps=7), APGD(steps=7, restarts=2), TargetedAPGD(steps=7, target_classes=3)):
        gradients.clear()
        made(attack, batch_of(module, inputs, labels, attack, size=35), tiny)
        assert gradients == [35] * attack.gradients([tiny]), "padding costs nothing"
        gradients.clear()
        made(attack, batch_of(module, inputs, (labels + 1) % 5, attack), tiny)
        assert not gradients


def test_a_rejecting_model_is_attacked_through_its_classes():
    """NULL's last logit is the attack probability. Catches: classes by position of a logit that is none."""
    module = Wavy(6)
    inputs, _ = examples(module)
    with torch.no_grad():
        labels = Null().predictions(module(inputs))
    for attack in (APGD(steps=20, loss="dlr"), TargetedAPGD(steps=20)):
        perturbed = made(attack, batch_of(module, inputs, labels, attack, decision=Null()), 0.1)
        with torch.no_grad():
            misled = Null().predictions(module(perturbed)) != labels
        assert misled.float().mean() > 0.5


def test_apgd_misleads_at_least_as_often_as_pgd_and_the_targets_more():
    """On a model of many small regions. Catches: an attack that is weaker than the simple one it replaces."""
    module = Wavy(classes=8)
    inputs, labels = examples(module, 200)
    rates = {}
    for name, attack in {
        "fgsm": FGSM(), "pgd": PGD(steps=100, stop_when_fooled=True), "apgd": APGD(), "apgd-t": TargetedAPGD(),
    }.items():  # fmt: skip
        drawn = attack.draw(generator(0, Purpose.NOISE), tuple(inputs.shape))
        batch = Batch(module, inputs, labels, None if drawn is None else torch.from_numpy(drawn), decision=Argmax())
        rates[name] = float(wrong(module, labels, made(attack, batch, 0.02)).float().mean())
    assert rates["fgsm"] < rates["apgd"] < 1, rates
    assert rates["pgd"] <= rates["apgd"] + 0.01, rates
    assert rates["apgd"] < rates["apgd-t"], rates
