"""Metrics that are rates: functions of the confusion matrix, and shares of images with Wilson's interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np

from robustness.metrics.confusion import Matrix, cell_matrix
from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import UNKNOWN, delta, wilson
from robustness.metrics.metric import (
    UNKNOWN_CHANCE,
    ChanceLevel,
    Count,
    Counts,
    Floats,
    Influence,
    Measurement,
    Metric,
    MetricError,
    Rate,
)

Guess = Callable[[Counts, Floats, int | None], float]
"""The expectation of a rate if images, (K,) per class, are given each class with these probabilities, (K,)."""

MANY = 100
"""Classes; of more, one constant classifier is tried per number of images that a class has."""


def rate_metric(
    name: str,
    description: str,
    rate: Rate,
    guess: Guess | None = None,
    *,
    count: Count | None = None,
    better: Literal["higher", "lower"] = "higher",
    limits: tuple[float, float] = (0.0, 1.0),
    perfect_by_constant: bool = False,
    **fields: Any,
) -> Metric:
    """
    Build a metric from a function of the confusion matrix.

    Args:
        name: The name in cards.
        description: The description, in half a sentence.
        rate: Takes the matrix, (K, K), whose rows are true classes, and the index of a class or None. Returns the value
            with its gradient by the cells' probabilities, (K, K), or with the number of successes.
        guess: Takes the images per class, (K,), the probability with which a guesser predicts each class, (K,), and the
            index of a class or None. Returns the guesser's value on average. Without it every claim is vacuous.
        count: Returns which images count among which others, if the metric counts images.
        better: Whether higher or lower values are better.
        limits: The smallest and the largest possible value.
        perfect_by_constant: See `Metric`.
        fields: Other fields of `Metric`.

    Returns:
        The metric, whose interval, chance level and influence on a gate all follow from `rate` and `guess`.
    """

    def chance_level(images: Counts, label: int | None) -> ChanceLevel:
        return _chance_level(rate, guess, images, label, better, guess_alone=perfect_by_constant and label is not None)

    return Metric(
        name=name,
        description=description,
        measure=partial(_measure_cell, rate, limits),
        chance_level=chance_level if guess else None,
        influence=partial(_influence, rate, count),
        count=count,
        rate=rate,
        better=better,
        limits=limits,
        perfect_by_constant=perfect_by_constant,
        **fields,
    )


def measure_rate(
    rate: Rate, limits: tuple[float, float], matrix: Matrix, label: int | None, confidence: float
) -> Measurement:
    """Measure a rate on a confusion matrix."""
    value, n, successes, gradient, note = rate(matrix, label)
    if gradient is None:
        return Measurement(value, wilson(successes or 0, n, confidence), "wilson", n, successes, note)
    return Measurement(value, delta(matrix, gradient, value, confidence, limits), "delta", n, successes, note)


def _measure_cell(
    rate: Rate, limits: tuple[float, float], evidence: Evidence, row: int, label: int | None, confidence: float
) -> Measurement:
    return measure_rate(rate, limits, cell_matrix(evidence, row), label, confidence)


def _influence(rate: Rate, count: Count | None, evidence: Evidence, row: int, label: int | None) -> Influence:
    """Return each image's influence: by counting where images are counted, else by the gradient at its cell."""
    if count is not None and count(evidence, row, label) is not None:
        return counted_influence(count, evidence, row, label)
    value, _, _, gradient, _ = rate(cell_matrix(evidence, row), label)
    if gradient is None or math.isnan(value):
        return Influence(math.nan, np.zeros(len(evidence)), math.nan)
    slopes = gradient[evidence.labels, evidence.predictions[row]]
    return Influence(value, slopes - slopes.mean(), float(np.abs(gradient - slopes.mean()).max()))


def _chance_level(
    rate: Rate, guess: Guess | None, images: Counts, label: int | None, better: str, *, guess_alone: bool
) -> ChanceLevel:
    """Return the best of constant classifiers, uniform guesses, and guesses by the labels' shares."""
    if not images.any():
        return UNKNOWN_CHANCE
    assert guess is not None
    best = np.nanmax if better == "higher" else np.nanmin
    share = images / images.sum()
    uniform, frequent = (guess(images, p, label) for p in (np.full(len(images), 1 / len(images)), share))
    constants = [_constant(rate, images, label, taken) for taken in _constants(images, label)]
    constant = math.nan if np.isnan(constants).all() else float(best(constants))
    every = [uniform] if guess_alone else [constant, uniform, frequent]
    return ChanceLevel(math.nan if np.isnan(every).all() else float(best(every)), constant, uniform)


def _constants(images: Counts, label: int | None) -> list[int]:
    """Return the classes whose constant classifiers may be the best: for the rate of one class, that class alone."""
    if label is not None:
        return [label]
    return list(range(len(images))) if len(images) <= MANY else np.unique(images, return_index=True)[1].tolist()


def _constant(rate: Rate, images: Counts, label: int | None, taken: int) -> float:
    """Return the rate of the classifier that predicts one class for every image."""
    matrix = np.zeros((len(images), len(images)), dtype=np.int64)
    matrix[:, taken] = images
    return float(rate(matrix, label).value)


def guess_error(rate: Rate, images: Counts, label: int | None) -> float:
    """Return the standard error of a rate under uniform guesses, given how many images each class has."""
    classes = len(images)
    # What guesses give on average, times the number of classes, which makes it whole images.
    expected = np.repeat(images[:, None], classes, axis=1)
    estimate = rate(expected, label)
    if estimate.gradient is None:
        return math.sqrt(estimate.value * (1 - estimate.value) * classes / estimate.n)
    share = expected / expected.sum()
    centred = estimate.gradient - (share * estimate.gradient).sum()
    return math.sqrt(float((share * centred**2).sum()) / int(images.sum()))


def counted_metric(name: str, description: str, count: Count, **fields: Any) -> Metric:
    """
    Build a metric that is a share of images.

    Args:
        name: How cards call it.
        description: What it is, in half a sentence.
        count: Returns which images count among which others, as `Counted`.
        fields: Other fields of `Metric`, such as `chance_level`.

    Returns:
        The metric, with Wilson's interval; a gate counts the images that change.
    """
    measure, influence = partial(measure_counted, count), partial(counted_influence, count)
    return Metric(name=name, description=description, count=count, measure=measure, influence=influence, **fields)


def measure_counted(count: Count, evidence: Evidence, row: int, label: int | None, confidence: float) -> Measurement:
    """Measure the share with Wilson's interval."""
    counted = count(evidence, row, label)
    assert counted is not None
    n, successes = int(counted.among.sum()), int((counted.hits & counted.among).sum())
    if not n:
        return Measurement(math.nan, UNKNOWN, "wilson", 0, None, counted.reason)
    return Measurement(successes / n, wilson(successes, n, confidence), "wilson", n, successes)


def counted_influence(count: Count, evidence: Evidence, row: int, label: int | None) -> Influence:
    """Return each image's influence on the share."""
    counted = count(evidence, row, label)
    assert counted is not None
    hits, among, _ = counted
    share = float(among.mean())
    if not share:
        return Influence(math.nan, np.zeros(len(among)), math.nan)
    rate = float((hits & among).mean()) / share
    return Influence(rate, (hits & among).astype(np.float64) / share - among * (rate / share), 1 / share)


def require_evidence(evidence: Evidence | None, what: str) -> Evidence:
    """Return evidence that a metric compares with; MetricError if there is none."""
    if evidence is None:
        raise MetricError(f"the metric compares evidence and needs {what}, got none")
    return evidence
