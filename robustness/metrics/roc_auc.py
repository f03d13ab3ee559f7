"""ROC curves, and areas under them with intervals: of two samples, and of the probabilities of all classes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import UNKNOWN, Interval, quantile
from robustness.metrics.metric import ChanceLevel, Counts, Influence, Measurement, Metric, MetricError


def measure_micro_auc(evidence: Evidence, row: int, label: int | None, confidence: float) -> Measurement:
    """
    Measure the micro-averaged area: the probability that a true class scores higher than a wrong class of any image.

    One curve of all images and classes, one against the rest; ties count half. The interval treats an image's scores as
    one cluster (Obuchowski 1997). MetricError if the evidence has no probabilities.
    """
    value, variance = micro_auc_variance(probabilities(evidence)[row], evidence.labels)
    return Measurement(value, clipped_normal_interval(value, variance, confidence), "influence", len(evidence))


def probabilities(evidence: Evidence, metric: str = "roc_auc") -> NDArray[np.float32]:
    """Return the probability of every class, (S, N, K), for a metric; MetricError if the evidence has none."""
    if evidence.probabilities is None:
        raise MetricError(
            f"`{metric}` needs the probability of every class, got evidence without it; write "
            "store_probabilities = true in the card"
        )
    values: NDArray[np.float32] = evidence.probabilities
    return values


def micro_auc_variance(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """
    Return the micro-averaged area under the ROC curve and its variance, images being independent.

    >>> micro_auc_variance(np.float32([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1]))[0]
    1.0
    """
    value, spread = micro_auc_influence(scores, labels)
    return value, float(spread.var(ddof=1)) / len(labels) if len(labels) > 1 else 0.0


def micro_auc_influence(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
    """Return the micro-averaged area, and each image's influence on it, (N,)."""
    true = np.eye(scores.shape[1], dtype=bool)[labels]
    return auc_influence(scores[true], scores[~true])


def auc_influence(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> tuple[float, NDArray[np.float64]]:
    """
    Return the area under the ROC curve and each image's influence on it, (N,), of mean zero: DeLong's components.

    Every image has one positive score, (N,), and one or more negative ones, an image's after another's.

    >>> auc_influence(np.float32([0.9, 0.5]), np.float32([0.1, 0.5]))
    (0.875, array([ 0.25, -0.25]))
    """
    own = _placements(positive, negative)
    value = float(own.mean())
    others = 1 - _placements(negative, positive).reshape(len(positive), -1).mean(axis=1)
    return value, (own - value) + (others - value)


def clipped_normal_interval(value: float, variance: float, confidence: float) -> Interval:
    """Return the normal interval of an area, within [0, 1]; an unknown one where nothing varies."""
    half = quantile(confidence) * math.sqrt(variance)
    return Interval(max(value - half, 0.0), min(value + half, 1.0)) if half else UNKNOWN


def delong(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> tuple[float, float]:
    """
    Return the area under the ROC curve and its variance from the two samples' scores.

    >>> delong(np.float32([0.9, 0.5]), np.float32([0.5, 0.1]))[0]
    0.875
    """
    higher, lower = _placements(positive, negative), 1 - _placements(negative, positive)
    variance = sum(float(v.var(ddof=1)) / len(v) if len(v) > 1 else 0.0 for v in (higher, lower))
    return float(higher.mean()), variance


def _placements(values: NDArray[np.float32], among: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give, of each value, the share of others that it exceeds, ties counting half."""
    ordered = np.sort(among)
    below, upto = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (below + upto) / (2 * len(among))


def micro_influence(evidence: Evidence, row: int, label: int | None = None) -> Influence:
    """Return each image's influence on the micro-averaged area."""
    value, per_image = micro_auc_influence(probabilities(evidence)[row], evidence.labels)
    # Both of an image's kinds of scores count, and each can go from below all others to above them.
    return Influence(value, per_image, 2.0, "delong")


def auc_chance_level(images: Counts, label: int | None = None) -> ChanceLevel:
    """Return the area of one who gives every image the labels' own shares as its probabilities, or one half."""
    constant = _prior_auc(images / images.sum()) if images.any() else 0.5
    return ChanceLevel(max(constant, 0.5), constant, 0.5)


def _prior_auc(shares: NDArray[np.float64]) -> float:
    """
    Return the micro-averaged area of constant probabilities that are the labels' own shares.

    >>> _prior_auc(np.array([0.25, 0.75])), _prior_auc(np.array([0.5, 0.5]))
    (0.75, 0.5)
    """
    wrong = (1 - shares) / (len(shares) - 1)
    above = (shares[:, None] > shares) + 0.5 * (shares[:, None] == shares)
    return float(shares @ above @ wrong)


ROC_AUC = Metric(
    name="roc_auc",
    description="area under the ROC curve of every class against the rest, all together (micro-averaged)",
    measure=measure_micro_auc,
    chance_level=auc_chance_level,
    influence=micro_influence,
    needs_probabilities=True,
    baseline_scores="probabilities",
)


class RocCurve(NamedTuple):
    """One point a threshold, from the strictest to the laxest."""

    false_positive_rates: NDArray[np.float64]
    true_positive_rates: NDArray[np.float64]
    thresholds: NDArray[np.float64]


def roc_curve(positive: ArrayLike, scores: ArrayLike) -> RocCurve:
    """
    Trade false for true positives over all thresholds on a score that should be high for `positive` images.

    >>> roc_curve([False, True, True], [0.1, 0.4, 0.9]).true_positive_rates.tolist()
    [0.0, 0.5, 1.0, 1.0]
    """
    from sklearn.metrics import roc_curve as curve  # takes 2 to 3 s to import, and only reports draw curves

    truth, numbers = _binary(positive, scores)
    if truth.all() or not truth.any():
        raise ValueError(
            f"`positive` must contain both kinds, got {truth.sum()} of {truth.size}; add images of the other kind"
        )
    return RocCurve(*curve(truth, numbers))


def _binary(positive: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    truth, numbers = np.asarray(positive), np.asarray(scores, dtype=np.float64)
    if truth.shape != numbers.shape or truth.ndim != 1 or not np.isin(truth, (0, 1)).all():
        raise ValueError(
            f"`positive` must be 0 or 1 for each of the scores, got shape {truth.shape} of {truth.dtype} for "
            f"{numbers.shape}; use one flag and one score per image"
        )
    if np.isnan(numbers).any():
        raise ValueError(
            f"`scores` must be numbers, got {np.isnan(numbers).sum()} NaN; a cell with NaN is not measured"
        )
    return truth.astype(bool), numbers
