"""Calibration: how far confidence is from accuracy, and the squared error of the probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import UNKNOWN, Interval, mean_interval, wilson
from robustness.metrics.metric import UNKNOWN_CHANCE, ChanceLevel, Counts, Floats, Influence, Measurement, Metric
from robustness.metrics.roc_auc import probabilities

BINS = 15
DRAWS = 1000
"""Samples of the bootstrap; its seed is fixed, so that equal evidence has equal intervals."""


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> float:
    """
    Average the distance between confidence and accuracy over bins of confidence, weighted by their images.

    Σ over bins of |images of the bin| / N · |mean confidence − accuracy|. The bins have equal widths; an image on an
    edge belongs to the lower bin, so that a confidence of 1 belongs to the last (Guo et al. 2017, equations 2, 3, 5).

    Args:
        confidence: The probability of each image's predicted class, (N,), in [0, 1].
        correct: Whether each prediction is correct, (N,).
        bins: The number of bins.

    Returns:
        The error, between 0 and 1; NaN without images.

    Raises:
        ValueError: If the shapes differ, or a confidence is not in [0, 1].

    >>> round(expected_calibration_error([0.9, 0.9, 0.6, 0.6], [True, True, True, False]), 6)
    0.1
    """
    _, _, sums = _gaps(confidence, correct, bins)
    return float(np.abs(sums).sum()) if np.size(confidence) else math.nan


def brier_scores(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """
    Return each image's squared error of the probabilities, Σ over classes of (p − 1[class is true])², from 0 to 2.

    Their mean is the Brier score of Brier (1950), equation 2. For two classes it is twice the form with one class.

    Args:
        probabilities: The probability of every class, (N, K).
        labels: The true class of each image, (N,).

    Returns:
        The squared errors, (N,).

    Raises:
        ValueError: If the shapes do not fit, a label is no class, or a probability is not in [0, 1].

    >>> brier_scores([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], [0, 2]).tolist()
    [0.5, 0.0]
    """
    p, truth = np.asarray(probabilities, np.float64), np.asarray(labels)
    if p.ndim != 2 or truth.shape != p.shape[:1]:
        raise ValueError(
            f"`probabilities` must be (images, classes) with one label per image, got {p.shape} and {truth.shape}"
        )
    _check_unit("probabilities", p)
    if (unknown := truth[(truth < 0) | (truth >= p.shape[1])]).size:
        raise ValueError(f"`labels` must be classes from 0 to {p.shape[1] - 1}, got {unknown[0]}")
    true = np.arange(p.shape[1]) == truth[:, None]
    return np.asarray(((p - true) ** 2).sum(axis=1))


def measure_ece(evidence: Evidence, row: int, label: int | None, confidence: float) -> Measurement:
    """Measure the expected calibration error of all images, discarded ones too."""
    n = len(evidence)
    if not n:
        return Measurement(math.nan, UNKNOWN, "bootstrap", 0, note="no images")
    bins, gaps, sums = _gaps(evidence.confidence[row], evidence.predictions[row] == evidence.labels)
    low, high = _ece_interval(bins, gaps, sums, confidence)
    return Measurement(float(np.abs(sums).sum()), Interval(low, high), "bootstrap", n)


def _gaps(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return each image's bin, (N,), its correctness less its confidence, (N,), and the bins' sums of these over N."""
    p, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if p.ndim != 1 or right.shape != p.shape:
        raise ValueError(f"`confidence` must be one number per prediction, {right.shape}, got {p.shape}")
    _check_unit("confidence", p)
    index = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p, side="left")
    return index, right - p, np.bincount(index, right - p, bins) / max(len(p), 1)


def _check_unit(name: str, numbers: Floats) -> None:
    """Raise ValueError for a number outside [0, 1]; float32 rounds some probabilities to just above 1."""
    outside = ~((numbers >= 0) & (numbers <= 1 + 1e-5))
    if outside.any():
        raise ValueError(
            f"`{name}` must lie in [0, 1], got {numbers[outside][0]} and {int(outside.sum())} such numbers; pass "
            "probabilities, not logits"
        )


