"""Square Attack: its schedule, its moves one by one, and what a search without gradients promises."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
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
from torch.nn import functional as F

from robustness.data import from_arrays
from robustness.decisions import Null
from robustness.metrics.evidence import OK
from robustness.perturbations import PGD, Batch, Square
from robustness.perturbations.square import square
from robustness.perturbations.squares import L2, Linf
from robustness.sweep.runner import run_sweep

SETTINGS = settings(deadline=None, max_examples=25)
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


def length(change, norm):
    flat = change.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def mixed(count=20, seed=0, channels=2):
    """Images of 8 x 8 pixels, black and white ones among them, a network, and the classes that it gives them."""
    random = np.random.default_rng(seed)
    inputs = torch.from_numpy(np.clip(random.uniform(-0.2, 1.2, (count, channels, 8, 8)), 0, 1).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    return module, inputs, module(inputs).argmax(1)


def shown_by(attack, module, inputs, labels, epsilon):
    """The images that an attack shows to the model, one list per query, and what comes out."""
    batch, shown = batch_of(module, inputs, labels, attack), []
    with module.register_forward_pre_hook(lambda _, arguments: shown.append(arguments[0].clone())):
        perturbed = made(attack, batch, epsilon)
    return shown, perturbed


@pytest.mark.parametrize("queries", [10_000, 5000, 1000])
def test_the_side_of_the_squares_follows_the_papers_schedule(queries):
    """Table of the paper: p is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 of 10,000 queries."""
    attack = Square(queries=queries, p_init=0.8)
    for query in range(0, queries, 7):
        at = int(query / queries * 10_000)
        halvings = np.searchsorted([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000], at)
        assert attack.side(query, 32, 32) == max(1, round(math.sqrt(0.8 / 2**halvings * 32 * 32)))


def test_squares_fit_into_the_image_and_those_of_l2_have_a_middle():
    """Catches: a side above the smaller one of the image; an even side of L2, or one below 3."""
    assert Square(p_init=1.0).side(0, 3, 9) == 3
    assert Square(norm="l2", p_init=1.0).side(0, 2, 2) == 2
    sides = {Square(norm="l2").side(query, 28, 28) for query in range(5000)}
    assert min(sides) == 3
    assert all(side % 2 for side in sides)


def test_a_start_of_linf_is_vertical_stripes():
    module, inputs, labels = mixed()
    shown, _ = shown_by(Square(queries=1), module, inputs, labels, 0.01)
    start = shown[1]
    inside = (inputs > 0.01) & (inputs < 0.99)
    stripes = ((start - inputs) / 0.01).round()
    for n, channel, column in np.ndindex(len(start), 2, 8):
        assert len(set(stripes[n, channel, :, column][inside[n, channel, :, column]].tolist()) - {0}) <= 1
    assert set(stripes[inside].tolist()) == {-1, 1}
    assert len({tuple(row.sign().tolist()) for row in stripes[:, 0].sum(1)}) > 5, "each image has its own"


@SETTINGS
@given(seed=st.integers(0, 2**16), side=st.integers(1, 8), epsilon=st.floats(0.01, 0.6))
def test_a_query_of_linf_moves_one_square_to_the_other_side_of_the_ball(seed, side, epsilon):
    """Catches: several squares, one of another side, channels that share a sign, a change that leaves the ball."""
    generator = np.random.default_rng(seed)
    _, inputs, _ = mixed(6, seed)
    ball = Linf(inputs, torch.full((6,), epsilon))
    start = ball.start(torch.from_numpy(generator.random((6, 2, 8), np.float32)))
    numbers = torch.from_numpy(generator.random((6, 4), np.float32))
    moved = ball.moved(start, side, numbers)
    for row in range(6):
        top, left = (int(number * (8 - side)) for number in numbers[row, :2].tolist())
        window = torch.zeros(8, 8, dtype=torch.bool)
        window[top : top + side, left : left + side] = True
        assert torch.equal(moved[row][:, ~window], start[row][:, ~window])
        for channel in range(2):
            sign = 1 if numbers[row, 2 + channel] >= 0.5 else -1
            due = (inputs[row, channel] + sign * epsilon).clamp(0, 1)
            assert torch.allclose(moved[row, channel][window], due[window], atol=1e-6)


def plain_bump(side):
    """The hill of the paper's section 3.4, and its negative, in plain lines."""

    def hill(height, width):
        rows = [
            [
                sum(
                    1 / (i + 1) ** 2
                    for i in range(max(height, width) // 2 + 1)
                    if max(abs(r - height // 2), abs(c - width // 2)) <= i
                )
                for c in range(width)
            ]
            for r in range(height)
        ]
        return np.array(rows) / np.sqrt((np.array(rows) ** 2).sum())

    bump = np.concatenate([hill(side // 2, side), -hill(side - side // 2, side)])
    return torch.from_numpy(bump / np.sqrt((bump**2).sum())).float()


@SETTINGS
@given(seed=st.integers(0, 2**16), side=st.sampled_from([3, 5, 7]), epsilon=st.floats(0.05, 3))
def test_a_query_of_l2_moves_the_mass_of_one_square_to_another(seed, side, epsilon):
    """Against algorithm 3 image by image. Catches: mass that is lost, the two squares exchanged, a bump that lies."""
    generator = np.random.default_rng(seed)
    _, inputs, _ = mixed(4, seed)
    ball = L2(inputs, torch.full((4,), epsilon))
    images = ball.start(torch.from_numpy(generator.random((4, *ball.numbers_of_start((2, 8, 8))), np.float32)))
    numbers = torch.from_numpy(generator.random((4, 7), np.float32))
    moved = ball.moved(images, side, numbers)
    for row in range(4):
        change = images[row] - inputs[row]
        tops = [int(number * (8 - side)) for number in numbers[row, :4].tolist()]
        windows = [np.s_[:, top : top + side, left : left + side] for top, left in (tops[:2], tops[2:])]
        mask = torch.zeros_like(change)
        mask[windows[0]] = mask[windows[1]] = 1
        bump = plain_bump(side)
        bump = (bump.T if numbers[row, 4] > 0.5 else bump) * torch.where(numbers[row, 5:] < 0.5, -1, 1)[:, None, None]
        before = change[windows[0]]
        bump = bump + before / (before.norm(dim=(1, 2), keepdim=True) + 1e-12)
        free = max(epsilon**2 - float(change.norm() ** 2), 0) / 2
        bump = bump / bump.norm(dim=(1, 2), keepdim=True) * math.sqrt(free + float((change * mask).norm() ** 2))
        change = change.clone()
        change[windows[1]] = 0
        change[windows[0]] = bump
        due = (inputs[row] + epsilon * change / change.norm()).clamp(0, 1)
        assert torch.allclose(moved[row], due, atol=1e-4)


@NORMS
def test_every_image_that_is_shown_lies_in_the_ball_and_changes_are_kept_that_help(norm):
    """
    From what the model is shown: what an image keeps is the first that misleads, else the one of the largest loss.

    Catches: a change that is kept although it helps less, queries of images that are misled, a start that is not kept.
    """
    module, inputs, labels = mixed(12)
    epsilon = 0.06 if norm == "linf" else 0.8
    for row in range(12):
        one, label = inputs[row : row + 1], labels[row : row + 1]
        shown, perturbed = shown_by(Square(norm=norm, queries=60), module, one, label, epsilon)
        assert torch.equal(shown.pop(0), one)
        assert torch.equal(shown.pop(), perturbed), "the result is evaluated once more"
        images = torch.cat(shown)
        assert ((images >= 0) & (images <= 1)).all()
        assert (length(images - one, norm) <= epsilon * (1 + 1e-5)).all()
        logits = module(images).detach()
        misled = logits.argmax(1) != label
        margins = logits.scatter(1, label.expand(len(images), 1), -torch.inf).amax(1) - logits[:, label.item()]
        if misled.any():
            assert misled.nonzero().flatten().tolist() == [len(images) - 1]
            assert torch.equal(perturbed[0], images[-1])
        else:
            assert len(images) == 61
            assert torch.equal(perturbed[0], images[margins.argmax()])


@NORMS
def test_much_of_a_linear_margin_is_used_up(norm):
    """The optimum is ε times the dual norm. Catches: moves that are undone, a search that stays at its start."""
    inputs = torch.full((10, 1, 8, 8), 0.5)
    weight = weight_of(3, 64)
    module, labels = Linear(weight, 50.0), torch.ones(10, dtype=torch.long)
    due = 0.1 * dual(weight, norm)
    used = []
    for queries in (1, 100, 2000):
        perturbed = square(module, inputs, labels, epsilon=0.1, norm=norm, queries=queries)
        used.append(float((module.margin(inputs) - module.margin(perturbed)).mean().detach()) / due)
    assert used[0] < used[1] < used[2] < 1
    assert used[2] > (0.7 if norm == "linf" else 0.5)


@pytest.mark.parametrize("restarts", [1, 2])
@NORMS
def test_an_image_does_not_depend_on_its_neighbours(norm, restarts):
    """Alone, in reverse order, and with padding. Catches: random numbers by the batch, or by how many are left."""
    attack = Square(norm=norm, queries=130, restarts=restarts)
    module, inputs, labels = mixed(12)
    batch, epsilon = batch_of(module, inputs, labels, attack), 0.05 if norm == "linf" else 0.6
    together = assert_rows_are_independent(attack, batch, epsilon)
    misled = module(together).argmax(1) != labels
    assert 0 < misled.sum() < 12, "else this shows nothing"


def test_threads_and_batches_do_not_change_a_decision():
    """Catches: seeds by the thread, or by the batch."""
    attack = Square(queries=30)
    module, images, evidence = assert_threads_and_batches_do_not_matter(attack)
    assert run_sweep(module, images, attack, [0.05, 0.2], batch_size=40, seed=1).digest != evidence.digest


def test_the_function_is_the_first_chunk_of_a_sweep():
    module, images = perceptron(scale=5), thirty()
    inputs, labels = torch.from_numpy(images.batch(0, 30)), torch.from_numpy(images.labels.copy())
    evidence = run_sweep(module, images, Square(queries=30), [0.05], batch_size=30, threads=1, seed=4)
    perturbed = square(module, inputs, labels, epsilon=0.05, queries=30, seed=4)
    with torch.no_grad():
        assert np.array_equal(module(perturbed).argmax(1), evidence.predictions[0])
        assert np.allclose(F.cross_entropy(module(perturbed), labels, reduction="none"), evidence.loss[0], atol=1e-5)


def test_a_strength_per_image_is_each_image_at_its_strength():
    """Catches: one radius for the whole batch; queries for images at strength 0."""
    module, inputs, labels = mixed(8)
    attack, strengths = Square(queries=40), torch.linspace(0, 0.1, 8)
    batch = batch_of(module, inputs, labels, attack)
    together = made(attack, batch, strengths.view(-1, 1, 1, 1))
    for row, strength in enumerate(strengths.tolist()):
        assert torch.allclose(together[row], made(attack, batch, strength)[row], atol=1e-5)
    assert torch.equal(together[0], inputs[0])


def test_restarts_attack_what_is_left_from_other_starts():
    """Catches: a restart with the same numbers, an example that is lost, misled images that are attacked again."""
    module, inputs, labels = mixed(30)
    once, twice = Square(queries=20), Square(queries=20, restarts=2)
    shown, first = shown_by(once, module, inputs, labels, 0.04)
    more, second = shown_by(twice, module, inputs, labels, 0.04)
    misled = [module(images).argmax(1) != labels for images in (first, second)]
    assert (misled[1] | ~misled[0]).all()
    assert torch.equal(second[misled[0]], first[misled[0]])
    assert 0 < misled[0].sum() < 30, "else this shows nothing"
    start = more[len(shown)]
    assert len(start) == (~misled[0]).sum()
    assert not torch.equal(start, shown[1][~misled[0]])


@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_masked_gradients_do_not_stop_it(loss):
    """Classes by a step function: PGD errors, the search finds what it would without the step."""

    class Steps(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, inputs):
            return (self.inner(inputs) * 1000).round() / 1000

    module, inputs, labels = mixed(30, channels=3)
    images = from_arrays(inputs.permute(0, 2, 3, 1).numpy(), labels.numpy(), ("a", "b", "c"))
    assert run_sweep(Steps(module), images, PGD(steps=3), [0.05]).status != (OK,)
    masked, plain = (run_sweep(m, images, Square(queries=200, loss=loss), [0.05]) for m in (Steps(module), module))
    assert masked.status == (OK,)
    rates = [float((evidence.predictions == images.labels).mean()) for evidence in (masked, plain)]
    assert rates[0] < 0.8
    assert abs(rates[0] - rates[1]) < 0.1


@pytest.mark.parametrize("target", [1, "runner_up", "least_likely"])
def test_a_targeted_search_ends_in_its_class(target):
    module, inputs, labels = mixed(20)
    attack = Square(queries=300, target=target)
    goals = attack.targets(Batch(module, inputs, labels))
    perturbed = made(attack, batch_of(module, inputs, labels, attack), 0.3)
    reached = module(perturbed).argmax(1) == goals
    assert reached.float().mean() > 0.7
    already = labels == goals
    assert torch.equal(perturbed[already], inputs[already])
    assert torch.equal(square(module, inputs, labels, epsilon=0.3, queries=300, target=target), perturbed)


def test_a_target_that_the_model_does_not_have_is_said():
    images = thirty()
    (status,) = run_sweep(perceptron(), images, Square(queries=2, target=3), [0.1]).status
    assert "`target` must be one of the classes 0 to 2, got 3" in status


@pytest.mark.parametrize("loss", ["adaptive", "selective"])
def test_a_loss_that_a_detector_needs_is_refused_at_once(loss):
    """Catches: a sum of two terms that a search climbs by one of them, taken for an attack that evades a detector."""
    with pytest.raises(ValidationError, match="'margin' or 'cross_entropy'"):
        Square(loss=loss)


def test_a_detector_does_not_count():
    """Catches: the output for attacked images taken for a class."""
    module, (inputs, _) = perceptron(scale=5, classes=4), grey(40, low=0, high=1)
    labels = Null().predictions(module(inputs))
    attack = Square(queries=150)
    perturbed = made(attack, batch_of(module, inputs, labels, attack, decision=Null()), 0.2)
    misled = Null().predictions(module(perturbed)) != labels
    assert 10 < misled.sum() < 40
    assert (module(perturbed[misled]).argmax(1) == 3).any(), "else this shows nothing"


def test_a_transferred_search_asks_the_source():
    """Catches: queries of the model that is only shown the result."""
    module, inputs, labels = mixed(10)
    attack = Square(queries=30)
    drawn = batch_of(module, inputs, labels, attack).drawn

    class Unasked(nn.Module):
        def forward(self, inputs):
            raise AssertionError

    batch = Batch(Unasked(), inputs, labels, drawn, source=module)
    assert torch.equal(made(attack, batch, 0.05), made(attack, Batch(module, inputs, labels, drawn), 0.05))
    assert batch.clean_logits is None


def test_logits_that_are_no_numbers_fail_the_cell():
    """One image whose logits are NaN once it is changed. Catches: a comparison with NaN that is false."""

    class Broken(nn.Module):
        def forward(self, inputs):
            flat = inputs.flatten(1)
            return torch.where((flat[:, :1] > 0.97) & (flat[:, :1] < 1), torch.nan, flat[:, :3])

    pixels = np.full((50, 4, 4), 100, np.uint8)
    pixels[0, 0, 0] = 255
    images = from_arrays(pixels, np.zeros(50, int), ("a", "b", "c"))
    (status,) = run_sweep(Broken(), images, Square(queries=50), [0.01]).status
    assert re.match("non-finite logits for 1 of 50 images", status)


def test_a_constant_model_stays_right():
    """Catches: an image that is taken for misled because its two best logits are equal."""

    class Constant(nn.Module):
        def forward(self, inputs):
            return torch.zeros(len(inputs), 3)

    evidence = run_sweep(
        Constant(), from_arrays(thirty().pixels, np.zeros(30, int), ("a", "b", "c")), Square(queries=5), [0.1]
    )
    assert evidence.status == (OK,)
    assert (evidence.predictions == 0).all()
    assert np.isinf(evidence.snr).all()


@NORMS
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 7), (2, 1, 14, 9), (1, 1, 4, 4)])
def test_images_of_any_shape(norm, shape):
    """Catches: a grid of bumps, or a square, that does not fit."""
    inputs = torch.full(shape, 0.5)
    module = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape[1:]), 2))
    labels = module(inputs).argmax(1)
    perturbed = square(module, inputs, labels, epsilon=0.2, norm=norm, queries=20)
    assert perturbed.isfinite().all()
    assert (length(perturbed - inputs, norm) <= 0.2 * (1 + 1e-5)).all()


@pytest.mark.parametrize("wrong", [{"queries": 0}, {"p_init": 0.0}, {"p_init": 1.5}, {"restarts": 0}], ids=str)
def test_parameters_have_limits(wrong):
    (name,) = wrong
    with pytest.raises(ValidationError, match=name):
        Square(**wrong)


def test_what_is_missing_or_negative_is_said():
    module, inputs, labels = mixed(2)
    with pytest.raises(ValueError, match=r"`batch\.drawn` must hold the seeds of the images, got None"):
        Square().prepare(Batch(module, inputs, labels))
    for epsilon in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="`epsilon` must be at least 0, got"):
            square(module, inputs, labels, epsilon=epsilon)
