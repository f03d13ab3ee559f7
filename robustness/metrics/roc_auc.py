"""Areas under ROC curves with intervals: of two samples, and of the probabilities of all classes together."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import UNKNOWN, Interval, quantile
from robustness.metrics.registry import Measurement, MetricError


def micro(evidence: Evidence, row: int, confidence: float = 0.95) -> Measurement:
    """
    Measure the micro-averaged area: how probably an image's true class scores higher than a wrong one of any image.

    Of all images together, ties counting half: every class against the rest, in one curve. An image's scores belong
    together, so that the interval is that of one number an image (Obuchowski 1997). MetricError where the evidence has
    no probabilities.
    """
    value, variance = micro_auc_variance(probabilities(evidence)[row], evidence.labels)
    return Measurement(
        "roc_auc", value, clipped_normal_interval(value, variance, confidence), "influence", len(evidence)
    )


def probabilities(evidence: Evidence) -> NDArray[np.float32]:
    """Return the probability of every class, (S, N, K); MetricError where the evidence has none."""
    if evidence.probabilities is None:
        raise MetricError(
            "`roc_auc` needs the probability of every class, got evidence without; "
            "write probabilities = true in the card"
        )
    found: NDArray[np.float32] = evidence.probabilities
    return found


def micro_auc_variance(given: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """
    Return the micro-averaged area under the ROC curve and its variance, images being independent.

    >>> micro_auc_variance(np.float32([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1]))[0]
    1.0
    """
    value, spread = micro_auc_influence(given, labels)
    return value, float(spread.var(ddof=1)) / len(labels) if len(labels) > 1 else 0.0


def micro_auc_influence(given: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
    """Return the micro-averaged area, and how much each image moves it, (N,)."""
    true = np.eye(given.shape[1], dtype=bool)[labels]
    return auc_influence(given[true], given[~true])


def auc_influence(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> tuple[float, NDArray[np.float64]]:
    """
    Return the area under the ROC curve and how much each image moves it, (N,), of mean zero: DeLong's components.

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
