"""Strengths: numbers, drawn numbers, and ratios in dB that hold after clipping."""

import math
from typing import ClassVar

import helpers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from torch import nn

from robustness.data import from_arrays
from robustness.metrics.evidence import OK
from robustness.perturbations import FGSM, PGD, Clean, GaussianBlur, GaussianNoise, UniformNoise
from robustness.perturbations.strength import (
    StrengthDistribution,
    check,
    clipped_l2_distances,
    name,
    perturb_to_snr,
    signal_to_noise_ratio,
)
from robustness.sweep.runner import run_sweep
from robustness.util.rng import Purpose, generator


class Recorder(nn.Module):
    """A linear classifier that keeps what it is shown, in the list of its class: copies share it."""

    seen: ClassVar[list[torch.Tensor]] = []

    def __init__(self, features, classes, standardise=False):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.standardise = nn.Linear(features, classes), standardise

    def forward(self, inputs):
        self.seen.append(inputs.detach().clone())
        flat = inputs.flatten(1)
        if self.standardise:
            flat = (flat - flat.mean(1, keepdim=True)) / flat.std(1, correction=0, keepdim=True)
        return self.linear(flat)


def decibels(inputs, perturbed):
    """The ratio as the formula has it, in float64."""
    inputs, delta = inputs.reshape(len(inputs), -1), (perturbed - inputs).reshape(len(inputs), -1)
    return 20 * np.log10(np.linalg.norm(inputs, axis=1) / np.linalg.norm(delta, axis=1))


def test_a_spread_draws_its_share_of_clean_images_and_the_rest_uniformly():
    spread = StrengthDistribution(uniform=(0.1, 0.5), clean_fraction=0.3)
    drawn = spread.draw(generator(0, Purpose.STRENGTH), 20_000)
    clean = drawn == 0
    assert drawn.dtype == np.float32
    assert stats.binomtest(int(clean.sum()), len(drawn), 0.3).pvalue > 1e-4
    assert stats.kstest(drawn[~clean], stats.uniform(0.1, 0.4).cdf).pvalue > 1e-4
    assert len(np.unique(drawn[~clean])) > 0.99 * (~clean).sum(), "every image has its own"


@given(size=st.integers(1, 1000), clean=st.sampled_from([0.0, 0.5]))
def test_an_image_keeps_its_strength_when_others_follow(size, clean):
    spread = StrengthDistribution(uniform=(0, 0.5), clean_fraction=clean)
    whole = spread.draw(generator(1, Purpose.STRENGTH), 1000)
    assert np.array_equal(spread.draw(generator(1, Purpose.STRENGTH), size), whole[:size])


def test_a_sweep_gives_every_image_its_own_strength_whatever_the_batch():
    images, spread = helpers.images(1203), StrengthDistribution(uniform=(0, 0.5), clean_fraction=0.5)
    chosen = [0.25, spread]
    small, large = (
        run_sweep(helpers.linear(images), images, UniformNoise(), chosen, batch_size=size, seed=5) for size in (70, 500)
    )
    assert small.strengths == ("0.25", "U(0,0.5)+0.5clean")
    assert np.array_equal(small.drawn, large.drawn)
    assert (small.drawn[0] == np.float32(0.25)).all()
    due = [spread.draw(generator(5, Purpose.STRENGTH, chunk), size) for chunk, size in enumerate((1000, 203))]
    assert np.array_equal(small.drawn[1], np.concatenate(due))
    assert np.isinf(small.snr[1][small.drawn[1] == 0]).all(), "strength 0 is the image as it is"
    assert np.isfinite(small.snr[1][small.drawn[1] > 0.01]).all()


def test_a_spread_of_two_equal_ends_is_the_number():
    """The strength reaches the image that it was drawn for."""
    images = helpers.images(30)
    narrow = StrengthDistribution(uniform=(0.3, 0.3 + 1e-6))
    model = helpers.linear(images)
    drawn, number = (run_sweep(model, images, GaussianNoise(), [chosen], batch_size=8) for chosen in (narrow, 0.3))
    assert np.allclose(drawn.loss, number.loss, atol=1e-4)
    assert np.allclose(drawn.snr, number.snr, atol=1e-3)


