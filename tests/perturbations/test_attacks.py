"""Attacks where the answer is known: on linear models in closed form, and what all of them promise."""

from unittest.mock import patch

import helpers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional as F

from robustness.data import from_arrays
from robustness.metrics.evidence import OK
from robustness.perturbations import APGD, FGSM, IFGSM, PGD, AdaptivePGD, Batch, Clean, TargetedAPGD
from robustness.perturbations.apgd import apgd
from robustness.perturbations.fgsm import fgsm
from robustness.perturbations.pgd import pgd
from robustness.perturbations.strength import StrengthDistribution
from robustness.perturbations.worst_case import BestIterate
from robustness.sweep import trials
from robustness.sweep.runner import run_sweep
from robustness.util.rng import Purpose, generator

SETTINGS = settings(deadline=None, max_examples=25)
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
SEEDS = st.integers(0, 2**16)


class Linear(nn.Module):
    """Logits −(w·x + b)/2 and (w·x + b)/2: the margin for class 1 is w·x + b."""

    def __init__(self, weight, bias=0.0):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.as_tensor(weight, dtype=torch.float32)), bias

    def margin(self, inputs):
        return inputs.flatten(1) @ self.weight + self.bias

    def forward(self, inputs):
        return torch.stack([-self.margin(inputs) / 2, self.margin(inputs) / 2], 1)


def weight_of(seed, size=12):
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def grey(count=40, seed=0, low=0.4, high=0.6):
    """Images far from black and white, (N, 1, 3, 4), and labels of two classes."""
    random = np.random.default_rng(seed)
    inputs = random.uniform(low, high, (count, 1, 3, 4)).astype(np.float32)
    return torch.from_numpy(inputs), torch.from_numpy(random.integers(0, 2, count))


def perceptron(seed=0, scale=1.0, classes=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        last = nn.Linear(16, classes)
        with torch.no_grad():
            last.weight.mul_(scale)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), last).eval()


