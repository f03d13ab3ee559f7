"""Metrics that follow from a confusion matrix: interval, chance level and influence from one function of the matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np

from robustness.metrics.confusion import Matrix, cell_matrix
from robustness.metrics.counted_metric import counted_influence
from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import delta, wilson
from robustness.metrics.metric import (
    UNKNOWN_CHANCE,
    ChanceLevel,
    Count,
    Counts,
    Floats,
    Influence,
    Measurement,
    Metric,
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
        name: How cards call it.
        description: What it is, in half a sentence.
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
    """Return the classes whose constant classifiers may be the best: of one class's rate that class alone."""
    if label is not None:
        return [label]
    return list(range(len(images))) if len(images) <= MANY else np.unique(images, return_index=True)[1].tolist()


def _constant(rate: Rate, images: Counts, label: int | None, taken: int) -> float:
    """Return the rate of the classifier that takes every image for one class."""
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