@pytest.mark.parametrize(
    ("strength", "due"),
    [
        (0.1 + 0.2, "0.3"),
        (1.0, "1"),
        (0, "0"),
        (-0.0, "0"),
        (1e-7, "1e-07"),
        (8 / 255, "0.0313725"),
        (StrengthDistribution(uniform=(0, 0.5)), "U(0,0.5)"),
        (StrengthDistribution(uniform=(0.1, 1), clean_fraction=0.25), "U(0.1,1)+0.25clean"),
    ],
)
def test_names(strength, due):
    assert name(strength) == due


@pytest.mark.parametrize(
    ("strengths", "unit", "message"),
    [
        ([], "default", "`strengths` must name at least one strength, got none"),
        ([0.1, 1.01], "default", r"must lie in \[0, 1\], got 1.01; V is a fraction of the pixel range"),
        ([-0.1], "default", r"must lie in \[0, 1\], got -0.1"),
        ([math.nan], "default", "got nan"),
        ([math.inf], "snr", r"must lie in \[-60, 200\], got inf; dB"),
        ([201], "snr", "got 201; dB"),
        ([StrengthDistribution(uniform=(0.5, 1.5))], "default", "got 1.5"),
        ([StrengthDistribution(uniform=(-math.inf, 0))], "default", "got -inf"),
        ([0.1, 0.2, 0.1], "default", "must differ from each other, got 0.1 more than once"),
        ([0.1, 0.1 + 1e-9], "default", "got 0.1 more than once"),
        ([0.0, -0.0], "default", "got 0 more than once"),
        (
            [StrengthDistribution(uniform=(20, 40), clean_fraction=0.5)],
            "snr",
            "`clean_fraction` of strengths in dB must be 0",
        ),
    ],
)
def test_strengths_that_cannot_be(strengths, unit, message):
    with pytest.raises(ValueError, match=message):
        check(strengths, GaussianNoise(), unit)


def test_strengths_that_can_be_come_back_in_their_order():
    chosen = (1.0, 0.0, StrengthDistribution(uniform=(0, 1)))
    assert check(list(chosen), GaussianNoise()) == chosen
    assert check([0], Clean()) == (0,)
    with pytest.raises(ValueError, match=r"must lie in \[0, 0\], got 0.1"):
        check([0.1], Clean())


@pytest.mark.parametrize(
    "table", [{"uniform": [0.5, 0.5]}, {"uniform": [0.5, 0.1]}, {"uniform": [0, math.nan]}]
    + [{"uniform": [0, 1], "clean_fraction": value} for value in (1, -0.1, math.nan)]
    + [{"uniform": [0, 1], "share": 0.5}],
)  # fmt: skip
def test_spreads_that_cannot_be(table):
    with pytest.raises(ValidationError):
        StrengthDistribution.model_validate(table)


def test_the_ratio_is_twenty_times_the_logarithm_of_the_norms():
    random = np.random.default_rng(0)
    inputs, perturbed = (random.random((6, 3, 5, 5), dtype=np.float32) for _ in range(2))
    got = signal_to_noise_ratio(torch.from_numpy(inputs), torch.from_numpy(perturbed))
    assert np.allclose(got, decibels(inputs.astype(float), perturbed.astype(float)), atol=1e-4)
    black, grey = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.5)
    ratios = [signal_to_noise_ratio(*of).item() for of in ((black, black), (black, grey), (grey, grey))]
    assert ratios == [math.inf, -math.inf, math.inf], "without signal or noise"


def test_the_table_of_distances_is_what_clipping_leaves():
    """Catches: a level too many or too few, a sign of 0 that moves, signs mixed up."""
    random = np.random.default_rng(0)
    inputs = torch.from_numpy(random.integers(0, 256, (7, 3, 6, 5))).float() / 255
    inputs[0], inputs[1] = 0, 1
    signs = torch.from_numpy(random.integers(-1, 2, tuple(inputs.shape))).float()
    signs[2] = 0
    sizes = [0, 1 / 255, 0.03, 8 / 255, 0.5, 1]
    changes = torch.stack([(inputs + size * signs).clamp(0, 1) - inputs for size in sizes]).double()
    got = clipped_l2_distances(inputs, signs, sizes)
    assert got.shape == (6, 7)
    assert torch.allclose(got.double(), changes.flatten(2).norm(dim=2), rtol=1e-5, atol=1e-6)
    assert got[:, 2].eq(0).all()