def _ece_interval(bins: NDArray[np.int64], gaps: Floats, sums: Floats, confidence: float) -> Interval:
    """
    Return the errors at which the measured one is neither among the smallest nor among the largest of new samples.

    The measured error is above the true one, because chance moves every bin away from 0 (Nixon et al. 2019), and the
    usual bootstrap moves it once more: of a calibrated classifier its 95 % interval never contains the truth. So the
    bins' deviations are scaled by t, samples are drawn around them, and the ends are the smallest and the largest t
    at which the measured error lies within the central part of the samples' errors.
    """
    value, n, tail = float(np.abs(sums).sum()), len(gaps), (1 - confidence) / 2
    unseen = wilson(0, n, confidence).high  # no observed deviation does not prove that there is none
    if value == 0:
        return Interval(0.0, unseen)
    random = np.random.default_rng(0)
    samples = (random.integers(0, n, n) for _ in range(DRAWS))
    noise = np.stack([np.bincount(bins[rows], gaps[rows], len(sums)) / n - sums for rows in samples])

    def errors(scale: float) -> Floats:
        return np.asarray(np.abs(scale * sums + noise).sum(axis=1))

    low = _first(lambda scale: bool((errors(scale) >= value).mean() >= tail), 1.0)
    high = _first(lambda scale: bool((errors(scale) <= value).mean() < tail), 1.0)
    return Interval(min(low, 1.0) * value, min(max(high * value, value, unseen), 1.0))


def _first(reached: Callable[[float], bool], top: float) -> float:
    """Return the smallest scale from 0 on at which a condition that stays true is true, to 1e-6 of the largest."""
    if reached(0.0):
        return 0.0
    while not reached(top):
        top *= 2
    low, step = 0.0, top
    while step > 1e-6 * top:
        step /= 2
        low += 0 if reached(low + step) else step
    return low + step


def ece_chance_level(images: Counts, label: int | None = None) -> ChanceLevel:
    """Return the error of a classifier that is sure of the most frequent class, or of a uniform guess."""
    if not images.any():
        return UNKNOWN_CHANCE
    constant, guess = 1 - float(images.max() / images.sum()), 1 - 1 / len(images)
    return ChanceLevel(min(constant, guess), constant, guess)


def measure_brier(evidence: Evidence, row: int, label: int | None, confidence: float) -> Measurement:
    """Average the squared errors of all images, discarded ones too; MetricError if there are no probabilities."""
    scores = brier_scores(probabilities(evidence, "brier")[row], evidence.labels)
    if not len(scores):
        return Measurement(math.nan, UNKNOWN, "normal", 0, note="no images")
    low, high = mean_interval(scores, confidence)
    return Measurement(float(scores.mean()), Interval(max(low, 0.0), min(high, 2.0)), "normal", len(scores))


def brier_influence(evidence: Evidence, row: int, label: int | None = None) -> Influence:
    """Return each image's influence on the mean squared error."""
    scores = brier_scores(probabilities(evidence, "brier")[row], evidence.labels)
    value = float(scores.mean())
    return Influence(value, scores - value, max(value, 2 - value))


def brier_chance_level(images: Counts, label: int | None = None) -> ChanceLevel:
    """Return the score of constant probabilities instead of a constant class: the labels' own shares, or uniform."""
    if not images.any():
        return UNKNOWN_CHANCE
    share = images / images.sum()
    constant, guess = 1 - float(share @ share), 1 - 1 / len(images)
    return ChanceLevel(min(constant, guess), constant, guess)


METRICS = (
    Metric(
        name="ece",
        description="expected calibration error: distance of confidence and accuracy, over 15 bins of confidence",
        measure=measure_ece,
        chance_level=ece_chance_level,
        better="lower",
        # Constant probabilities that are the labels' own shares have an error of 0.
        requires_claims=("accuracy",),
    ),
    Metric(
        name="brier",
        description="Brier score: mean squared error of the probabilities, summed over classes",
        measure=measure_brier,
        chance_level=brier_chance_level,
        influence=brier_influence,
        better="lower",
        limits=(0.0, 2.0),
        needs_probabilities=True,
        baseline_scores="probabilities",
    ),
)
