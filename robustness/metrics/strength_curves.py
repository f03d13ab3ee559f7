"""What accuracy does over a perturbation's strengths: its steepest slope, its standard deviation and its range."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from robustness.metrics.detection import discarded
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.intervals import UNKNOWN, Interval, quantile
from robustness.metrics.metric import Measurement, Metric, MetricError, known_chance
from robustness.metrics.rate_metric import require_evidence

Floats = NDArray[np.float64]
SHAPES = ("max_accuracy_slope", "accuracy_std", "accuracy_range")
SELECTIVE = "selective_"


def measure_shape(name: str, evidence: Evidence, row: int, label: int | None, confidence: float) -> Measurement:
    """
    Measure the shape of the accuracy curve from strength 0 to this row's (label-2n, section 6).

    ``max_accuracy_slope`` is the largest |Δaccuracy/Δstrength| between neighbours, ``accuracy_std`` the standard
    deviation of the accuracies, ``accuracy_range`` the largest less the least; with ``selective_`` of the images that
    are kept. The interval comes from each image's influence on the number, as its curve says right or wrong at every
    strength.
    """
    sizes, cells = _curve(evidence, row, require_evidence(evidence.clean, "clean evidence"))
    values = [_accuracy(of, at, filtered=name.startswith(SELECTIVE)) for of, at in cells]
    accuracies, influences = (np.stack([pair[i] for pair in values]) for i in (0, 1))
    if np.isnan(accuracies).any():
        return Measurement(math.nan, UNKNOWN, "influence", 0, None, "nothing is kept")
    value, weights = shape(name.removeprefix(SELECTIVE), np.asarray(sizes), accuracies)
    spread = (weights[:, None] * influences).sum(0)
    half = quantile(confidence) * float(spread.std(ddof=1)) / math.sqrt(len(spread))
    return Measurement(value, Interval(max(value - half, 0.0), value + half), "influence", len(spread))


def shape(name: str, sizes: Floats, accuracies: Floats) -> tuple[float, Floats]:
    """
    Return a shape of a curve, and its slope by each accuracy.

    >>> value, slope = shape("max_accuracy_slope", np.array([0.0, 0.1, 0.3]), np.array([0.9, 0.8, 0.8]))
    >>> round(value, 6), slope.round(6).tolist()
    (1.0, [10.0, -10.0, 0.0])
    """
    weights = np.zeros(len(sizes))
    if name == "max_accuracy_slope":
        slopes = np.diff(accuracies) / np.diff(sizes)
        at = int(np.abs(slopes).argmax())
        weights[at : at + 2] = np.array([-1, 1]) * np.sign(slopes[at]) / (sizes[at + 1] - sizes[at])
        return float(abs(slopes[at])), weights
    if name == "accuracy_range":
        weights[accuracies.argmax()] += 1
        weights[accuracies.argmin()] -= 1
        return float(accuracies.max() - accuracies.min()), weights
    deviation = float(accuracies.std())
    if deviation:
        weights = (accuracies - accuracies.mean()) / (len(sizes) * deviation)
    return deviation, weights


def _accuracy(evidence: Evidence, row: int, *, filtered: bool) -> tuple[float, Floats]:
    """Return the accuracy at one strength, and each image's influence on it."""
    right = (evidence.predictions[row] == evidence.labels).astype(float)
    accepted = ~discarded(evidence, row) if filtered else np.ones(len(right), np.bool_)
    if not accepted.any():
        return math.nan, np.zeros(len(right))
    accuracy = float(right[accepted].mean())
    return accuracy, accepted * (right - accuracy) / accepted.mean()


def _curve(evidence: Evidence, row: int, clean: Evidence) -> tuple[list[float], list[tuple[Evidence, int]]]:
    """Return the strengths from 0 to a row's, in their order, and where each one's outcomes are."""
    curve: dict[float, tuple[Evidence, int]] = {0.0: (clean, 0)}
    try:
        last = float(evidence.strengths[row])
        sizes = {float(name): i for i, name in enumerate(evidence.strengths)}
    except ValueError:
        raise MetricError("`metric` needs strengths that are numbers, got one that is drawn; leave it out") from None
    for size, i in sizes.items():
        if 0 < size <= last:
            if evidence.status[i] != OK:
                raise MetricError(f"the curve has no numbers at {evidence.strengths[i]}: {evidence.status[i]}")
            curve[size] = (evidence, i)
    if len(curve) < 2:
        raise MetricError(f"`metric` needs a strength above 0, got {evidence.strengths[row]}; claim it at a larger one")
    return sorted(curve), [curve[size] for size in sorted(curve)]


def _metric(name: str, description: str, worst: float, largest: float) -> Metric:
    """Make the metric of a shape, after filtering too; `worst` is what one who knows nothing gets."""
    filtered = name.startswith(SELECTIVE)
    return Metric(
        name=name,
        description=description,
        measure=partial(measure_shape, name),
        chance_level=partial(known_chance, worst),
        better="lower",
        limits=(0.0, largest),
        over_strengths=True,
        needs_clean_evidence=True,
        needs_detector=filtered,
        # A constant classifier, or a decision that discards everything, has a flat curve.
        requires_claims=("accuracy", "coverage") if filtered else ("accuracy",),
    )


METRICS = (
    _metric(
        "max_accuracy_slope", "largest |Δaccuracy/Δstrength| between neighbours up to this strength", math.inf, math.inf
    ),
    _metric("accuracy_std", "standard deviation of the accuracies up to this strength", 0.5, 1.0),
    _metric("accuracy_range", "largest minus smallest accuracy up to this strength", 1.0, 1.0),
    _metric("selective_max_accuracy_slope", "max_accuracy_slope of the selective accuracy", math.inf, math.inf),
    _metric("selective_accuracy_std", "accuracy_std of the selective accuracy", 0.5, 1.0),
    _metric("selective_accuracy_range", "accuracy_range of the selective accuracy", 1.0, 1.0),
)
