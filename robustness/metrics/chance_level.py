"""What a classifier that knows nothing gets: a claim that it passes is a claim that cannot fail."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.metrics.confusion import confusion_matrix
from robustness.metrics.registry import METRICS, Classes, Metric, MetricError, count_classes, parse

MANY = 100
"""Classes; of more, one constant classifier is tried per number of images that a class has."""
LUCK = 3.0
"""Standard errors of a guess by which a threshold must clear the floor."""


class ChanceLevel(NamedTuple):
    """
    The number that a claim has to beat, and two that it comes from.

    `constant` is the best of the classifiers that give every image the same class, `guess` the expectation of one that
    guesses uniformly at random, over the guesses for which the metric is defined. `value` is the best of them and of
    one that guesses each class as often as the labels have it: the largest, if less is better the smallest. Of one
    class's recall it is `guess` alone: see `floor`. All are NaN if the metric does not say what a guess gets.
    """

    value: float
    constant: float
    guess: float


def chance_level(metric: str, labels: ArrayLike, classes: Classes) -> ChanceLevel:
    """
    Return what the best constant classifier and guesses get on these labels, exactly.

    For a class's precision and F1 the constant classifier of that class counts: it gets the class's share s, and
    2s / (1 + s). For a class's recall it gets 1, so that no bound could ever clear it; such a claim is kept honest by
    the claims beside it (what one class's recall gains that way, accuracy and the macro averages lose), and its floor
    is what a guesser gets who does not favour the class (NaN of a class without images: no claim on it can hold).
    The floor of loss is for constant probabilities instead of a constant class: the labels' own shares, or uniform.

    >>> chance_level("accuracy", [0, 1, 1, 1], 2)
    ChanceLevel(value=0.75, constant=0.75, guess=0.5)
    >>> chance_level("recall[1]", [0, 1, 1, 1], 2)
    ChanceLevel(value=0.5, constant=1.0, guess=0.5)
    """
    parsed, count = parse(metric, classes), count_classes(classes)
    truth = np.asarray(labels)
    images = confusion_matrix(truth, truth, count).diagonal()
    if not parsed.kind.claimable:
        raise MetricError(
            f"`metric` must be one that a card may claim, got {metric!r}; it says nothing of a classifier"
        )
    if not parsed.kind.has_chance:
        return ChanceLevel(math.nan, math.nan, math.nan)
    if parsed.kind.probabilities and images.any():
        constant = _constant_area(images / images.sum())
        return ChanceLevel(max(constant, 0.5), constant, 0.5)
    if parsed.kind.compares:
        least = parsed.kind.ignorance
        if isinstance(least, str):
            return chance_level(least, labels, classes)
        assert least is not None
        return ChanceLevel(least, least, least)
    if not images.any():
        return ChanceLevel(math.nan, math.nan, math.nan)
    return _of_rate(parsed, tuple(images.tolist()))


@lru_cache(maxsize=256)
def _of_rate(metric: Metric, counts: tuple[int, ...]) -> ChanceLevel:
    """Return the floor of what follows from a confusion matrix, or of loss; once for all claims on the same labels."""
    images, kind, count = np.array(counts), metric.kind, len(counts)
    share = images / images.sum()
    if kind.rate is None:
        some = share[share > 0]
        constant, guess = max(float(-(some * np.log(some)).sum()), 0.0), math.log(count)
        return ChanceLevel(min(constant, guess), constant, guess)
    best = np.nanmax if kind.better == "higher" else np.nanmin
    favoured = metric.name == "recall" and metric.label is not None
    assert kind.guess is not None
    guess, frequent = (kind.guess(images, p, metric.label) for p in (np.full(count, 1 / count), share))
    constants = [_constant(metric, images, label) for label in _constants(metric, images)]
    constant = math.nan if np.isnan(constants).all() else float(best(constants))
    every = [guess] if favoured else [constant, guess, frequent]
    return ChanceLevel(math.nan if np.isnan(every).all() else float(best(every)), constant, guess)


def _constants(metric: Metric, images: NDArray[np.int64]) -> list[int]:
    """Return the classes whose constant classifiers may be the best: of one class's rate that class alone."""
    if metric.label is not None:
        return [metric.label]
    return list(range(len(images))) if len(images) <= MANY else np.unique(images, return_index=True)[1].tolist()


def _constant(metric: Metric, images: NDArray[np.int64], label: int) -> float:
    """Return the rate of the classifier that takes every image for one class."""
    matrix = np.zeros((len(images), len(images)), dtype=np.int64)
    matrix[:, label] = images
    rate = METRICS[metric.name].rate
    assert rate is not None
    return float(rate(matrix, metric.label).value)


def _constant_area(shares: NDArray[np.float64]) -> float:
    """
    Return the micro-averaged area of one who gives every image the labels' own shares as its probabilities.

    >>> _constant_area(np.array([0.25, 0.75])), _constant_area(np.array([0.5, 0.5]))
    (0.75, 0.5)
    """
    wrong = (1 - shares) / (len(shares) - 1)
    above = (shares[:, None] > shares) + 0.5 * (shares[:, None] == shares)
    return float(shares @ above @ wrong)


def lucky_level(metric: str, labels: ArrayLike, classes: Classes) -> float:
    """
    Return the number that a threshold must be beyond, so that no luck of an ignorant classifier reaches it.

    That is the floor and three standard errors of a uniform guess on these labels, but never more than half the way
    from the floor to 1, for a few images must not forbid every claim. Constant probabilities have a loss without
    luck, so for loss it is the floor itself.

    >>> round(lucky_level("accuracy", np.arange(600) % 10, 10), 4)
    0.1367
    """
    parsed, least = parse(metric, classes), chance_level(metric, labels, classes).value
    if parsed.kind.rate is None or math.isnan(least):
        return least
    error = _guess_error(parsed, np.bincount(np.asarray(labels), minlength=count_classes(classes)))
    return min(least + LUCK * error, (1 + least) / 2)


def _guess_error(metric: Metric, images: NDArray[np.int64]) -> float:
    """Return the standard error of a rate under uniform guesses, given how many images each class has."""
    assert metric.kind.rate is not None
    classes = len(images)
    # What guesses give on average, times the number of classes, which makes it whole images.
    expected = np.repeat(images[:, None], classes, axis=1)
    rate = metric.kind.rate(expected, metric.label)
    if rate.gradient is None:
        return math.sqrt(rate.value * (1 - rate.value) * classes / rate.n)
    share = expected / expected.sum()
    centred = rate.gradient - (share * rate.gradient).sum()
    return math.sqrt(float((share * centred**2).sum()) / int(images.sum()))
