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
    Return what the best constant classifier and guesses get on these labels, exactly; NaN if the metric does not know.

    For a class's precision and F1 the constant classifier of that class counts: it gets the class's share s, and
    2s / (1 + s). For a class's recall it gets 1, so that no bound could ever clear it; such a claim is kept honest by
    the claims beside it (what one class's recall gains that way, accuracy and the macro averages lose), and its level
    is what a guesser gets who does not favour the class (NaN of a class without images: no claim on it can hold).
    That of loss is for constant probabilities instead of a constant class: the labels' own shares, or uniform.

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
    """Return a metric's chance level; once for all claims on the same labels."""
    return UNKNOWN_CHANCE if metric.chance_level is None else metric.chance_level(np.array(images), label)


def lucky_level(metric: str, labels: ArrayLike, classes: Classes) -> float:
    """
    Return the number that a threshold must be beyond, so that no luck of an ignorant classifier reaches it.

    That is the chance level and three standard errors of a uniform guess on these labels, but never more than half the
    way from the chance level to the best value, for a few images must not forbid every claim. Constant probabilities
    have a loss without luck, so for what follows from no confusion matrix it is the chance level itself.

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
