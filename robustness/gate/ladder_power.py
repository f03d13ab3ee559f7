"""The power of a gate on critical strengths: the drop it detects, and the images it needs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.gate import ladder_stats
from robustness.gate.paired_stats import normal_quantile
from robustness.gate.power import POWER

Floats = NDArray[np.float64]

HALVINGS = 40
"""Steps of bisection: for a tilt, a drop, and for the logarithm of a number of images."""
STEEPEST = 1000.0
"""Largest tilt: it moves all weight to an end of a ladder of a hundred strengths."""
MOST = 1e9
"""Upper limit for a recommended number of images."""


def required_sample_size(
    counts: ArrayLike, values: ArrayLike, margin: float, alpha: float = 0.05, tests: int = 1, power: float = POWER
) -> float:
    """
    Return how many images decide with at least probability `power` if the true rates are the observed ones.

    `counts`, (values,), say how many images have each drop of `values`. A mean drop below the margin is decided by a
    pass, which is not corrected; one above it by a failure, which is corrected for `tests` by Bonferroni. Infinite if
    the drop equals the margin.

    >>> required_sample_size([10, 980, 10], [-1, 0, 1], 0.02)
    461.0
    """
    images = np.asarray(counts, np.float64)
    seen = float(images @ np.asarray(values, np.float64) / images.sum())
    if math.isclose(seen, margin, abs_tol=1e-12):
        return math.inf
    level = alpha / tests if seen > margin else alpha
    low, high = 0.0, math.log(MOST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if decided(counts, values, seen, margin, math.exp(middle), level, power) else (middle, high)
        )
    return float(np.ceil(math.exp(high) - 1e-6))


def detectable_drop(
    counts: ArrayLike, values: ArrayLike, margin: float, alpha: float = 0.05, tests: int = 1, power: float = POWER
) -> float:
    """
    Return the true mean drop that exceeds the margin significantly with at least probability `power`.

    On as many images as were counted.

    >>> round(detectable_drop([10, 980, 10], [-1, 0, 1], 0.02), 3)
    0.036
    """
    n, low, high = float(np.sum(counts)), margin, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if decided(counts, values, middle, margin, n, alpha / tests, power) else (middle, high)
        )
    return high


def decided(
    counts: ArrayLike, values: ArrayLike, drop: float, margin: float, n: float, alpha: float, power: float = POWER
) -> bool:
    """
    Return whether `n` images decide with at least probability `power` at a true mean drop.

    The observed drops and one image more, half of it at either end (none observed does not prove that there is none),
    are tilted exponentially to the true mean. The gate's own test is then evaluated at the composition that is expected
    when the mean comes out at the quantile of an unlucky test set.
    """
    of = np.asarray(values, np.float64)
    share = np.asarray(counts, np.float64) + (of == 1) / 2 + (of == -1) / 2
    true = _tilted(share, of, drop)
    spread = math.sqrt(float(true @ (of - drop) ** 2) / n)
    side = 1 if drop > margin else -1
    unlucky = drop - side * normal_quantile(1 - power) * spread
    if abs(unlucky) >= 1:
        return False
    p = ladder_stats.p_exceeds_margin if side > 0 else ladder_stats.p_within_margin
    return bool(p(n * _tilted(share, of, unlucky), of, margin) <= alpha)


def _tilted(share: Floats, values: Floats, mean: float) -> Floats:
    """Return the weights proportional to share·exp(θ·values), (values,), with this mean."""
    low, high = -STEEPEST, STEEPEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        weights = share * np.exp(middle * values - abs(middle))
        low, high = (middle, high) if weights @ values < mean * weights.sum() else (low, middle)
    tilted: Floats = weights / weights.sum()
    return tilted
