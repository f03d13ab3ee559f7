"""What a classifier that knows nothing gets: a claim that it passes is a claim that cannot fail."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from robustness.metrics.confusion import confusion_matrix
from robustness.metrics.metric import UNKNOWN_CHANCE, ChanceLevel, Metric, MetricError
from robustness.metrics.rate_metric import guess_error
from robustness.metrics.registry import Classes, count_classes, parse

LUCK = 3.0
"""Standard errors of a guess by which a threshold must clear the chance level."""


def chance_level(metric: str, labels: ArrayLike, classes: Classes) -> ChanceLevel:
    """
    Return the exact value of the best constant classifier and of guessing on these labels; NaN if unknown.

    For precision and F1 of one class the constant classifier of that class counts: it reaches the class's share s, and
    2s / (1 + s). For recall of one class it reaches 1, which no threshold could exceed: there the level is that of
    uniform guessing, and the claims on accuracy and macro averages catch a classifier that favours the class (NaN for a
    class without images: no claim on it can pass). For loss, constant probabilities replace the constant class: the
    labels' shares, or uniform.

    >>> chance_level("accuracy", [0, 1, 1, 1], 2)
    ChanceLevel(value=0.75, constant=0.75, guess=0.5)
    >>> chance_level("recall[1]", [0, 1, 1, 1], 2)
    ChanceLevel(value=0.5, constant=1.0, guess=0.5)
    """
    reference, count = parse(metric, classes), count_classes(classes)
    truth = np.asarray(labels)
    images = confusion_matrix(truth, truth, count).diagonal()
    if not reference.metric.claimable:
        raise MetricError(
            f"`metric` must be one that a card may claim, got {metric!r}, which does not measure a classifier"
        )
    return _level(reference.metric, reference.label, tuple(images.tolist()))


@lru_cache(maxsize=256)
def _level(metric: Metric, label: int | None, images: tuple[int, ...]) -> ChanceLevel:
    """Return a metric's chance level; cached for all claims on the same labels."""
    return UNKNOWN_CHANCE if metric.chance_level is None else metric.chance_level(np.array(images), label)


def lucky_level(metric: str, labels: ArrayLike, classes: Classes) -> float:
    """
    Return the value that a threshold must exceed, so that guessing does not reach it by luck.

    It is the chance level plus three standard errors of uniform guessing on these labels, but at most halfway from the
    chance level to the best value: few images must not forbid every claim. For a metric that does not follow from a
    confusion matrix it is the chance level itself.

    >>> round(lucky_level("accuracy", np.arange(600) % 10, 10), 4)
    0.1367
    """
    known, label = (reference := parse(metric, classes)).metric, reference.label
    level = chance_level(metric, labels, classes).value
    if known.rate is None or math.isnan(level):
        return level
    luck = LUCK * guess_error(known.rate, np.bincount(np.asarray(labels), minlength=count_classes(classes)), label)
    least, most = known.limits
    if known.better == "lower":
        return max(level - luck, (least + level) / 2)
    return min(level + luck, (most + level) / 2)
