"""The adversarial patch: what it does to an image, what fitting finds, and that a stored one is its model's own."""

import numpy as np
import pytest
import torch
from helpers import digits
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from robustness.classifiers.modules import state_hash
from robustness.data.images import from_arrays
from robustness.errors import ModelError, TrainingError
from robustness.metrics.evidence import OK
from robustness.perturbations import Batch, Patch
from robustness.perturbations.patch import paste
from robustness.perturbations.strength import StrengthDistribution
from robustness.sweep.runner import run_sweep
from robustness.workspace import patches
from robustness.workspace.recipes import Job
from robustness.workspace.store import Store

SHORT = Patch(sides=(0.25, 0.5), steps=60, batch_size=20)


def images(shape=(8, 8), count=60):
    random = np.random.default_rng(0)
    return from_arrays(random.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 3)


def linear(features=64, classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(features, classes)).eval()


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.squares.values(), other.squares.values(), strict=True))


def pixels_of(side, channels=1):
    torch.manual_seed(side)
    patch = patches.PatchPixels(channels, [side])
    patch.squares[str(side)].data = torch.rand(channels, side, side)
    return patch


@settings(deadline=None, max_examples=50)
@given(data=st.data(), height=st.integers(1, 7), width=st.integers(1, 7), strength=st.floats(2**-7, 1, width=32))
def test_the_square_lies_inside_and_nothing_else_changes(data, height, width, strength):
    """Catches: rows for columns, a place that leaves the image, one place for all, channels mixed up; by a loop."""
    side = min(height, width)
    side = max(1, round(float(np.float32(strength) * np.float32(side))))
    shares = st.floats(0, 1, width=32, exclude_max=True)
    places = np.array(data.draw(st.lists(st.tuples(shares, shares), min_size=3, max_size=3)), np.float32)
    inputs, patch = torch.rand(3, 2, height, width), pixels_of(side, 2)
    batch = Batch(nn.Identity(), inputs, torch.zeros(3), torch.from_numpy(places), generator=patch)
    perturbed = Patch().prepare(batch)(strength, torch.empty_like(inputs))
    expected, square = inputs.numpy().copy(), patch(side).detach().numpy()
    for image, (down, across) in zip(expected, places, strict=True):
        top, left = int(down * np.float32(height - side + 1)), int(across * np.float32(width - side + 1))
        assert 0 <= top <= height - side
        assert 0 <= left <= width - side
        image[:, top : top + side, left : left + side] = square
    assert np.array_equal(perturbed.numpy(), expected)


def test_every_place_is_about_as_frequent():
    """Catches: a last row or column that no square reaches, and the centre alone."""
    places = torch.from_numpy(Patch().draw(np.random.default_rng(0), (9000, 1, 4, 5)))
    pasted = paste(torch.zeros(9000, 1, 4, 5), torch.ones(1, 2, 2), places)
    corners = pasted[:, 0].flatten(1).argmax(1).bincount(minlength=20).view(4, 5)
    assert (corners[:3, :4] - 750).abs().max() < 150
    assert corners[:3, :4].sum() == 9000


@pytest.mark.parametrize("target", [None, 2])
@pytest.mark.parametrize("side", [1.0, 0.5], ids=["one place", "25 places"])
def test_it_is_the_best_square_of_a_linear_model(target, side):
    """
    A pixel of the best square is 1 where its weights, summed over the places, raise the loss, else 0.

    Of a model whose scores hardly differ, cross-entropy is linear: its slope is mean(w) − w_y, or w_t − mean(w).
    Catches: a loss that falls, the wrong class, a square fitted at one place, or flipped.
    """
    model = linear()
    with torch.no_grad():
        model[1].weight *= 0.05
        model[1].bias.zero_()
    grey = from_arrays(images().pixels, np.zeros(60, int), ("a", "b", "c"))
    about = Patch(sides=(side,), target=target, steps=300, learning_rate=0.02)
    square = patches.fit(model, grey, about, Job(0))(round(8 * side))[0]
    weight = model[1].weight.detach().view(3, 8, 8)
    slope = weight.mean(0) - weight[0] if target is None else weight[2] - weight.mean(0)
    pixels = round(8 * side)
    summed = slope.unfold(0, pixels, 1).unfold(1, pixels, 1).sum((0, 1))
    clear = summed.abs() > 0.2 * summed.abs().max()
    assert clear.float().mean() > 0.4
    assert torch.equal(square[clear], (summed > 0).float()[clear])


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_it_misleads_more_often_on_other_images_than_random_squares(loss):
    """Catches: a fit that changes nothing, or that helps only on the images that it has seen."""
    every = digits(60)
    train, test = every.select(np.arange(0, 600, 2), "train"), every.select(np.arange(1, 600, 2), "test")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    inputs, labels = torch.from_numpy(train.batch(0, 300)), torch.from_numpy(train.labels.copy())
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    def accuracy(patch, strength):
        evidence = run_sweep(model, test, Patch(), [strength], generator=patch)
        assert evidence.status == (OK,)
        return (evidence.predictions[0] == test.labels).mean()

    fitted = patches.fit(model, train, Patch(loss=loss, steps=100, sides=(0.3, 0.5)), Job(0))
    random = [patches.PatchPixels(1, [8, 14]) for _ in range(5)]
    for square in (square for patch in random for square in patch.squares.values()):
        square.data = torch.rand_like(square).round()
    assert accuracy(fitted, 0.0) > 0.85
    for strength in (0.3, 0.5):
        assert accuracy(fitted, strength) < min(accuracy(patch, strength) for patch in random) - 0.05


