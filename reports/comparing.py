"""Whether two systems differ over the folds: an F-test of equal variances, then Welch's t-test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Compared(NamedTuple):
    """The p-values of both tests, two-sided; NaN where the folds cannot tell."""

    variances: float
    means: float


def compared(one: Sequence[float], other: Sequence[float]) -> Compared:
    """
    Compare two systems by one number a fold each.

    >>> found = compared([0.90, 0.91, 0.92], [0.80, 0.82, 0.81])
    >>> round(found.means, 4), round(found.variances, 4)
    (0.0003, 1.0)
    """
    from scipy import stats

    first, second = np.asarray(one, float), np.asarray(other, float)
    if min(len(first), len(second)) < 2:
        return Compared(math.nan, math.nan)
    spread = first.var(ddof=1), second.var(ddof=1)
    if not all(spread):
        return Compared(math.nan, math.nan)
    ratio = stats.f(len(first) - 1, len(second) - 1).cdf(spread[0] / spread[1])
    return Compared(float(2 * min(ratio, 1 - ratio)), float(stats.ttest_ind(first, second, equal_var=False).pvalue))


def paired(one: Sequence[float], other: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """
    Return the t interval of the mean difference of two systems that share folds; NaN where there are fewer than two.

    >>> low, high = paired([0.90, 0.91, 0.92], [0.80, 0.82, 0.81])
    >>> round(low, 3), round(high, 3)
    (0.075, 0.125)
    """
    from scipy import stats

    less = np.asarray(one, float) - np.asarray(other, float)
    if len(less) < 2:
        return math.nan, math.nan
    half = stats.t.ppf((1 + confidence) / 2, len(less) - 1) * less.std(ddof=1) / math.sqrt(len(less))
    return float(less.mean() - half), float(less.mean() + half)