class Wavy(nn.Module):
    """Classes by waves across the images: many small regions, so that runs end in different ones."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(np.random.default_rng(8).normal(size=(24, 12))).float())

    def forward(self, inputs):
        waves = (inputs.flatten(1) @ self.weight[:12].T * 4).sin()
        return waves @ self.weight[12:15].T


def batch_of(module, inputs, labels, attack, seed=0, **more):
    drawn = attack.draw(generator(seed, Purpose.NOISE), tuple(inputs.shape))
    return Batch(module, inputs, labels, None if drawn is None else torch.from_numpy(drawn), **more)


def made(attack, batch, strength):
    with torch.no_grad():
        return attack.prepare(batch)(strength, torch.empty_like(batch.inputs)).clone()


def assert_rows_are_independent(attack, batch, strength):
    """Images alone, in reverse order and with padding are those of the whole batch of twelve; returns these."""
    together = made(attack, batch, strength)

    def some(rows, size=None):
        drawn = None if batch.drawn is None else batch.drawn[rows]
        part = Batch(batch.classifier, batch.inputs[rows], batch.labels[rows], drawn, size=size)
        return made(attack, part, strength)

    reverse, padded = torch.arange(11, -1, -1), torch.tensor([*range(12), 0, 0])
    assert torch.allclose(some(reverse), together[reverse], atol=1e-5)
    assert torch.allclose(some(padded, 12)[:12], together, atol=1e-5)
    for row in range(12):
        assert torch.allclose(some(torch.tensor([row]))[0], together[row], atol=1e-5)
    return together


def assert_threads_and_batches_do_not_matter(attack):
    """Returns the model, the images, and their evidence at 0.05 and 0.2."""
    pixels = np.random.default_rng(1).integers(0, 256, (130, 3, 4), dtype=np.uint8)
    images, module = from_arrays(pixels, np.arange(130) % 3, ("a", "b", "c")), perceptron(scale=5)
    one, two = (run_sweep(module, images, attack, [0.05, 0.2], batch_size=40, threads=n) for n in (1, 2))
    assert one.status == (OK,) * 2
    assert one.digest == two.digest
    other = run_sweep(module, images, attack, [0.05, 0.2], batch_size=23, threads=1)
    assert (other.predictions == one.predictions).mean() > 0.99
    return module, images, one


def assert_inside(shown, inputs, epsilon, norm):
    """Each of the images shown is in the ball around its input, and in [0, 1]."""
    for image in shown:
        assert ((image >= 0) & (image <= 1)).all()
        delta = (image - inputs).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert (size <= epsilon + 1e-6).all()


def dual(weight, norm):
    """How much a step of length 1 changes a linear function at most."""
    return float(np.abs(weight).sum() if norm == "linf" else np.sqrt((weight.astype(float) ** 2).sum()))


ATTACKS = {
    "fgsm": lambda module, x, y, norm, **more: fgsm(module, x, y, epsilon=0.05, norm=norm, **more),
    "ifgsm": lambda module, x, y, norm, **more: pgd(
        module, x, y, epsilon=0.05, step_size=0.005, steps=10, norm=norm, **more
    ),
    "pgd": lambda module, x, y, norm, **more: pgd(
        module, x, y, epsilon=0.05, step_size=0.02, steps=60, norm=norm,
        start=torch.full_like(x, 0.05 if norm == "linf" else 0.05 / 12**0.5), **more,
    ),
    "apgd": lambda module, x, y, norm, **more: apgd(
        module, x, y, epsilon=0.05, steps=60, norm=norm,
        start=torch.full_like(x, 0.05 if norm == "linf" else 0.05 / 12**0.5), **more,
    ),
}  # fmt: skip


@NORMS
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_linear_margin_moves_by_epsilon_times_the_dual_norm(attack, targeted, loss, norm):
    """Catches: a wrong sign, the L2 step of another length, a target that is fled, a projection that loses budget."""
    weight, (inputs, labels) = weight_of(1), grey()
    module = Linear(weight, -0.3)
    given = {"targets": labels} if targeted else {}
    perturbed = ATTACKS[attack](module, inputs, labels, norm, loss=loss, **given)
    moved = (module.margin(perturbed) - module.margin(inputs)).detach().double().numpy()
    away = np.where(labels == 1, -1, 1) * (-1 if targeted else 1)
    assert np.allclose(moved, away * 0.05 * dual(weight, norm), rtol=2e-3)


@NORMS
@pytest.mark.parametrize(
    "attack",
    [FGSM, IFGSM, lambda **n: PGD(steps=24, **n), lambda **n: APGD(steps=40, **n),
     lambda **n: TargetedAPGD(steps=40, loss="margin", **n)],
    ids=["fgsm", "ifgsm", "pgd", "apgd", "apgd-t"],
)  # fmt: skip
def test_the_smallest_epsilon_that_flips_a_linear_model(attack, norm):
    """|w·x + b| / ‖w‖ of the dual norm: just below an image holds, just above it flips."""
    random = np.random.default_rng(3)
    pixels = random.integers(110, 145, (30, 3, 4), dtype=np.uint8)
    weight = weight_of(2)
    margins = pixels.reshape(30, -1) / 255 @ weight.astype(float)
    bias = -float(np.median(margins))
    needed = np.abs(margins + bias) / dual(weight, norm)
    module, images = Linear(weight, bias), from_arrays(pixels, (margins + bias > 0).astype(int), ("no", "yes"))
    chosen = sorted(needed)[7::9]
    strengths = [share * float(e) for e in chosen for share in (0.99, 1.01)]
    evidence = run_sweep(module, images, attack(norm=norm), strengths, batch_size=7)
    assert evidence.status == (OK,) * len(strengths)
    for row, strength in enumerate(strengths):
        clear = np.abs(needed / strength - 1) > 0.005
        assert np.array_equal((evidence.predictions[row] != images.labels)[clear], (needed < strength)[clear])
        assert clear[np.argsort(needed)[7::9]].all()


def test_three_classes_by_cross_entropy_and_by_margin():
    """Catches: one loss under the other's name; the margin towards another class than the runner-up."""
    random = np.random.default_rng(0)
    weight, (inputs, _) = random.normal(size=(3, 12)), grey(20)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False))
    with torch.no_grad():
        module[1].weight.copy_(torch.from_numpy(weight))
    labels = np.arange(20) % 3
    logits = inputs.flatten(1).double().numpy() @ weight.T
    f = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    others = np.where(np.eye(3, dtype=bool)[labels], -np.inf, logits).argmax(axis=1)
    due = {"cross_entropy": np.sign(f @ weight - weight[labels]), "margin": np.sign(weight[others] - weight[labels])}
    assert not np.array_equal(due["cross_entropy"], due["margin"]), "else this shows nothing"
    for loss, direction in due.items():
        perturbed = fgsm(module, inputs, torch.from_numpy(labels), epsilon=0.25, loss=loss)
        assert np.array_equal(np.round((perturbed - inputs).flatten(1).numpy() * 4), direction)


