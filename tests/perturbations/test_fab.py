"""FAB-T where the answer is known: projections against solvers, distances on linear models in closed form."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import optimize
from test_attacks import (
    Linear,
    assert_rows_are_independent,
    assert_threads_and_batches_do_not_matter,
    batch_of,
    dual,
    grey,
    made,
    perceptron,
    thirty,
    weight_of,
)
from torch import nn

from robustness.data import from_arrays
from robustness.decisions import Null
from robustness.metrics.evidence import OK
from robustness.perturbations import FAB, Batch
from robustness.perturbations.boundary import to_boundary
from robustness.perturbations.fab import fab
from robustness.sweep.runner import run_sweep

SETTINGS = settings(deadline=None, max_examples=25)
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
SEEDS = st.integers(0, 2**16)


def length(change, norm):
    flat = change.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


class Counted(nn.Module):
    """Counts the images that a model is shown, with gradients and without."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.differentiated, self.shown = inner, 0, 0

    def forward(self, inputs):
        if inputs.requires_grad:
            self.differentiated += len(inputs)
        else:
            self.shown += len(inputs)
        return self.inner(inputs)


@NORMS
@SETTINGS
@given(seed=SEEDS, zeros=st.integers(0, 3), corner=st.booleans())
def test_a_step_is_the_shortest_to_the_hyperplane_within_the_box(norm, seed, zeros, corner):
    """Against scipy's solvers. Catches: a step that leaves the box, a longer one, pixels without weight that move."""
    random = np.random.default_rng(seed)
    weight, image = random.normal(size=6), np.clip(random.uniform(-0.3, 1.3, 6), 0, 1)
    weight[:zeros] = 0
    reach = sum(max(w * (1 - x), -w * x) for w, x in zip(weight, image, strict=True))
    sign = random.choice([-1, 1])
    if sign < 0:
        reach = sum(max(-w * (1 - x), w * x) for w, x in zip(weight, image, strict=True))
    value = -sign * reach * (1.5 if corner else random.uniform(0.05, 0.95))
    args = (torch.tensor(each, dtype=torch.float32) for each in (image[None], weight[None]))
    change = to_boundary(*args, torch.tensor([value], dtype=torch.float32), norm)[0].double().numpy()
    assert ((image + change > -1e-6) & (image + change < 1 + 1e-6)).all()
    assert (change[:zeros] == 0).all()
    if corner:
        assert np.isclose(weight @ change, sign * reach, atol=1e-5)
        return
    assert np.isclose(value + weight @ change, 0, atol=1e-5)
    bounds = [(-x, 1 - x) for x in image]
    if norm == "linf":
        identity, ones = np.eye(6), -np.ones((6, 1))
        due = optimize.linprog(
            [0] * 6 + [1], A_ub=np.block([[identity, ones], [-identity, ones]]), b_ub=np.zeros(12),
            A_eq=[[*weight, 0]], b_eq=[-value], bounds=[*bounds, (0, None)],
        ).fun  # fmt: skip
        assert np.isclose(np.abs(change).max(), due, atol=1e-5)
    else:
        due = optimize.minimize(
            lambda d: d @ d, np.zeros(6), jac=lambda d: 2 * d, bounds=bounds, method="SLSQP",
            constraints={"type": "eq", "fun": lambda d: value + weight @ d, "jac": lambda d: weight},
            options={"ftol": 1e-12},
        )  # fmt: skip
        assert change @ change <= due.fun + 1e-4


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@NORMS
def test_a_step_does_not_depend_on_the_scale_of_the_logits(norm, scale):
    """Catches: squares of tiny gradients that underflow, of large ones that overflow."""
    images, normal = torch.tensor([[0.5, 0.2, 0.9]]), torch.tensor([[1.0, -3.0, 0.5]])
    due = to_boundary(images, normal, torch.tensor([0.7]), norm)
    assert torch.allclose(to_boundary(images, normal * scale, torch.tensor([0.7 * scale]), norm), due, atol=1e-6)


@NORMS
def test_the_distance_of_a_linear_model_is_its_margin_over_the_dual_norm(norm):
    """Catches: another norm, an example behind the boundary's far side, a search that stops at its first example."""
    weight, (inputs, _) = weight_of(1), grey()
    module = Linear(weight, -0.3)
    margins = module.margin(inputs).detach()
    labels = (margins > 0).long()
    examples, distances = fab(module, inputs, labels, norm=norm)
    due = margins.abs() / dual(weight, norm)
    assert (distances >= due * (1 - 1e-4)).all()
    assert (distances <= due * 1.01).all()
    assert (module(examples).argmax(1) != labels).all()
    assert torch.allclose(length(examples - inputs, norm), distances, atol=1e-6)


