"""Intervals of a measured rate or mean, and the images that a rate lacks; `math`, `statistics` and NumPy only."""

from __future__ import annotations

import math
import operator
from statistics import NormalDist
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """The two ends of a confidence interval; both are NaN if nothing was measured."""

    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


def quantile(confidence: float) -> float:
    """
    Return the number of standard deviations that hold `confidence` of a normal distribution, half on each side.

    >>> round(quantile(0.95), 4)
    1.96
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, got {confidence:g}; write 0.95 for 95 %")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(successes: SupportsIndex, n: SupportsIndex, confidence: float = 0.95) -> Interval:
    """
    Bound the rate behind `successes` of `n` images by Wilson's score interval.

    n = 0 returns NaN at both ends, with which no comparison holds.

    >>> low, high = wilson(971, 1000)
    >>> print(f"{low:.4f} {high:.4f}")
    0.9587 0.9797
    """
    successes, n = _counts(successes, n)
    z = quantile(confidence)
    if n == 0:
        return UNKNOWN
    return _score(successes, n, z)


def half_width(n: int, rate: float, confidence: float = 0.95) -> float:
    """
    Return the precision of a rate from `n` images: half the width of Wilson's interval around the fraction `rate`.

    >>> print(f"{half_width(1000, 0.9):.4f}")
    0.0186
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}; use at least one image")
    if not 0 <= rate <= 1:
        raise ValueError(f"`rate` must lie in [0, 1], got {rate:g}; write 0.9 for 90 %")
    low, high = _score(rate * n, n, quantile(confidence))
    return (high - low) / 2


def sample_size_for(margin: float, rate: float, confidence: float = 0.95) -> int:
    """
    Return the smallest number of images whose `half_width` is at most `margin`.

    >>> sample_size_for(0.02, 0.9)
    868
    """
    if not 0 < margin < 1:
        raise ValueError(f"`margin` must lie between 0 and 1, got {margin:g}; write 0.02 for ± 2 points")
    low, high = 0, 1
    while half_width(high, rate, confidence) > margin:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if half_width(middle, rate, confidence) > margin else (low, middle)
    return high


def delta(
    counts: NDArray[Any],
    gradient: NDArray[Any],
    estimate: float,
    confidence: float = 0.95,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """
    Bound a rate that is a smooth function of the cell probabilities p of a multinomial sample by the delta method.

    `gradient` holds the rate's derivative by each cell's probability at p = counts / n. The rate's variance,
    (Σ p g² − (Σ p g)²) / n, says how many images would give a plain share the same variance, and Wilson's formula turns
    that number into an interval. So it stays in [0, 1], and a plain share gets `wilson`'s. (The usual form, estimate
    ± z·σ, put its lower end above the truth in 9 of 100 runs at a macro rate of 0.995 and n = 600; 2.5 are meant.)

    A variance of zero, as of a perfect confusion matrix, is no certainty, only cells that were never drawn: then it is
    n divided by the steepest gradient, which for a share of some images is the number of these.

    A number with other `limits` than 0 and 1 is scaled to these, and its interval back.

    >>> low, high = delta(np.array([90, 10]), np.array([1.0, 0.0]), 0.9)
    >>> print(f"{low:.4f} {high:.4f}")
    0.8256 0.9448
    """
    z = quantile(confidence)
    if counts.shape != gradient.shape:
        raise ValueError(f"`gradient` must have one number per cell,  {counts.shape}, got {gradient.shape}")
    if limits != (0.0, 1.0):
        least, width = limits[0], limits[1] - limits[0]
        if not 0 < width < math.inf:
            raise ValueError(f"`limits` must be two finite numbers in order, got {limits}; use another interval")
        low, high = delta(counts, gradient / width, (estimate - least) / width, confidence)
        return Interval(least + width * low, least + width * high)
    n = int(counts.sum())
    if n == 0 or math.isnan(estimate):
        return UNKNOWN
    share = counts / n
    centred = gradient - (share * gradient).sum()  # before squaring, so that nothing cancels
    variance, steepest = float((share * centred**2).sum()) / n, float(abs(centred).max())
    if steepest <= 1e-12 * float(abs(gradient).max()):
        return Interval(estimate, estimate)  # the same slope for every cell: the rate cannot change, as with one class
    unseen = variance * n <= 1e-20 * steepest**2  # zero but for rounding; one image in 10¹⁰ gives more
    images = n / steepest if unseen else estimate * (1 - estimate) / variance
    return _score(estimate * images, images, z)


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """
    Bound the mean behind `values` by the normal approximation, mean ± z·s/√n.

    Fewer than two values, or an infinite one, have no spread to go by: NaN at both ends.

    >>> low, high = mean_interval([1.0, 2.0, 3.0])
    >>> print(f"{low:.4f} {high:.4f}")
    0.8684 3.1316
    """
    z = quantile(confidence)
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size < 2 or not np.isfinite(numbers).all():
        return UNKNOWN
    mean, half = float(numbers.mean()), z * float(numbers.std(ddof=1)) / math.sqrt(numbers.size)
    return Interval(mean - half, mean + half)


def missing_successes(successes: SupportsIndex, n: SupportsIndex, threshold: float) -> int:
    """
    Count how many more of `n` images would have had to be right for the rate to reach `threshold`.

    The rate reaches it when ``k / n >= threshold``, the comparison that a claim makes. Division rounds correctly, so
    0.07 is reached by 7 of 100, although ``0.07 * 100`` is above 7.

    >>> missing_successes(560, 600, 0.95)
    10
    >>> missing_successes(7, 100, 0.07)
    0
    """
    successes, n = _counts(successes, n)
    if n == 0:
        raise ValueError("`n` must be at least 1, got 0; use at least one image")
    if not 0 <= threshold <= 1:
        raise ValueError(f"`threshold` must lie in [0, 1], got {threshold:g}; write 0.95 for 95 %")
    needed = max(math.floor(threshold * n) - 1, 0)  # the product may be off by one ulp: start below, count up
    while needed / n < threshold:
        needed += 1
    return max(needed - successes, 0)


def _score(successes: float, n: float, z: float) -> Interval:
    """Solve |rate − successes / n| = z·√(rate·(1 − rate) / n) for the rate; the counts may be fractions."""
    centre = successes + z * z / 2
    half = z * math.sqrt(max(successes * (n - successes) / n, 0.0) + z * z / 4)
    low = max(centre - half, 0.0) / (n + z * z)
    return Interval(low, 1.0 if successes == n else min((centre + half) / (n + z * z), 1.0))


def _counts(successes: SupportsIndex, n: SupportsIndex) -> tuple[int, int]:
    """Check a count and its denominator; a fraction is a TypeError."""
    successes, n = operator.index(successes), operator.index(n)
    if not 0 <= successes <= n:
        raise ValueError(f"`successes` must lie in 0 to n = {n}, got {successes}; count both on the same images")
    return successes, n