def plain_pgd(module, inputs, labels, epsilon, lengths, norm, start, targets=None):
    """The iterates of Madry et al., the start first, in a few plain lines."""

    def project(x):
        delta = x - inputs
        length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        inside = delta.clamp(-epsilon, epsilon) if norm == "linf" else delta * (epsilon / length.clamp(min=epsilon))
        return (inputs + inside).clamp(0, 1)

    iterates = [project(inputs + start)]
    for length in lengths:
        x = iterates[-1].detach().requires_grad_()
        loss = F.cross_entropy(module(x), labels if targets is None else targets, reduction="sum")
        (ascent,) = torch.autograd.grad(loss if targets is None else -loss, x)
        direction = ascent.sign() if norm == "linf" else F.normalize(ascent.flatten(1)).view_as(x)
        iterates.append(project(x.detach() + length * direction))
    return iterates


@NORMS
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_pgd_is_its_definition(norm, targeted):
    """On a network that is not linear. Catches: a projection left out, a wrong order of step, ball and box."""
    module, (inputs, labels) = perceptron(scale=5), grey(low=0, high=1)
    targets = (labels + 1) % 3 if targeted else None
    start = torch.from_numpy(weight_of(5, inputs.numel())).view_as(inputs) * 0.1
    got = pgd(module, inputs, labels, epsilon=0.3, step_size=0.11, steps=7, norm=norm, start=start, targets=targets)
    due = plain_pgd(module, inputs, labels, 0.3, [0.11] * 7, norm, start, targets)[-1]
    assert torch.allclose(got, due, atol=1e-5)
    assert (got - inputs).abs().max() > 0.1


@NORMS
@pytest.mark.parametrize("worst_case", [False, True])
def test_steps_of_a_linear_schedule_shorten_to_none(norm, worst_case):
    """Against plain PyTorch. Catches: one length for all steps, a schedule that begins or ends a step off."""
    module, (inputs, labels) = perceptron(scale=5), grey(low=0, high=1)
    start = torch.from_numpy(weight_of(5, inputs.numel())).view(len(inputs), 1, *inputs.shape[1:])
    start = start / start.abs().max() / (1 if norm == "linf" else 12**0.5)
    attack = PGD(norm=norm, steps=5, relative_step_size=2.0, schedule="linear", stop_when_fooled=worst_case)
    got = made(attack, Batch(module, inputs, labels, start), 0.1)
    lengths = [0.1 * share for share in (2.0, 1.6, 1.2, 0.8, 0.4)]
    iterates = plain_pgd(module, inputs, labels, 0.1, lengths, norm, 0.1 * start[:, 0])
    if not worst_case:
        assert torch.allclose(got, iterates[-1], atol=1e-5)
        return
    misled = torch.stack([module(each).argmax(1) != labels for each in iterates])
    assert 0 < misled.any(0).sum() < len(labels), "else this shows nothing"
    for i in misled.any(0).nonzero().flatten().tolist():
        first = iterates[int(misled[:, i].int().argmax())][i]
        assert torch.allclose(got[i], first, atol=1e-5), "the first that misleads"
    assert torch.equal(module(got).argmax(1) != labels, misled.any(0))


@NORMS
def test_i_fgsm_is_pgd_with_steps_of_epsilon_over_steps(norm):
    module, (inputs, labels) = perceptron(), grey()
    due = pgd(module, inputs, labels, epsilon=0.2, step_size=0.05, steps=4, norm=norm)
    for attack in (IFGSM(norm=norm, steps=4), PGD(norm=norm, steps=4, relative_step_size=0.25, random_start=False)):
        assert torch.allclose(made(attack, Batch(module, inputs, labels), 0.2), due, atol=1e-6)