@NORMS
def test_one_step_overshoots_by_eta(norm):
    """Catches: an overshoot that is left out, or applied twice; steps counted from another number."""
    weight, (inputs, _) = weight_of(1), grey()
    module = Linear(weight, -0.3)
    margins = module.margin(inputs).detach()
    _, distances = fab(module, inputs, (margins > 0).long(), norm=norm, steps=1, eta=1.2)
    assert torch.allclose(distances, 1.2 * margins.abs() / dual(weight, norm), rtol=1e-4)


@NORMS
def test_fab_is_its_definition(norm):
    """Against algorithm 1 in a few plain lines on a network. Catches: weights of the two steps, the way back."""
    module, (inputs, _) = perceptron(scale=5), grey(20, low=0, high=1)
    labels = module(inputs).argmax(1)
    other = module(inputs).detach().scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
    due = torch.full((20,), torch.inf)
    for targets in other.T[:2]:
        x, rows = inputs, torch.arange(20)
        for _ in range(5):
            x = x.detach().requires_grad_()
            logits = module(x)
            value = logits[rows, targets] - logits[rows, labels]
            (normal,) = torch.autograd.grad(value.sum(), x)
            with torch.no_grad():
                first = to_boundary(x, normal, value, norm)
                second = to_boundary(inputs, normal, value + (normal * (inputs - x)).sum((1, 2, 3)), norm)
                a, b = length(first, norm), length(second, norm)
                alpha = (a / (a + b)).clamp(max=0.3).view(-1, 1, 1, 1)
                x = ((1 - alpha) * (x + 1.1 * first) + alpha * (inputs + 1.1 * second)).clamp(0, 1)
                misled = module(x).argmax(1) != labels
                due = torch.where(misled, torch.minimum(due, length(x - inputs, norm)), due)
                x = torch.where(misled.view(-1, 1, 1, 1), inputs + 0.8 * (x - inputs), x)
    _, distances = fab(module, inputs, labels, norm=norm, steps=5, alpha_max=0.3, eta=1.1, beta=0.8)
    assert torch.allclose(distances, due, rtol=1e-3)
    assert distances.isfinite().all()


@NORMS
@SETTINGS
@given(seed=SEEDS, steps=st.integers(1, 6), restarts=st.integers(1, 2), epsilon=st.floats(0, 0.5))
def test_what_is_shown_misleads_within_the_budget_or_is_the_image(norm, seed, steps, restarts, epsilon):
    """With images at 0 and 1. Catches: pixels outside [0, 1], an example that is farther than ε, or is none."""
    module, (inputs, labels) = perceptron(seed, scale=10), grey(6, seed, -0.5, 1.5)
    inputs, attack = inputs.clamp(0, 1), FAB(norm=norm, steps=steps, restarts=restarts)
    perturbed = made(attack, batch_of(module, inputs, labels, attack), epsilon)
    assert ((perturbed >= 0) & (perturbed <= 1)).all()
    moved = (perturbed != inputs).flatten(1).any(1)
    assert (length(perturbed - inputs, norm) <= epsilon + 1e-6).all()
    with torch.no_grad():
        assert (module(perturbed).argmax(1) != labels)[moved].all()


def test_every_strength_shows_the_same_closest_example():
    """Catches: a search per strength, an example at another distance than the closest, ε that is not compared."""
    module, (inputs, labels) = perceptron(scale=5), grey(30, low=0, high=1)
    examples, distances = fab(module, inputs, labels, steps=10)
    perturb = FAB(steps=10).prepare(Batch(module, inputs, labels))
    for epsilon in (0.0, float(distances.median()), 1.0):
        near = distances <= epsilon
        perturbed = perturb(epsilon, torch.empty_like(inputs))
        assert torch.equal(perturbed, torch.where(near.view(-1, 1, 1, 1), examples, inputs))
    each = torch.linspace(0, 0.3, 30)
    perturbed = perturb(each.view(-1, 1, 1, 1), torch.empty_like(inputs))
    assert torch.equal((perturbed != inputs).flatten(1).any(1), (distances <= each) & (distances > 0))


