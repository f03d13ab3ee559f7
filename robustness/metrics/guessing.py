"""
The expected rates of a guesser that predicts class c with probability ``guessed[c]`` for every image.

Each takes how many images every class has, (K,), these probabilities, (K,), and the class whose rate it is, or None.
A new metric brings its own (`MetricKind.guess`).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def accuracy(images: Counts, guessed: Floats, label: int | None) -> float:
    """
    Return the expected accuracy, which equals the micro averages.

    >>> accuracy(np.array([1, 3]), np.array([0.5, 0.5]), None)
    0.5
    """
    return float(images @ guessed) / int(images.sum())


def balanced_accuracy(images: Counts, guessed: Floats, label: int | None) -> float:
    """Return the expected mean recall of the classes that have images."""
    return float(guessed[images > 0].mean())


def recall(images: Counts, guessed: Floats, label: int | None) -> float:
    """Return the expected recall of a class, or its mean over all classes, in which a class without images counts 0."""
    if label is not None:
        return float(guessed[label]) if images[label] else math.nan
    return float(guessed[images > 0].sum()) / len(images)


def precision(images: Counts, guessed: Floats, label: int | None) -> float:
    """Return the expected precision: a class's share; in an average, a class without predictions counts 0."""
    n = int(images.sum())
    if label is not None:
        return float(images[label]) / n
    return float((images / n) @ (1 - (1 - guessed) ** n)) / len(images)


def f1(images: Counts, guessed: Floats, label: int | None) -> float:
    """Return the expected F1: 2·(m·images/n) / (images + m), summed over the binomially many predictions m."""
    n = int(images.sum())
    pairs = list(zip(images.tolist(), guessed.tolist(), strict=True))
    chosen = pairs if label is None else [pairs[label]]
    of = {pair: _f1(*pair, n) for pair in set(chosen)}
    return math.fsum(of[pair] for pair in chosen) / len(chosen)


def _f1(images: int, guessed: float, n: int) -> float:
    if images == 0 or guessed == 0:
        return 0.0
    if guessed == 1:
        return 2 * images / (images + n)
    m, chance = _binomial(n, guessed)
    return float((chance * 2 * m * images / n / (images + m)).sum())


@lru_cache(maxsize=64)
def _binomial(n: int, p: float) -> tuple[Floats, Floats]:
    """Return the possible numbers of predictions of one class, and their probabilities, computed by logarithms."""
    m = np.arange(n + 1.0)
    factorial = np.concatenate([[0.0], np.cumsum(np.log(m[1:]))])
    ways = factorial[n] - factorial - factorial[::-1]
    chance = np.exp(ways + m * math.log(p) + (n - m) * math.log1p(-p))
    likely = chance > 1e-20
    return m[likely], chance[likely]