@NORMS
@SETTINGS
@given(
    seed=SEEDS,
    epsilon=st.floats(0, 1),
    relative=st.floats(0.01, 3),
    steps=st.integers(1, 4),
    start=st.floats(0, 3),
    targeted=st.booleans(),
)
def test_every_iterate_is_in_the_ball_and_in_the_box(norm, seed, epsilon, relative, steps, start, targeted):
    """What the model is shown at every step, and what comes out; with images at 0 and 1, and starts outside."""
    module, (inputs, labels) = perceptron(seed, scale=10), grey(6, seed, -0.5, 1.5)
    inputs, shown = inputs.clamp(0, 1), []

    def look(_, given):
        shown.append(given[0].detach().clone())

    with module.register_forward_pre_hook(look):
        begin = torch.from_numpy(weight_of(seed, inputs.numel())).view_as(inputs) * start
        targets = (labels + 1) % 3 if targeted else None
        shown.append(
            pgd(
                module, inputs, labels, epsilon=epsilon, step_size=relative * epsilon, steps=steps, norm=norm,
                start=begin, targets=targets,
            )
        )  # fmt: skip
    assert len(shown) == steps + 1
    assert_inside(shown, inputs, epsilon, norm)


@NORMS
@pytest.mark.parametrize("restarts", [1, 3])
def test_random_starts_are_uniform_in_the_ball(norm, restarts):
    """Catches: starts on the surface, a cube's corners for a ball, the same start for every restart or image."""
    d, n = 6, 2000
    drawn = PGD(norm=norm, restarts=restarts).draw(generator(0, Purpose.NOISE), (n, 1, 2, 3))
    assert drawn.shape == (n, restarts, 1, 2, 3)
    assert drawn.dtype == np.float32
    for points in drawn.reshape(n, restarts, d).swapaxes(0, 1).astype(float):
        if norm == "linf":
            radius = np.abs(points).max(axis=1)
            marginal = stats.uniform(-1, 2)
        else:
            radius = np.linalg.norm(points, axis=1)
            marginal = stats.beta((d + 1) / 2, (d + 1) / 2, -1, 2)
        assert stats.kstest(radius**d, "uniform").pvalue > 1e-3
        assert all(stats.kstest(column, marginal.cdf).pvalue > 1e-3 for column in points.T)
        assert np.abs(np.corrcoef(points.T) - np.eye(d)).max() < 0.1
    flat = drawn.reshape(n * restarts, d)
    assert len(np.unique(flat, axis=0)) == len(flat)


@NORMS
def test_a_run_begins_at_its_random_start(norm):
    """Catches: starts of another radius than ε, or of the first strength's for all."""
    module, (inputs, labels) = perceptron(), grey()
    attack = PGD(norm=norm, relative_step_size=1e-9, steps=1)
    batch = batch_of(module, inputs, labels, attack)
    for epsilon in (0.05, 0.3):
        assert torch.allclose(made(attack, batch, epsilon) - inputs, epsilon * batch.drawn[:, 0], atol=1e-6)


def standing(module, labels, perturbed):
    """Which images are misled, and the loss of each."""
    with torch.no_grad():
        logits = module(perturbed)
    return logits.argmax(1) != labels, F.cross_entropy(logits, labels, reduction="none")


@NORMS
def test_of_restarts_each_image_keeps_the_worst(norm):
    """Catches: the last or the first restart, the best, one restart for the whole batch."""
    attack = PGD(norm=norm, restarts=4, steps=3)
    module, (inputs, labels) = Wavy(), grey(200, low=0, high=1)
    labels = module(inputs).argmax(1)
    batch, epsilon = batch_of(module, inputs, labels, attack), 0.04 if norm == "linf" else 0.08
    single = PGD(norm=norm, steps=3)
    runs = [
        standing(module, labels, made(single, Batch(module, inputs, labels, batch.drawn[:, r : r + 1]), epsilon))
        for r in range(4)
    ]
    misled, losses = (torch.stack(each) for each in zip(*runs, strict=True))
    got, loss = standing(module, labels, made(attack, batch, epsilon))
    assert torch.equal(got, misled.any(0))
    assert (misled.float().mean(1) < misled.any(0).float().mean()).all(), "else this shows nothing"
    due = torch.where(misled == misled.any(0), losses, -torch.inf).amax(0)
    assert torch.allclose(loss, due, atol=1e-5)


