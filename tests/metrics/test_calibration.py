"""Calibration error and Brier score: formulas written out, coverage of a known truth, and useless classifiers."""

import math
from dataclasses import replace

import helpers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_squared_error
from torch import nn

from robustness import cards, claims
from robustness.cards import Claim
from robustness.decisions import Null
from robustness.errors import CardError
from robustness.metrics.calibration import brier_scores, expected_calibration_error, measure_ece
from robustness.metrics.chance_level import chance_level
from robustness.metrics.evidence import Evidence
from robustness.metrics.metric import MetricError
from robustness.perturbations import GaussianNoise
from robustness.sweep.runner import run_sweep


def measured_on(p, labels, predictions=None, metric="ece"):
    """A metric of probabilities, (N, K), in evidence that stores them."""
    p, labels = np.asarray(p, np.float32), np.asarray(labels)
    return claims.measure(evidence_of(p, labels, predictions), "0", metric)


def evidence_of(p, labels, predictions=None):
    predictions = p.argmax(1) if predictions is None else np.asarray(predictions)
    at, blank = np.arange(len(p)), np.zeros((1, len(p)), np.float32)
    return Evidence(
        np.asarray(labels, np.int32), tuple(map(str, range(p.shape[1]))), ("0",), predictions[None].astype(np.int32),
        p[at, predictions][None], p[at, labels][None], blank, blank, ("ok",), {}, p[None],
    )  # fmt: skip


# ------------------------------------------------------------------ values


@given(st.integers(0, 2**16), st.integers(1, 80), st.sampled_from([1, 2, 10, 15]), st.booleans())
def test_the_error_is_the_sum_over_bins_of_guo_et_al(seed, count, bins, on_edges):
    """Catches: bins of equal size, an unweighted mean over bins, 1 in a bin of its own, an edge in the upper bin."""
    random = np.random.default_rng(seed)
    confidence = random.integers(0, bins + 1, count) / bins if on_edges else random.random(count)
    correct = random.random(count) < 0.6
    due = 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        inside |= (confidence == 0) & (m == 1)
        if inside.any():
            due += inside.sum() / count * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(due, abs=1e-12)


def test_the_error_of_one_bin_is_closed():
    """Catches: confidence less accuracy without its absolute value, or squared."""
    assert expected_calibration_error([0.95] * 10, [True] * 7 + [False] * 3) == pytest.approx(0.25)
    assert expected_calibration_error([0.41] * 10, [True] * 7 + [False] * 3) == pytest.approx(0.29)
    assert math.isnan(expected_calibration_error([], []))


@given(st.integers(0, 2**16), st.integers(1, 40), st.integers(2, 6))
def test_brier_is_the_squared_error_of_all_classes(seed, count, classes):
    """Catches: the score of the predicted class alone, a mean over classes, half of it."""
    random = np.random.default_rng(seed)
    p, labels = random.dirichlet(np.ones(classes), count), random.integers(0, classes, count)
    scores = brier_scores(p, labels)
    assert scores.mean() == pytest.approx(classes * mean_squared_error(np.eye(classes)[labels], p))
    assert scores == pytest.approx((p**2).sum(1) - 2 * p[np.arange(count), labels] + 1)
    if classes == 2:
        assert scores == pytest.approx(2 * (p[:, 1] - labels) ** 2)
    assert brier_scores(np.eye(3)[[0, 1]], [0, 2]).tolist() == [0, 2]


def test_they_follow_from_a_sweep_s_logits():
    """Catches: the confidence of another strength, the probability of the true class for that of the predicted one."""
    torch.manual_seed(0)
    images = helpers.digits(10)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    noise = GaussianNoise(clip=False)
    evidence = run_sweep(model, images, noise, [0.0, 0.5], probabilities=True, threads=1)
    for strength, row in (("0", 0), ("0.5", 1)):
        p, right = evidence.probabilities[row], evidence.predictions[row] == images.labels
        ece, brier = (claims.measure(evidence, strength, metric) for metric in ("ece", "brier"))
        assert ece.value == pytest.approx(expected_calibration_error(p.max(1), right), abs=1e-6)
        assert brier.value == pytest.approx(((p - np.eye(10)[images.labels]) ** 2).sum(1).mean(), rel=1e-6)
        assert ece.n == brier.n == len(images)
    with torch.no_grad():
        p = model(torch.from_numpy(images.batch(0, len(images)))).softmax(1).numpy()
    assert claims.measure(evidence, "0", "ece").value == pytest.approx(
        expected_calibration_error(p.max(1), p.argmax(1) == images.labels), abs=1e-6
    )


def test_discarded_images_count():
    """Catches: a detector that improves its calibration by discarding what it is sure of and wrong about."""
    torch.manual_seed(0)
    images = helpers.digits(10)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 11))
    evidence = run_sweep(model, images, GaussianNoise(), [0.3], decision=Null(), probabilities=True, threads=1)
    for metric in ("ece", "brier"):
        measured = claims.measure(evidence, "0.3", metric)
        assert measured.n == len(images)
        everything = replace(evidence, attack_probability=np.ones_like(evidence.attack_probability))
        assert claims.measure(everything, "0.3", metric) == measured


# ------------------------------------------------------------------ intervals


@pytest.mark.parametrize(("shift", "count"), [(0.0, 300), (0.0, 1000), (0.05, 300), (0.2, 300)])
def test_the_interval_covers_a_known_error(shift, count):
    """Catches: a plain bootstrap, whose interval never contains the error of a calibrated classifier."""
    random, covered, runs = np.random.default_rng(1), 0, 100
    for _ in range(runs):
        confidence = 0.5 + 0.45 * random.random(count)
        correct = random.random(count) < confidence - shift
        p = np.stack([confidence, 1 - confidence], 1)
        low, high = measured_on(p, np.where(correct, 0, 1)).interval
        covered += low <= shift <= high
    assert covered >= 0.89 * runs  # 95 % are meant