def test_images_that_are_misled_and_padding_are_left_out():
    """Catches: steps for images that need none; padding that is attacked."""
    inner, (inputs, _) = perceptron(scale=5), grey(10, low=0, high=1)
    labels = inner(inputs).argmax(1)
    labels[:4] = (labels[:4] + 1) % 3
    module = Counted(inner)
    padded = Batch(module, torch.cat([inputs, inputs[:5]]), torch.cat([labels, labels[:5]]), size=10)
    FAB(steps=7).prepare(padded)
    assert module.differentiated == 6 * 2 * 7
    assert module.shown == 15 + 6 * 2 * 7
    _, distances = fab(inner, inputs, labels, steps=7)
    assert (distances[:4] == 0).all()
    assert (distances[4:] > 0).all()


@pytest.mark.parametrize("restarts", [1, 3])
@NORMS
def test_an_image_does_not_depend_on_its_neighbours(norm, restarts):
    """Alone, in reverse order, and with padding. Catches: random starts by the batch, rows that are mixed up."""
    attack = FAB(norm=norm, steps=8, restarts=restarts)
    module, (inputs, labels) = perceptron(scale=5), grey(12, low=0, high=1)
    batch, epsilon = batch_of(module, inputs, labels, attack), 0.08 if norm == "linf" else 0.2
    together = assert_rows_are_independent(attack, batch, epsilon)
    assert 0 < (together != inputs).flatten(1).any(1).sum() < 12, "else this shows nothing"


def test_threads_and_batches_do_not_change_a_decision():
    """Catches: a search that depends on the thread, or on the images of a batch."""
    _, images, evidence = assert_threads_and_batches_do_not_matter(FAB(steps=6, restarts=2))
    assert set((evidence.predictions == images.labels).mean(1)) != {0.0}


def test_classes_are_tried_from_the_likeliest_on():
    """The likeliest wrong class lies behind a far boundary, the other behind a near one."""
    linear = nn.Linear(12, 3)
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight[1, 0], linear.weight[2, 1:] = 1.0, 1.0
        linear.bias.copy_(torch.tensor([6.3, 5.5, 0.0]))
    module, inputs = nn.Sequential(nn.Flatten(), linear), torch.full((1, 1, 3, 4), 0.5)
    labels = torch.tensor([0])
    assert module(inputs).argsort(1, descending=True).tolist() == [[0, 1, 2]]
    distances = [fab(module, inputs, labels, target_classes=count)[1].item() for count in (1, 2, 9)]
    assert distances[0] == pytest.approx(0.3, rel=0.01)
    assert distances[1] == pytest.approx(0.8 / 11, rel=0.01)
    assert distances[1] == distances[2]


def test_two_classes_have_one_target():
    weight, (inputs, _) = weight_of(4), grey(8)
    module = Counted(Linear(weight))
    labels = (module.inner.margin(inputs) > 0).long()
    _, distances = fab(module, inputs, labels, steps=3)
    assert module.differentiated == 8 * 3
    assert distances.isfinite().all()


def test_restarts_begin_at_half_of_epsilon_and_only_add():
    """Catches: starts at another distance, the same start for each restart or class, images attacked twice."""
    inner, (inputs, _) = perceptron(scale=5), grey(40, low=0, high=1)
    labels, shown = inner(inputs).argmax(1), []
    once, attack = FAB(steps=2), FAB(steps=2, restarts=3)
    batch = batch_of(inner, inputs, labels, attack)
    epsilon = 0.05
    first = made(once, batch, epsilon)
    open_ = (first == inputs).flatten(1).all(1)
    perturb = attack.prepare(batch)

    def look(_, arguments):
        if arguments[0].requires_grad:
            shown.append(arguments[0].detach().clone())

    with inner.register_forward_pre_hook(look):
        again = perturb(epsilon, torch.empty_like(inputs))
    assert torch.equal(again[~open_], first[~open_])
    assert ((again != inputs).flatten(1).any(1) | open_).all()
    starts = shown[::2]
    assert len(starts) == 4, "two classes, two restarts"
    assert len(starts[0]) == open_.sum()
    moved = starts[0] - inputs[open_]
    inside = (starts[0] > 0) & (starts[0] < 1)
    assert torch.allclose(moved.flatten(1).abs().amax(1)[inside.flatten(1).all(1)], torch.tensor(epsilon / 2))
    assert (moved.abs() <= epsilon / 2 + 1e-6).all()
    assert not torch.equal(starts[0][: len(starts[1])], starts[1])


def test_random_starts_that_were_not_drawn_are_said():
    with pytest.raises(ValueError, match=r"`batch\.drawn` must hold the seeds of the images, got None"):
        FAB(restarts=2).prepare(Batch(perceptron(), *grey()))