@NORMS
def test_an_image_that_comes_back_to_the_right_side_was_misled(norm):
    """A band at a mean of 0.515 to 0.555: steps of 0.045 go to and fro between 0.5 and 0.545, and six end at 0.5."""

    class Band(nn.Module):
        def forward(self, inputs):
            inside = 0.02 - (inputs.mean((1, 2, 3)) - 0.535).abs()
            return torch.stack([torch.zeros_like(inside), inside], 1)

    inputs, labels = torch.full((3, 1, 3, 4), 0.5), torch.tensor([0, 0, 1])
    epsilon = 0.05 * (1 if norm == "linf" else 12**0.5)
    for worst, due in ((False, [False, False, True]), (True, [True, True, True])):
        attack = PGD(norm=norm, steps=6, relative_step_size=0.9, random_start=False, stop_when_fooled=worst)
        perturbed = made(attack, Batch(Band(), inputs, labels), epsilon)
        assert standing(Band(), labels, perturbed)[0].tolist() == due
    assert torch.equal(perturbed[2], inputs[2])
    assert torch.allclose(perturbed[0].mean(), torch.tensor(0.545), atol=1e-4)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_iterate_that_misleads_is_worse_than_one_of_larger_loss_that_does_not(order):
    """Log 3 against log 2: three classes that tie lose more than two of which the wrong one leads."""
    inputs, labels = torch.zeros(1, 1, 3, 4), torch.tensor([0])
    iterates = [torch.full_like(inputs, 0.1), torch.full_like(inputs, 0.2)]
    logits = torch.tensor([[[1.0, 0.99, 0.99]], [[0.0, 0.1, -9.0]]])
    losses = F.cross_entropy(logits[:, 0], torch.tensor([0, 0]), reduction="none")
    assert losses[0] > losses[1]
    worst, open_ = BestIterate(Batch(nn.Identity(), inputs, labels), "cross_entropy", None), []
    for i in order:
        worst.keep(iterates[i], logits[i])
        open_.append(len(worst.open))
    assert torch.equal(worst.images, iterates[1])
    assert open_ == ([1, 0] if order == (0, 1) else [0, 0])


def test_images_that_are_misled_are_left_out_of_the_rest_of_the_run():
    """What it finds is what each image alone gets; padding costs nothing. Catches: a row taken for another."""
    images = thirty()
    attack = PGD(steps=8, relative_step_size=0.3, random_start=False, stop_when_fooled=True)
    module = perceptron(scale=10)
    inputs, labels = helpers.tensors(images)
    with torch.no_grad():
        together = attack.prepare(Batch(module, inputs, labels))(0.1, torch.empty_like(inputs))
        padded = Batch(module, torch.cat([inputs, inputs[:2]]), torch.cat([labels, labels[:2]]), size=30)
        beside = attack.prepare(padded)(0.1, torch.empty_like(padded.inputs))[:30]
        for i in range(30):
            alone = Batch(module, inputs[i : i + 1], labels[i : i + 1])
            due = attack.prepare(alone)(0.1, torch.empty_like(inputs[:1]))
            assert torch.allclose(together[i], due[0], atol=1e-6)
            assert torch.allclose(beside[i], due[0], atol=1e-6)
    assert not torch.equal(together, inputs)


class Counting:
    """Counts the passes of a model's copies through what they share: forward with and without gradients, backward."""

    def __init__(self, inner):
        self.forwards = self.backwards = self.differentiable = 0
        outer = self

        class Counted(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = inner

            def forward(self, inputs):
                outer.forwards += 1
                if inputs.requires_grad:
                    outer.differentiable += 1
                    inputs.register_hook(outer.passed)
                return self.inner(inputs)

            def __deepcopy__(self, memo):
                return self

        self.module = Counted()

    def passed(self, gradient):
        self.backwards += 1

    def swept(self, images, attack, strengths, **more):
        """Return the passes of the sweep itself, without those that try whether copies may work at once."""
        try_copies = trials.run_trials

        def uncounted(*arguments):
            before = dict(vars(self))
            models = try_copies(*arguments)
            vars(self).update(before)
            return models

        self.forwards = self.differentiable = self.backwards = 0
        with patch.object(trials, "run_trials", uncounted):
            evidence = run_sweep(self.module, images, attack, strengths, threads=1, batch_size=10, **more)
        assert set(evidence.status) == {OK}
        return self.forwards, self.differentiable, self.backwards


def thirty():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 3, 4), dtype=np.uint8)
    return from_arrays(pixels, np.arange(30) % 3, ("a", "b", "c"))


