"""
Is a difference larger than retraining would explain? Statistics on summaries of k accepted retrainings, (k, summaries),
and one more.

A smaller summary is worse.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ENOUGH = 5
"""Minimum of accepted retrainings for a decision."""

WIDENING = 1.7
"""
Factor of the t bound's distance from the mean. Seeds are skewed and have outliers, for which Student's t alone rejects
up to 17 % of healthy retrainings at α = 5 %; widened, at most 5 % for up to eight independent summaries
(docs/gate-errors.md).
"""


def t_quantile(alpha: float, freedom: int) -> float:
    """
    Return the value that Student's t with `freedom` degrees exceeds with probability `alpha`, at most 0.5.

    >>> round(t_quantile(0.05, 4), 4), round(t_quantile(0.025, 19), 4)
    (2.1318, 2.093)
    """
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > alpha:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > alpha else (low, middle)
    return (low + high) / 2


def t_tail(t: float, freedom: int) -> float:
    """
    Return the probability that Student's t with a whole number of degrees of freedom is at least `t`, 0 or more.

    Abramowitz and Stegun 26.7.3 and 26.7.4: a finite sum in the angle whose tangent is t / √freedom.

    >>> round(t_tail(2.776445, 4), 6), round(t_tail(0.0, 7), 6)
    (0.025, 0.5)
    """
    angle = math.atan2(math.sqrt(freedom), t)  # for the tail, sine and cosine are exchanged
    sine, cosine, odd = math.cos(angle), math.sin(angle), freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for step in range(2 if odd else 1, freedom, 2):
        total += term
        term *= cosine**2 * step / (step + 1)
    if odd:
        return (angle - sine * total) / math.pi
    return (1 - sine * total) / 2


def prediction_bounds(accepted: Floats, alpha: float, least: float = 0.0, widening: float = WIDENING) -> Floats:
    """
    Return the one-sided prediction bound of each summary for one more retraining, (summaries,).

    α is divided among the summaries (Bonferroni), and the distance from the mean is multiplied by `widening`. `least`
    is the smallest spread to assume, such as one image: five retrainings that agree by chance must not reject a sixth
    that differs in one image.

    >>> prediction_bounds(np.array([[0.97], [0.98], [0.96], [0.97], [0.97]]), 0.05).round(4).tolist()
    [0.9419]
    """
    k, summaries = accepted.shape
    spread = np.maximum(accepted.std(axis=0, ddof=1), least)
    distance = widening * t_quantile(alpha / summaries, k - 1) * spread * math.sqrt(1 + 1 / k)
    bounds: Floats = accepted.mean(axis=0) - distance
    return bounds


def worst_standardized_shortfall(values: Floats) -> Floats:
    """
    Return the largest shortfall of each of k + 1 retrainings below their mean, in standard deviations, (k + 1,).

    Mean and deviation include the candidate, so that all are exchangeable, which is all that a p-value by rank assumes.
    A summary that is equal for all is ignored.

    >>> worst_standardized_shortfall(np.array([[0.9, 0.5], [0.8, 0.5], [0.7, 0.5]])).tolist()
    [0.0, 0.0, 1.0]
    """
    below, spread = values.mean(axis=0) - values, values.std(axis=0, ddof=1)
    same = spread <= 1e-12
    worst: Floats = np.where(same, 0.0, below / np.where(same, 1.0, spread)).max(axis=1).round(9)
    return np.maximum(worst, 0.0)


def rank_p_value(accepted: Floats, candidate: Floats) -> float:
    """
    Return the fraction of k + 1 retrainings, including the candidate, whose shortfall is at least the candidate's.

    >>> rank_p_value(np.linspace(0.9, 0.99, 19)[:, None], np.array([0.8]))
    0.05
    """
    shortfalls = worst_standardized_shortfall(np.vstack([candidate, accepted]))
    return float((shortfalls >= shortfalls[0]).mean())


def rank_test_possible(k: int, alpha: float) -> bool:
    """
    Return whether a rank among k + 1 can reach `alpha`.

    >>> rank_test_possible(19, 0.05), rank_test_possible(18, 0.05)
    (True, False)
    """
    return 1 <= alpha * (k + 1) * (1 + 1e-12)


def detectable_drop_by_rank(accepted: Floats, alpha: float) -> Floats:
    """
    Return the drop of one summary alone below the accepted mean that fails the rank test, (summaries,), or NaN.

    >>> detectable_drop_by_rank(np.linspace(0.9, 0.99, 19)[:, None], 0.05).round(3).tolist()
    [0.045]
    """
    centre, drops = accepted.mean(axis=0), np.empty(accepted.shape[1])
    for summary in range(accepted.shape[1]):

        def fails(drop: float, at: int = summary) -> bool:
            return rank_p_value(accepted, centre - drop * (np.arange(len(centre)) == at)) <= alpha * (1 + 1e-12)

        low, high = 0.0, 1.0
        if not fails(high):
            drops[summary] = math.nan
            continue
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (low, middle) if fails(middle) else (middle, high)
        drops[summary] = high
    return drops
