"""What a classifier that knows nothing gets: a claim that it passes is a claim that cannot fail."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.measures.confusion import confusion_matrix
from robustness.measures.metrics import Classes, Metric, MetricError, count_classes, parse


class Floor(NamedTuple):
    """
    The number that a claim has to beat, and the two that it comes from.

    `constant` is the best of the classifiers that give every image the same class, `guess` the expectation of one that
    guesses uniformly at random, over the guesses for which the metric is defined. `value` is the better of the two:
    the larger one, for loss the smaller. Of one class's recall it is `guess` alone: see `floor`.
    """

    value: float
    constant: float
    guess: float


def floor(metric: str, labels: ArrayLike, classes: Classes) -> Floor:
    """
    Compute what the best constant classifier and a uniform guess get on these labels, exactly.

    For a class's precision and F1 the constant classifier of that class counts: it gets the class's share s, and
    2s / (1 + s). For a class's recall it gets 1, so that no bound could ever clear it; such a claim is kept honest by
    the claims beside it (what one class's recall gains that way, accuracy and the macro averages lose), and its floor
    is what a guesser gets who does not favour the class (NaN of a class without images: no claim on it can hold).
    The floor of loss is for constant probabilities instead of a constant class: the labels' own shares, or uniform.

    >>> floor("accuracy", [0, 1, 1, 1], 2)
    Floor(value=0.75, constant=0.75, guess=0.5)
    >>> floor("recall[1]", [0, 1, 1, 1], 2)
    Floor(value=0.5, constant=1.0, guess=0.5)
    """
    parsed, count = parse(metric, classes), count_classes(classes)
    truth = np.asarray(labels)
    images = confusion_matrix(truth, truth, count).diagonal()
    if not parsed.kind.claimable:
        raise MetricError(
            f"`metric` must be one that a card may claim, got {metric!r}; it says nothing of a classifier"
        )
    if parsed.kind.probabilities and images.any():
        constant = _constant_area(images / images.sum())
        return Floor(max(constant, 0.5), constant, 0.5)
    if parsed.kind.compares:
        least = parsed.kind.ignorance
        return floor("accuracy", labels, classes) if least is None else Floor(least, least, least)
    if not images.any():
        return Floor(math.nan, math.nan, math.nan)
    if parsed.kind.rate is None:
        share = images[images > 0] / images.sum()
        constant, guess = max(float(-(share * np.log(share)).sum()), 0.0), math.log(count)
        return Floor(min(constant, guess), constant, guess)
    matrix = np.zeros((count, count), dtype=np.int64)
    # Every rate of a constant classifier grows with the share of its class: the commonest class is the best.
    matrix[:, int(images.argmax()) if parsed.label is None else parsed.label] = images
    constant, guess = parsed.kind.rate(matrix, parsed.label).value, _guess(parsed, images)
    favoured = parsed.name == "recall" and parsed.label is not None
    return Floor(guess if favoured else max(constant, guess), constant, guess)


def _constant_area(shares: NDArray[np.float64]) -> float:
    """
    Give the micro-averaged area of one who gives every image the labels' own shares as its probabilities.

    >>> _constant_area(np.array([0.25, 0.75])), _constant_area(np.array([0.5, 0.5]))
    (0.75, 0.5)
    """
    wrong = (1 - shares) / (len(shares) - 1)
    above = (shares[:, None] > shares) + 0.5 * (shares[:, None] == shares)
    return float(shares @ above @ wrong)


def _guess(metric: Metric, images: NDArray[np.int64]) -> float:
    """Expect a rate of uniform guesses, given how many images each class has."""
    classes, n, present = len(images), int(images.sum()), int((images > 0).sum())
    share, label = images / n, metric.label
    if metric.name == "recall":
        if label is not None:
            return 1 / classes if images[label] else math.nan
        return present / classes**2
    if metric.name == "precision":
        # Given m predictions of a class, of which the class's share are right on average; none at all counts 0.
        return float(share[label]) if label is not None else (1 - (1 - 1 / classes) ** n) / classes
    if metric.name == "f1":
        expected = [_guessed_f1(size, n, classes) for size in (images if label is None else images[[label]]).tolist()]
        return math.fsum(expected) / len(expected)
    return 1 / classes  # accuracy, which the micro averages are, and balanced accuracy


def _guessed_f1(images: int, n: int, classes: int) -> float:
    """Sum 2·(m·images/n) / (images + m) over the binomially many predictions m of the class."""
    if classes == 1 or images == 0:
        return float(images > 0)
    m, chance = _binomial(n, classes)
    return float((chance * 2 * m * images / n / (images + m)).sum())


@lru_cache(maxsize=8)
def _binomial(n: int, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give how many of n guesses may fall on one class, and the chance of each number; in logarithms, for large n."""
    m = np.arange(n + 1.0)
    factorial = np.concatenate([[0.0], np.cumsum(np.log(m[1:]))])
    ways = factorial[n] - factorial - factorial[::-1]
    chance = np.exp(ways - m * math.log(classes) + (n - m) * math.log1p(-1 / classes))
    likely = chance > 1e-20
    return m[likely], chance[likely]