@pytest.mark.parametrize(
    "wrong", [{"alpha_max": 1.1}, {"eta": 0.9}, {"beta": 0.0}, {"steps": 0}, {"target_classes": 0}, {"restarts": 0}],
    ids=str,
)  # fmt: skip
def test_parameters_have_limits(wrong):
    (name,) = wrong
    with pytest.raises(ValidationError, match=name):
        FAB(**wrong)


def test_fab_has_no_loss_that_a_detector_needs():
    """Catches: an attack that is thought to evade a detector, and looks at classes alone."""
    with pytest.raises(ValidationError, match="extra_forbidden"):
        FAB(loss="adaptive")


def test_a_detector_does_not_count():
    """Its class is another; whether the image is rejected, FAB does not ask. Catches: the last output as a class."""
    module, (inputs, _) = perceptron(scale=5, classes=4), grey(20, low=0, high=1)
    labels = Null().predictions(module(inputs))
    perturbed = made(FAB(steps=20), Batch(module, inputs, labels, decision=Null()), 1.0)
    assert (Null().predictions(module(perturbed)) != labels).all()
    assert (module(perturbed).argmax(1) == 3).any() or (module(inputs).argmax(1) == 3).any(), "else this shows nothing"


def test_transferred_examples_are_the_closest_of_the_source():
    """Catches: distances, decisions or gradients of the model that is only shown the examples."""
    source, other, (inputs, _) = perceptron(1, scale=5), perceptron(2), grey(20, low=0, high=1)
    labels = source(inputs).argmax(1)
    due, _ = fab(source, inputs, labels, steps=10)
    batch = Batch(other, inputs, labels, source=source)
    assert torch.equal(made(FAB(steps=10), batch, 1.0), due)
    assert batch.clean_logits is None


class Broken(nn.Module):
    """A perceptron; ``how`` changes the logits of images whose first pixel is 1."""

    def __init__(self, how):
        super().__init__()
        self.inner, self.how = perceptron(scale=5), how

    def forward(self, inputs):
        logits = self.inner(inputs)
        marked = inputs.flatten(1)[:, 0] == 1
        return torch.stack([self.how(row) if mark else row for row, mark in zip(logits, marked, strict=True)])


def swept(how, marked, count=100):
    pixels = np.random.default_rng(0).integers(40, 200, (count, 3, 4), dtype=np.uint8)
    pixels[:marked, 0, 0] = 255
    with torch.no_grad():
        inputs = torch.from_numpy(pixels[:, None].astype(np.float32) / 255)
        labels = perceptron(scale=5)(inputs).argmax(1).numpy()
    return run_sweep(Broken(how), from_arrays(pixels, labels, ("a", "b", "c")), FAB(steps=5), [0.02, 0.1])


def test_logits_or_gradients_that_are_no_numbers_fail_the_cell():
    """One image of 100. Catches: a comparison with NaN that is false: an image that nothing seems to mislead."""
    for how in (lambda logits: logits * torch.nan, lambda logits: logits + (logits - logits.detach()).sqrt()):
        for status in swept(how, 1).status:
            assert re.match("non-finite (gradients|logits) for [12] of 100 images", status)


def test_images_without_a_gradient_are_counted_and_fail_the_cell_above_one_in_a_hundred():
    """Catches: an image that the search cannot move taken for a robust one."""
    one, few, most = (swept(lambda logits: logits.detach() + 0 * logits, marked) for marked in (1, 3, 60))
    said = "without a gradient, and still right, were {} of 100 images"
    assert one.status == (OK,) * 2
    assert said.format(1) in one.provenance["notes"]["0.02"]
    assert all(status.startswith(said.format(3)) for status in few.status)
    assert all("no gradient" in status and "60 of 100" in status for status in most.status)


def test_a_constant_model_is_an_error():
    class Constant(nn.Module):
        def forward(self, inputs):
            return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(inputs), 3)

    class Flat(nn.Module):
        def forward(self, inputs):
            return 0 * inputs.flatten(1)[:, :3] + torch.tensor([1.0, 0.0, 0.0])

    images = from_arrays(thirty().pixels, np.zeros(30, int), ("a", "b", "c"))
    (status,) = run_sweep(Constant(), images, FAB(steps=2), [0.1]).status
    assert "do not depend on the images differentiably" in status
    (status,) = run_sweep(Flat(), images, FAB(steps=2), [0.1]).status
    assert "no gradient" in status