@pytest.mark.parametrize("attack", [FGSM(), FGSM(norm="l2"), FGSM(loss="margin")], ids=repr)
def test_fgsm_takes_one_gradient_a_batch_for_all_strengths(attack):
    counting, images = Counting(perceptron()), thirty()
    one, one_gradient, one_back = counting.swept(images, attack, [0.1])
    many, many_gradients, many_back = counting.swept(images, attack, [0.1, 0.2, 0.3, 0.4])
    assert one_gradient == many_gradients == one_back == many_back == 3
    assert many - one == 3 * 3, "a forward pass for every batch and further strength"


@pytest.mark.parametrize(
    ("attack", "gradients"),
    [
        (IFGSM(steps=4), lambda strengths: 1 + 3 * strengths),
        (PGD(steps=4, random_start=False), lambda strengths: 1 + 3 * strengths),
        (PGD(steps=4), lambda strengths: 4 * strengths),
        (PGD(steps=4, restarts=2), lambda strengths: 8 * strengths),
    ],
    ids=["ifgsm", "pgd", "pgd from random starts", "pgd with restarts"],
)
def test_iterated_attacks_take_all_their_steps_on_every_image(attack, gradients):
    """Catches: images that are fooled already left out where accuracy at ε is asked for."""
    counting, images = Counting(perceptron(scale=10)), thirty()
    for strengths in ([0.5], [0.3, 0.6, 0.9]):
        _, differentiable, backwards = counting.swept(images, attack, strengths)
        assert differentiable == backwards == 3 * gradients(len(strengths))


def test_for_the_worst_case_a_batch_that_is_misled_is_done():
    class Wrong(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1)[:, :3] * torch.tensor([1.0, 1.0, 0.0]) + torch.tensor([-9.0, -9.0, 0.0])

    images = from_arrays(thirty().pixels, np.arange(30) % 2, ("a", "b", "c"))
    counting = Counting(Wrong())
    _, differentiable, _ = counting.swept(images, PGD(steps=10, stop_when_fooled=True), [0.1])
    assert differentiable <= 3


@pytest.mark.parametrize("attack", [FGSM(), IFGSM(steps=3)], ids=repr)
def test_the_clean_forward_is_shared_by_strength_zero(attack):
    counting, images = Counting(perceptron()), thirty()
    without, *_ = counting.swept(images, attack, [0.1])
    if isinstance(attack, FGSM):
        assert counting.swept(images, attack, [0.0, 0.1])[0] == without
    evidence = run_sweep(counting.module, images, attack, [0.2, 0.0])
    clean = run_sweep(counting.module, images, Clean(), [0])
    assert np.array_equal(evidence.predictions[1], clean.predictions[0])
    assert np.allclose(evidence.loss[1], clean.loss[0], atol=1e-6)
    assert np.isinf(evidence.snr[1]).all()


def test_the_sweep_decides_as_the_model_does_on_the_functions_images():
    images, module = thirty(), perceptron(scale=3)
    inputs, labels = helpers.tensors(images)
    for norm, strengths in (("linf", [0.02, 0.1, 1.0]), ("l2", [0.1, 1.0, 30.0])):
        for attack, function in (
            (FGSM(norm=norm), lambda e, n=norm: fgsm(module, inputs, labels, epsilon=e, norm=n)),
            (
                IFGSM(norm=norm, steps=5),
                lambda e, n=norm: pgd(module, inputs, labels, epsilon=e, step_size=e / 5, steps=5, norm=n),
            ),
        ):
            evidence = run_sweep(module, images, attack, strengths, batch_size=30, threads=1)
            with torch.no_grad():
                logits = [module(function(strength)) for strength in strengths]
            assert np.array_equal(evidence.predictions, torch.stack(logits).argmax(2))
            losses = [F.cross_entropy(each, labels, reduction="none") for each in logits]
            assert np.allclose(evidence.loss, torch.stack(losses), atol=1e-5)


