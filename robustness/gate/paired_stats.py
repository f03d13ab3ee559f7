"""
How much worse one model is than another on the same images: counts of images, their intervals and p-values.

Of n images `losses` are correct with the baseline and wrong with the candidate, `gains` the reverse; the drop is
(losses − gains) / n. Every array has one number per cell, (cells,).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

STEPS = 50
"""Steps of bisection for the ends of an interval: 2⁻⁵⁰ is below one image's fraction."""
CONTINUITY = 0.5
"""Continuity correction in images: losses − gains changes in steps of one."""


def upper_tail(z: ArrayLike) -> Floats:
    """
    Return the probability that a standard normal number is at least `z`, (cells,).

    >>> upper_tail([0.0, 1.6448536269514722]).round(12).tolist()
    [0.5, 0.05]
    """
    flat = np.asarray(z, dtype=np.float64)
    return np.array([math.erfc(each / math.sqrt(2)) / 2 for each in flat.ravel()]).reshape(flat.shape)


def normal_quantile(alpha: float) -> float:
    """
    Return the value that a standard normal number exceeds with probability `alpha`.

    >>> round(normal_quantile(0.05), 4)
    1.6449
    """
    return NormalDist().inv_cdf(1 - alpha)


def tango_score(losses: ArrayLike, gains: ArrayLike, n: ArrayLike, drop: ArrayLike, side: float = 0.0) -> Floats:
    """
    Return Tango's score of the observed drop if the true one were `drop`, (cells,): about standard normal then.

    The variance is that of the likeliest discordance with that drop (Tango 1998). `side` is 1 if large scores count, −1
    if small ones do: it moves the counts half an image towards the hypothesis. Laud's quadratic correction (2017)
    removes the skewness of the sum; unlike a plain Cornish-Fisher correction it grows with the score. Without both, one
    cell in 11 instead of one in 20 fails if few images differ (docs/gate-errors.md).

    >>> tango_score([30], [10], [1000], [0.0]).round(4).tolist()
    [3.1623]
    """
    b, c, total, d = (np.asarray(value, dtype=np.float64) for value in (losses, gains, n, drop))
    linear = (2 * total - b + c) * d - b - c
    discriminant = linear**2 + 8 * total * c * d * (1 - d)
    gained = np.maximum((np.sqrt(np.maximum(discriminant, 0)) - linear) / (4 * total), 0)
    discordance = 2 * gained + d
    variance = np.maximum(discordance - d**2, 1e-12)
    z = (b - c - total * d - side * CONTINUITY) / np.sqrt(total * variance)
    third = d - 3 * d * discordance + 2 * d**3
    return _without_skewness(z, third / variance**1.5 / np.sqrt(total))


def _without_skewness(z: Floats, skewness: Floats) -> Floats:
    small = np.abs(skewness) < 1e-9
    slope = np.where(small, 1.0, skewness) / 3
    root = np.sqrt(np.maximum(1 + 2 * slope * (z + slope / 2), 0))
    return np.where(small, z, (root - 1) / slope)


def p_exceeds_margin(losses: ArrayLike, gains: ArrayLike, n: ArrayLike, margin: ArrayLike) -> Floats:
    """
    Return the p-value of "the drop is no more than the margin", (cells,): small if it is significantly more.

    >>> p_exceeds_margin([60], [20], [1000], [0.02]).round(3).tolist()
    [0.013]
    """
    return upper_tail(tango_score(losses, gains, n, margin, 1.0))


def p_within_margin(losses: ArrayLike, gains: ArrayLike, n: ArrayLike, margin: ArrayLike) -> Floats:
    """
    Return the p-value of "the drop is the margin or more", (cells,): small if it is significantly less.

    >>> p_within_margin([20], [20], [1000], [0.02]).round(4).tolist()
    [0.0019]
    """
    return upper_tail(-tango_score(losses, gains, n, margin, -1.0))


def interval(losses: ArrayLike, gains: ArrayLike, n: ArrayLike, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """
    Bound the drop on each side with error `alpha`, (cells,) twice.

    These are the drops that `p_exceeds_margin` and `p_within_margin` do not reject.

    >>> low, high = interval([30], [10], [1000])
    >>> print(f"{low[0]:.4f} {high[0]:.4f}")
    0.0094 0.0315
    """
    z = normal_quantile(alpha)
    b, c, total = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (losses, gains, n)))
    seen = (b - c) / total

    def end(side: float) -> Floats:
        near, far = seen.copy(), np.full(seen.shape, -side)
        for _ in range(STEPS):
            middle = (near + far) / 2
            rejected = side * tango_score(b, c, total, middle, side) > z
            near, far = np.where(rejected, near, middle), np.where(rejected, middle, far)
        midpoint: Floats = (near + far) / 2
        return midpoint

    return end(1.0), end(-1.0)


def mcnemar(losses: ArrayLike, gains: ArrayLike) -> Floats:
    """
    Return the exact p-value of "no drop at all", two-sided, (cells,): of the images that differ, half go each way.

    >>> mcnemar([8, 0], [1, 0]).round(4).tolist()
    [0.0391, 1.0]
    """
    fewer = np.minimum(losses, gains).astype(np.int64)
    both = np.asarray(losses, dtype=np.int64) + np.asarray(gains, dtype=np.int64)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, int(both.max(initial=0)) + 1)))])
    tails = [
        float(np.exp(logs[m] - logs[: k + 1] - logs[m - np.arange(k + 1)] - m * math.log(2)).sum())
        for k, m in zip(fewer.ravel(), both.ravel(), strict=True)
    ]
    p: Floats = np.minimum(2 * np.array(tails), 1.0).reshape(both.shape)
    return p


def holm(p_values: ArrayLike) -> Floats:
    """
    Correct p-values by Holm's procedure, (cells,): the probability of any false alarm stays α.

    >>> holm([0.01, 0.5, 0.02]).tolist()
    [0.03, 0.5, 0.04]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