def test_equal_evidence_has_equal_intervals():
    """Catches: a bootstrap that draws from the global generator."""
    random = np.random.default_rng(0)
    p, labels = random.dirichlet(np.ones(3), 50), random.integers(0, 3, 50)
    np.random.seed(1)  # noqa: NPY002
    first = measured_on(p, labels)
    np.random.seed(2)  # noqa: NPY002
    assert measured_on(p, labels) == first
    assert first.method == "bootstrap"
    assert first.interval.low <= first.value <= first.interval.high
    wide, narrow = (measure_ece(evidence_of(p, labels), 0, None, c).interval for c in (0.99, 0.5))
    assert wide.low <= narrow.low <= narrow.high < wide.high


def test_a_perfect_sample_is_no_certainty():
    """Catches: an interval of no width for a classifier that is sure and right on all of a few images."""
    for sure in (1.0, 0.9999):
        p = np.where(np.eye(2, dtype=bool)[[0, 1] * 20], sure, 1 - sure)
        measured = measured_on(p, [0, 1] * 20)
        assert measured.value == pytest.approx(1 - sure, abs=1e-6)
        assert measured.interval.low <= measured.value
        assert measured.interval.high == pytest.approx(0.0876, abs=1e-3)  # Wilson's for 0 of 40


def test_no_images_have_neither():
    for metric in ("ece", "brier"):
        measured = measured_on(np.zeros((0, 2)), np.zeros(0, int), metric=metric)
        assert math.isnan(measured.value)
        assert measured.note == "no images"


# ------------------------------------------------------------------ useless classifiers, and bad input


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(0, 999))
def test_no_constant_probabilities_beat_brier_s_chance_level(counts, seed):
    """Catches: the level of a uniform guess where the labels' shares are better."""
    labels = np.repeat(np.arange(len(counts)), counts)
    level = chance_level("brier", labels, len(counts))
    others = np.random.default_rng(seed).dirichlet(np.ones(len(counts)), 50)
    scores = [brier_scores(np.tile(p, (len(labels), 1)), labels).mean() for p in others]
    assert min(scores) >= level.value - 1e-12
    shares = np.tile(np.array(counts) / sum(counts), (len(labels), 1))
    assert level.value == pytest.approx(brier_scores(shares, labels).mean())
    assert level.guess == pytest.approx(brier_scores(np.full_like(shares, 1 / len(counts)), labels).mean())


def test_constant_probabilities_meet_no_claim_on_the_error():
    """Catches: a claim of perfect calibration that is met by the labels' shares, given to every image."""
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    evidence = evidence_of(np.tile(np.float32([0.5, 0.3, 0.2]), (100, 1)), labels)
    assert claims.measure(evidence, "0", "ece").value == pytest.approx(0, abs=1e-6)
    for beside in ((), (("accuracy", 0.5),), (("accuracy", 0.6),)):
        verdict = claims.judge(Claim("m", "clean", "0", "ece", 0.1, "clean", beside), evidence)
        assert verdict.outcome == "failed"
        assert "clean accuracy" in verdict.message
    right = evidence_of(np.float32(0.9 * np.eye(3) + 0.1 / 3)[labels], labels)
    for threshold, outcome in ((0.1, "passed"), (0.05, "failed"), (0.5, "vacuous"), (0.6, "vacuous")):
        claim = Claim("m", "clean", "0", "ece", threshold, "clean", (("accuracy", 0.6),))
        assert claims.judge(claim, right).outcome == outcome


@pytest.mark.usefixtures("own_path")
def test_cards_say_what_they_need(tmp_path):
    """Catches: a claim of calibration alone, and a Brier score without the probabilities."""
    path = helpers.project(tmp_path / "project")
    text = path.read_text().partition("\n[claims")[0]
    path.write_text(text + "\n[claims.clean]\nece = [0.1]\n")
    with pytest.raises(CardError, match=r"claims\.clean\.ece: counts only together with a claim of clean accuracy"):
        cards.load(path)
    path.write_text(text + "\n[claims.clean]\nbrier = [0.5]\n")
    with pytest.raises(CardError, match=r"claims\.clean\.brier: needs the probability of every class"):
        cards.load(path)
    bare = replace(evidence_of(np.float32([[0.6, 0.4]]), np.array([0])), probabilities=None)
    with pytest.raises(MetricError, match="`brier` needs the probability of every class"):
        claims.measure(bare, "0", "brier")


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: expected_calibration_error([0.5, math.nan], [True, False]), "`confidence` must lie in"),
        (lambda: expected_calibration_error([3.2], [True]), "not logits"),
        (lambda: expected_calibration_error([0.5], [True, False]), "one number per prediction"),
        (lambda: brier_scores([[0.5, -0.5]], [0]), "`probabilities` must lie in"),
        (lambda: brier_scores([[0.5, math.nan]], [0]), "`probabilities` must lie in"),
        (lambda: brier_scores([0.5, 0.5], [0, 1]), r"must be \(images, classes\)"),
        (lambda: brier_scores([[0.5, 0.5]], [0, 1]), "one label per image"),
        (lambda: brier_scores([[0.5, 0.5]], [2]), "`labels` must be classes from 0 to 1, got 2"),
    ],
)
def test_bad_input_is_refused(call, complaint):
    """Catches: a NaN that falls into the last bin, logits for probabilities."""
    with pytest.raises(ValueError, match=complaint):
        call()