def test_evidence_has_the_same_ratios_with_and_without_the_table():
    """8-bit images have the table; the same ones as floats have none."""
    images = helpers.images(20)
    floats = from_arrays(images.pixels / np.float32(255), images.labels, images.classes)
    model, sizes = helpers.linear(images), [0.0, 0.02, 0.3, 1.0]
    one, other = (run_sweep(model, each, FGSM(), sizes) for each in (images, floats))
    assert np.array_equal(one.predictions, other.predictions)
    assert np.isinf(one.snr[0]).all()
    assert np.allclose(one.snr, other.snr, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("perturbation", [GaussianNoise(), GaussianNoise(bound=1.0), UniformNoise()], ids=repr)
def test_evidence_has_the_ratio_asked_for_after_clipping(perturbation):
    """
    On real digits more than half of the noise is clipped away: scaling by the norms alone misses by 3 dB.

    Catches: 0 dB, noise as strong as the image, taken for no noise.
    """
    images, asked = helpers.digits(), [0.0, 3.0, 10.0, 25.0, 50.0]
    model = Recorder(784, 10)

    evidence = run_sweep(model, images, perturbation, asked, unit="snr", batch_size=len(images), threads=1)

    assert evidence.status == (OK,) * 5
    assert evidence.provenance["notes"] == {}
    inputs = images.batch(0, len(images)).astype(float)
    for row, (due, perturbed) in enumerate(zip(asked, Recorder.seen[-5:], strict=True)):
        shown = decibels(inputs, perturbed.numpy().astype(float))
        assert np.abs(shown - due).max() <= 0.0101
        assert np.abs(evidence.snr[row] - shown).max() <= 1e-3
        assert perturbed.min() >= 0
        assert perturbed.max() <= 1


def to_snr(inputs, direction, asked):
    """Images at the ratios asked for, along a direction; all must be reached."""

    def perturb(strength, out):
        return torch.addcmul(inputs, direction, torch.as_tensor(strength), out=out).clamp_(0, 1)

    perturbed, reached = perturb_to_snr(perturb, inputs, asked, torch.empty_like(inputs))
    assert reached.all()
    return perturbed


def test_where_nothing_clips_the_scale_is_that_of_the_norms():
    inputs = torch.full((4, 1, 5, 5), 0.5)
    direction = torch.from_numpy(GaussianNoise().draw(generator(0, Purpose.NOISE), (4, 1, 5, 5)))
    scale = inputs.flatten(1).norm(dim=1) / direction.flatten(1).norm(dim=1) / 10 ** (40 / 20)
    due = inputs + direction * scale.view(-1, 1, 1, 1)
    assert torch.allclose(to_snr(inputs, direction, 40.0), due, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(asked=st.lists(st.floats(5, 90), min_size=3, max_size=3), seed=st.integers(0, 1000))
def test_every_image_has_a_ratio_of_its_own(asked, seed):
    random = np.random.default_rng(seed)
    inputs = torch.from_numpy(random.random((3, 1, 8, 8), dtype=np.float32))
    direction = torch.from_numpy(random.standard_normal((3, 1, 8, 8), dtype=np.float32))
    perturbed = to_snr(inputs, direction, torch.tensor(asked).view(3, 1, 1, 1))
    assert np.abs(decibels(inputs.double().numpy(), perturbed.double().numpy()) - asked).max() <= 0.0101


def test_a_ratio_without_the_mean_is_that_of_standardised_images():
    """Against images that are standardised here. Catches: the mean as signal, deviations of the whole batch."""
    images = helpers.images(count=6, shape=(8, 8))
    module = helpers.linear(images)
    found = run_sweep(module, images, FGSM(), [40.0, 25.0], unit="snr-std")
    assert found.status == (OK, OK)
    pixels = images.batch(0, 6).reshape(6, -1).astype(float)
    deviation = pixels.std(axis=1)
    noise = np.linalg.norm(pixels, axis=1) / 10 ** (found.snr / 20)
    standardised = (pixels - pixels.mean(axis=1, keepdims=True)) / deviation[:, None]
    due = 20 * np.log10(np.linalg.norm(standardised, axis=1) / (noise / deviation))
    assert np.abs(due - np.array([[40.0], [25.0]])).max() <= 0.0101


def test_an_image_of_one_grey_has_no_ratio_to_its_contrast():
    images = from_arrays(np.full((2, 4, 4), 128, np.uint8), [0, 1])
    found = run_sweep(helpers.linear(images), images, FGSM(), [40.0], unit="snr-std")
    assert "ratio" in found.status[0]


def test_a_drawn_ratio_is_reached_image_by_image():
    images = helpers.digits()
    spread = StrengthDistribution(uniform=(10, 40))
    evidence = run_sweep(helpers.linear(images), images, GaussianNoise(), [spread], unit="snr", batch_size=7)
    assert evidence.status == (OK,)
    assert np.abs(evidence.snr - evidence.drawn).max() <= 0.0101


def test_a_ratio_that_clipping_forbids_fails_the_cell():
    """No change within [0, 1] is thirty times as large as a digit."""
    images = helpers.digits()
    evidence = run_sweep(helpers.linear(images), images, GaussianNoise(), [-30.0, 20.0], unit="snr")
    assert evidence.status == ("the ratio cannot be reached within [0, 1] for 30 of 30 images (100.0%)", OK)
    assert not evidence.failed
    assert list(evidence.provenance["notes"]) == ["-30"]


@pytest.mark.parametrize(("black", "held"), [(1, True), (2, False)])
def test_up_to_one_image_in_a_hundred_may_miss_its_ratio(black, held):
    """A black image has no ratio but minus infinity."""
    pixels = np.random.default_rng(0).integers(50, 200, (100, 4, 4), dtype=np.uint8)
    pixels[5 : 5 + black] = 0
    images = from_arrays(pixels, np.arange(100) % 3)
    evidence = run_sweep(helpers.linear(images), images, UniformNoise(), [20.0], unit="snr", batch_size=30)
    assert (evidence.status[0] == OK) is held
    said = f"the ratio cannot be reached within [0, 1] for {black} of 100 images ({black}.0%)"
    assert evidence.provenance["notes"] == {"20": said}
    assert (np.abs(evidence.snr[0] - 20) > 0.0101).sum() == black


def grey(count=9, size=6):
    """Images that nothing clips, of very different contrast."""
    drawn = np.random.default_rng(0)
    pixels = 0.5 + drawn.uniform(-1, 1, (count, size, size)) * np.linspace(0.02, 0.3, count).reshape(-1, 1, 1)
    return from_arrays(pixels.astype(np.float32), np.arange(count) % 3, ("a", "b", "c"), name="grey")


@pytest.mark.parametrize(
    "perturbation",
    [FGSM(), PGD(random_start=False, steps=4), GaussianNoise(), UniformNoise(), FGSM(norm="l2")],
    ids=lambda given: f"{given.kind}-{getattr(given, 'norm', '')}",
)
def test_strengths_in_standard_deviations_are_those_of_each_image(perturbation):
    """Image by image as alone with its own ε. Catches: one deviation for the batch, the unbiased one, padding's."""
    images, asked = grey(), [0.0, 0.05, 0.1]
    model = Recorder(36, 3, standardise=True).eval()
    together = run_sweep(model, images, perturbation, asked, unit="image-std", batch_size=4, threads=1)
    assert together.status == (OK,) * 3
    assert np.isinf(together.snr[0]).all(), "no strength leaves images as they are"
    inputs = images.batch(0, len(images))
    for i, image in enumerate(inputs):
        deviation = float(np.std(image))
        alone = run_sweep(model, images, perturbation, [each * deviation for each in asked], batch_size=4, threads=1)
        assert np.allclose(together.loss[:, i], alone.loss[:, i], atol=1e-5)
        assert np.allclose(together.snr[:, i], alone.snr[:, i], atol=1e-3)


def test_a_network_that_standardises_sees_epsilon_itself():
    """What the eyes-parseval paper calls ε. Catches: ε in pixels, some seven times as hard on such crops."""
    images = grey()
    model = Recorder(36, 3, standardise=True).eval()
    run_sweep(model, images, FGSM(), [0.05], unit="image-std", batch_size=len(images), threads=1)
    inputs, perturbed = images.batch(0, len(images)), Recorder.seen[-1].numpy()
    deviation = inputs.reshape(len(inputs), -1).std(axis=1)
    moved = np.abs(perturbed - inputs).reshape(len(inputs), -1) / deviation[:, None]
    assert np.allclose(moved, 0.05, atol=1e-5)


def test_what_does_not_move_pixels_by_its_strength_has_no_deviations():
    with pytest.raises(
        ValueError,
        match="`unit` of gaussian-blur must be default, got image-std: its strength is not a size",
    ):
        check([0.5], GaussianBlur(), "image-std")
