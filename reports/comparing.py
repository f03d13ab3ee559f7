"""Tests of whether two systems differ over the folds: an F-test of equal variances, Welch's t-test, a t interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Comparison(NamedTuple):
    """The two-sided p-values of both tests; NaN if there are too few folds or they do not vary."""

    variances: float
    means: float


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare two systems by one number per fold."""
    from scipy import stats

    if min(len(first), len(second)) < 2 or not (np.var(first) and np.var(second)):
        return Comparison(math.nan, math.nan)
    ratio = stats.f(len(first) - 1, len(second) - 1).cdf(np.var(first, ddof=1) / np.var(second, ddof=1))
    return Comparison(float(2 * min(ratio, 1 - ratio)), float(stats.ttest_ind(first, second, equal_var=False).pvalue))


def paired_interval(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """
    Return the t interval of the mean difference of two systems that share folds; NaN for fewer than two folds.

    >>> low, high = paired_interval([0.90, 0.91, 0.92], [0.80, 0.82, 0.81])
    >>> round(low, 3), round(high, 3)
    (0.075, 0.125)
    """
    from scipy import stats

    differences = np.asarray(first, float) - np.asarray(second, float)
    if len(differences) < 2:
        return math.nan, math.nan
    quantile = stats.t.ppf((1 + confidence) / 2, len(differences) - 1)
    half = quantile * differences.std(ddof=1) / math.sqrt(len(differences))
    return float(differences.mean() - half), float(differences.mean() + half)