@pytest.mark.parametrize(
    "attack",
    [FGSM(), FGSM(norm="l2"), IFGSM(steps=3), PGD(steps=3), PGD(restarts=2), APGD(steps=8, restarts=2),
     TargetedAPGD(steps=8, loss="margin")],
    ids=repr,
)  # fmt: skip
def test_threads_and_batches_do_not_change_a_decision(attack):
    """Catches: starts by the batch instead of the image, padding that reaches its neighbours."""
    pixels = np.random.default_rng(1).integers(0, 256, (1234, 3, 4), dtype=np.uint8)
    images = from_arrays(pixels, np.arange(1234) % 3, ("a", "b", "c"))
    module = perceptron(scale=5)
    swept = [run_sweep(module, images, attack, [0.1], batch_size=size, threads=n) for size, n in ((250, 1), (250, 2))]
    assert len({evidence.digest for evidence in swept}) == 1
    other = run_sweep(module, images, attack, [0.1], batch_size=77, threads=1)
    assert (other.predictions == swept[0].predictions).mean() > 0.999
    few = run_sweep(module, images.select(np.arange(1100), "few"), attack, [0.1], batch_size=250)
    assert np.array_equal(few.predictions[0], swept[0].predictions[0, :1100])


@pytest.mark.parametrize("attack", [FGSM(), FGSM(norm="l2"), IFGSM(steps=3), PGD(steps=3)], ids=repr)
def test_a_strength_an_image_is_each_image_at_its_strength(attack):
    module, (inputs, labels) = perceptron(scale=5), grey(8)
    strengths = torch.linspace(0, 0.7, 8)
    batch = batch_of(module, inputs, labels, attack)
    together = made(attack, batch, strengths.view(-1, 1, 1, 1))
    for i, strength in enumerate(strengths.tolist()):
        assert torch.allclose(together[i], made(attack, batch, strength)[i], atol=1e-5)
    evidence = run_sweep(module, thirty(), attack, [StrengthDistribution(uniform=(0.0, 0.3), clean_fraction=0.5)])
    assert evidence.status == (OK,)
    unchanged = np.isinf(evidence.snr[0])
    assert np.array_equal(unchanged, evidence.drawn[0] == 0)


@pytest.mark.parametrize("target", [0, 2, "least_likely", "runner_up"])
def test_a_targeted_sweep_goes_towards_its_class(target):
    """Catches: a target of the classes as sorted, the label itself as its own runner-up."""
    images, module = thirty(), perceptron(scale=3)
    inputs = torch.from_numpy(images.batch(0, 30))
    with torch.no_grad():
        scores = module(inputs).numpy().copy()
    every, labels = np.arange(30), images.labels
    scores[every, labels] = np.inf if target == "least_likely" else -np.inf
    goals = {"least_likely": scores.argmin(axis=1), "runner_up": scores.argmax(axis=1)}.get(target, np.full(30, target))
    for attack in (FGSM(target=target), PGD(target=target, steps=20)):
        evidence = run_sweep(module, images, attack, [0.0, 0.05, 0.3], probabilities=True)
        towards = evidence.probabilities[:, every, goals]
        assert towards[0].mean() < towards[1].mean()
        if attack.kind == "pgd":
            assert (towards[1] > towards[0] - 1e-6).all()
            assert (evidence.predictions[2] == goals).sum() > (evidence.predictions[0] == goals).sum()


@pytest.mark.parametrize("kind", [PGD, AdaptivePGD])
def test_restarts_that_would_all_be_the_same_are_refused(kind):
    with pytest.raises(ValueError, match="`restarts` must be 1 without a random start, got 3"):
        kind(restarts=3, random_start=False)


@pytest.mark.parametrize("wrong", [{"epsilon": -0.1}, {"step_size": -0.1}, {"steps": -1}, {"epsilon": float("nan")}])
def test_pgd_takes_no_size_below_zero(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}` must be at least 0, got"):
        pgd(perceptron(), *grey(4), **{"epsilon": 0.1, "step_size": 0.1, "steps": 2, **wrong})


@pytest.mark.parametrize("attack", [fgsm, apgd, lambda *given, **more: pgd(*given, step_size=0.1, steps=1, **more)])
def test_a_label_that_cross_entropy_would_pass_over_is_told(attack):
    """Catches: an image that comes back unchanged, as one that cannot be attacked would."""
    inputs, labels = grey(4)
    labels[2] = -100
    with pytest.raises(ValueError, match="`labels` must be classes, from 0 on, got -100"):
        attack(perceptron(), inputs, labels, epsilon=0.1)