def test_results_do_not_depend_on_the_batch_and_each_image_may_have_its_own_side():
    """Catches: places by the row of a batch; the side of the first image for all."""
    strengths = [0.3, StrengthDistribution(uniform=(0.0, 1.0))]
    sweeps = [
        run_sweep(linear(), images(), Patch(), strengths, generator=pixels_of(4), batch_size=size, seed=3)
        for size in (7, 60)
    ]
    assert np.array_equal(sweeps[0].predictions, sweeps[1].predictions)
    assert np.array_equal(sweeps[0].snr, sweeps[1].snr)
    inputs, places = torch.rand(4, 1, 8, 8), torch.zeros(4, 2)
    batch = Batch(nn.Identity(), inputs, torch.zeros(4), places, generator=pixels_of(4))
    each = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(4, 1, 1, 1)
    perturbed = Patch().prepare(batch)(each, torch.empty_like(inputs))
    assert (perturbed != inputs).flatten(1).sum(1).tolist() == [0, 4, 16, 64]


def test_another_side_shows_the_next_larger_square_resized():
    """Catches: the square of a smaller side, one of the wrong size, and a weak square without a note."""
    patch = patches.PatchPixels(1, [2, 4])
    patch.squares["2"].data.fill_(0.25)
    patch.squares["4"].data.fill_(0.75)
    for side, grey in ((1, 0.25), (2, 0.25), (3, 0.75), (4, 0.75), (7, 0.75)):
        assert torch.allclose(patch(side), torch.full((1, side, side), grey))
    evidence = run_sweep(linear(), images(), Patch(sides=(0.25, 0.5)), [0.25, 0.375, 0.5], generator=patch)
    note = "no patch was fitted at this side; another one was resized for 60 of 60 images (100.0%)"
    assert evidence.provenance["notes"] == {"0.375": note}
    assert set(evidence.status) == {OK}


def test_the_seed_decides_and_an_interrupted_fit_goes_on(tmp_path):
    """Catches: draws of the global generator, and steps that are drawn anew after an interruption."""
    model, store = linear(), Store(tmp_path)
    whole = patches.fit(model, images(), SHORT, Job(0))
    torch.manual_seed(6)
    assert same(whole, patches.fit(model, images(), SHORT, Job(0)))
    assert not same(whole, patches.fit(model, images(), SHORT, Job(1)))

    def stop(done, total):
        if done == 100:
            raise KeyboardInterrupt

    first = Job(0, tmp_path / "checkpoint.pt", None, [], store)
    saved, first.save = first.save, lambda state: (saved(state), stop(state["steps"], 120))
    with pytest.raises(KeyboardInterrupt):
        patches.fit(model, images(), SHORT, first)
    again = Job(0, tmp_path / "checkpoint.pt", None, [], store)
    assert same(patches.fit(model, images(), SHORT, again), whole)
    assert again.resumed


def test_a_square_is_read_back_and_one_of_another_model_is_refused(tmp_path):
    """Catches: a square that fits by chance, one of another size, a torn file."""
    model, path = linear(), tmp_path / "patch.safetensors"
    fitted = patches.fit(model, images(), SHORT, Job(0))
    path.write_bytes(patches.save(fitted, state_hash(model)))
    assert same(patches.load(path, SHORT, images(), state_hash(model)), fitted)
    with pytest.raises(ModelError, match="fitted to another model"):
        patches.load(path, SHORT, images(), state_hash(linear(seed=1)))
    for wrong in ((Patch(sides=(1.0,)), images()), (SHORT, images((8, 8, 3)))):
        with pytest.raises(ModelError, match="another architecture"):
            patches.load(path, *wrong, state_hash(model))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError):
        patches.load(path, SHORT, images(), state_hash(model))


class Scores(nn.Module):
    """Scores of three classes that are no numbers, or have no gradient."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, inputs):
        return inputs.flatten(1)[:, :3] * self.factor


def test_a_square_that_cannot_mislead_is_an_error():
    """Catches: a grey square, no square, or no numbers, as a model that nothing misleads."""
    for factor, problem in ((torch.nan, "loss became nan"), (0.0, "no gradient reaches the patch")):
        with pytest.raises(TrainingError, match=problem):
            patches.fit(Scores(factor), images(), SHORT, Job(0))
    with pytest.raises(ModelError, match="needs squares fitted to the model, got None"):
        run_sweep(linear(), images(), Patch(), [0.1])
    with pytest.raises(ModelError, match=r"must fit into images of shape \(1, 8, 8\), got \(3, 4, 4\)"):
        run_sweep(linear(), images(), Patch(), [0.5], generator=pixels_of(4, 3))
    broken = pixels_of(4)
    broken(4).data[0, 0, 0] = torch.nan
    evidence = run_sweep(linear(), images(), Patch(), [0.5], generator=broken)
    assert evidence.status[0].startswith("the generator gives no numbers for 60 of 60")


def test_bad_parameters_are_named():
    """Catches: no square at all, a class that the model has not, a square larger than the image."""
    for sides in ((), (0.0,), (0.5, 1.1)):
        with pytest.raises(ValidationError, match="sides"):
            Patch(sides=sides)
    with pytest.raises(ModelError, match="`target` must be one of the classes 0 to 2, got 3"):
        patches.fit(linear(), images(), Patch(target=3), Job(0))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 1.5; s is the side of the square"):
        run_sweep(linear(), images(), Patch(), [1.5], generator=pixels_of(4))
