"""Accumulated and unclipped noise, held against plain NumPy."""

import math

import helpers
import numpy as np
import pytest
import torch

from robustness import cards, claims
from robustness.perturbations import GaussianNoise, UniformNoise, strength
from robustness.perturbations.noise import OUTSIDE
from robustness.perturbations.strength import StrengthDistribution
from robustness.reporting.report import ModelReport
from robustness.reporting.sweep_report import CellReport, SweepReport
from robustness.reporting.table_rows import PAGE, sweep_table
from robustness.sweep.runner import run_sweep
from robustness.util.rng import CHUNK, Purpose, generator

AMPLITUDES = [0.1, 0.3, 0.2]
COUNT = CHUNK + 150


@pytest.fixture(scope="module")
def images():
    return helpers.images(COUNT)


def expected(images, module, noise, clip):
    """Return predictions, (amplitudes in rising order, N), and whether an image leaves [0, 1]: a loop of the paper."""
    rows = []
    for chunk in range(0, COUNT, CHUNK):
        last = images.batch(chunk, min(chunk + CHUNK, COUNT))
        for k, amplitude in enumerate(sorted(AMPLITUDES)):
            drawn = noise.draw(generator(0, Purpose.NOISE, chunk // CHUNK, k), last.shape)
            last = last + np.float32(amplitude) * drawn
            last = np.clip(last, 0, 1) if clip else last
            with torch.no_grad():
                said = module(torch.from_numpy(last)).argmax(1).numpy()
            rows.append((k, said, ((last < 0) | (last > 1)).any((1, 2, 3))))
    return [[np.concatenate([row[i] for row in rows if row[0] == k]) for k in range(3)] for i in (1, 2)]


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("noise", [GaussianNoise, UniformNoise])
@pytest.mark.parametrize(("batch_size", "threads"), [(100, 1), (64, 3)])
def test_noise_adds_up_over_the_amplitudes(images, noise, clip, batch_size, threads):
    """Catches: one R for all, R of another order, clipping at the end alone, draws by batch or thread."""
    module, perturbation = helpers.linear(images), noise(clip=clip, accumulate=True)
    evidence = run_sweep(module, images, perturbation, AMPLITUDES, batch_size=batch_size, threads=threads)
    predictions, outside = expected(images, module, perturbation, clip)
    for amplitude, said, left in zip(sorted(AMPLITUDES), predictions, outside, strict=True):
        row = evidence.index(strength.name(amplitude))
        assert np.mean(evidence.predictions[row] == said) > 0.999  # another order of sums may tip a tie
        note = evidence.provenance["notes"].get(strength.name(amplitude), "")
        assert (f"{left.sum()} of {COUNT} images" in note) is (not clip), OUTSIDE


def test_a_first_amplitude_alone_is_plain_noise(images):
    """Catches: another draw for the same amplitude, which no one could compare."""
    module = helpers.linear(images)
    alone, added = (
        run_sweep(module, images, GaussianNoise(accumulate=each), [0.2], batch_size=100) for each in (False, True)
    )  # fmt: skip
    assert np.array_equal(alone.predictions, added.predictions)
    assert np.array_equal(alone.loss, added.loss)


def test_noise_without_clipping_has_the_ratio_that_it_asks_for(images):
    """‖V·R‖₂ of independent pixels is V·√(C·H·W) on average; clipping takes a part of it away."""
    free, clipped = (
        run_sweep(helpers.linear(images), images, GaussianNoise(clip=clip), [0.5], batch_size=100)
        for clip in (False, True)
    )
    pixels = images.batch(0, COUNT).reshape(COUNT, -1)
    due = 20 * np.log10(np.linalg.norm(pixels, axis=1) / (0.5 * math.sqrt(pixels.shape[1])))
    assert abs(np.mean(free.snr[0] - due)) < 0.3
    assert np.mean(clipped.snr[0]) > np.mean(free.snr[0]) + 1


@pytest.mark.parametrize("noise", [GaussianNoise(), GaussianNoise(bound=0.5), GaussianNoise(bound=1.0), UniformNoise()])
def test_deviations_are_those_of_the_draws(noise):
    """Catches: amplitudes that are added and not their squares, the deviation of a clamped number taken for 1."""
    added = noise.model_copy(update={"accumulate": True})
    drawn = np.stack([noise.draw(np.random.default_rng(k), (10**5,)) for k in range(3)])
    total = np.cumsum(np.array([0.1, 0.2, 0.3])[:, None] * drawn, axis=0)
    assert added.deviations([0.0, 0.1, 0.2, 0.3]) == pytest.approx([0, *total.std(1)], rel=0.01)
    assert noise.deviations([0.1]) is None


def test_tables_show_the_deviation_beside_the_amplitude():
    cell = CellReport(strength="0.3", status="ok", note="", metrics={}, claims={}, deviation=0.374166)
    noise = SweepReport.model_construct(name="normal", strength_name="V", unit="default", cells=[cell])
    _, rows = sweep_table(ModelReport.model_construct(sweeps=[noise]), noise, PAGE)
    assert rows[0][0] == "0.3 (σ 0.374)"


@pytest.mark.parametrize(
    ("amplitudes", "unit"),
    [([StrengthDistribution(uniform=(0.1, 0.2))], "default"), ([0.1], "image-std"), ([20.0], "snr")],
)
def test_accumulated_noise_needs_the_sweep_s_own_numbers(amplitudes, unit):
    with pytest.raises(ValueError, match="`accumulate` of gaussian must be false"):
        strength.check(amplitudes, GaussianNoise(accumulate=True), unit)


def test_noise_beside_another_model_has_a_transferability(tmp_path):
    """Of the images that noise misleads one model on, the share that it misleads the other on too, counted by hand."""
    path = helpers.project(tmp_path / "project", SOURCE, RANDOM)
    other = path.with_name("other.toml")
    other.write_text(path.read_text().replace('"tiny"', '"other"').replace("seed = 1", "seed = 2"))
    path.write_text(path.read_text().replace('kind = "gaussian"', 'kind = "gaussian"\nsource = "other.toml"'))
    made, card = helpers.open_workspace(path), cards.load(path)
    evidence = made.evidence(card, "normal")
    theirs, clean = made.evidence(cards.load(other), "normal"), made.evidence(cards.load(other))
    misled = [
        (each.predictions[0] == each.labels) & (noisy.predictions[1] != each.labels)
        for each, noisy in ((clean, theirs), (made.evidence(card), evidence))
    ]
    assert misled[0].sum() > 0
    found = claims.measure(evidence, "0.8", "transferability")
    assert found.value == pytest.approx((misled[0] & misled[1]).sum() / misled[0].sum())
    assert card.family("normal") == "noise"


RANDOM = helpers.CARD.replace('[recipe]\ncallable = "{module}:recipe"\n', "seed = 1\n")
SOURCE = helpers.MODULE.replace(
    "nn.Sequential(nn.Flatten(), nn.Linear(784, classes))",
    "nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, classes))",
)
