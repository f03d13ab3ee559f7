"""The power of a gate: the drop it detects, the images it needs, how often it passes an equal model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.gate import ladder_stats
from robustness.gate.paired_stats import CONTINUITY, interval, normal_quantile, tango_score

Floats = NDArray[np.float64]

POWER = 0.8
"""Probability with which a stated drop is detected, or a question decided."""
MOST = 1e18
"""Upper limit for a recommended number of images."""
HALVINGS = 50
"""Of bisection: for a drop, and for the logarithm of a number of images."""
EXCHANGES = 200
"""Permutations that estimate how often a gate passes an equal model."""


def detectable_drop(
    margin: ArrayLike, discordance: ArrayLike, n: ArrayLike, alpha: float = 0.05, tests: int = 1, power: float = POWER
) -> Floats:
    """
    Return the true drop that significantly exceeds the margin with at least probability `power`, (cells,).

    `discordance` is the fraction of images that exactly one of the models classifies correctly; the larger drop itself
    counts towards it. `tests` are corrected for by Bonferroni, which Holm's steps never fall below.

    >>> detectable_drop([0.02], [0.05], [10_000]).round(4).tolist()
    [0.0256]
    """
    low, shared, total = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in (margin, discordance, n)))
    high = np.ones(low.shape)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        shown = decided(middle, margin, np.maximum(shared, middle), total, alpha / tests, power)
        low, high = np.where(shown, low, middle), np.where(shown, middle, high)
    return high


def required_sample_size(
    drop: ArrayLike,
    margin: ArrayLike,
    discordance: ArrayLike,
    alpha: ArrayLike = 0.05,
    power: float = POWER,
    tests: int = 1,
) -> Floats:
    """
    Return how many images decide with at least probability `power` if the true rates are the observed ones, (cells,).

    A drop below the margin is decided by a pass, which is not corrected; one above it by a failure, which is corrected
    for `tests` by Bonferroni. Infinite if the drop equals the margin: no number of images decides that.

    >>> required_sample_size([0.0, 0.02], 0.02, 0.05).tolist()
    [909.0, inf]
    """
    arrays = (np.asarray(value, np.float64) for value in (drop, margin, discordance))
    seen, accepted, shared = np.broadcast_arrays(*arrays)
    level = np.asarray(alpha, np.float64) / np.where(seen > accepted, tests, 1)
    low, high = np.zeros(seen.shape), np.full(seen.shape, math.log(MOST))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = decided(seen, accepted, shared, np.exp(middle), level, power)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(np.isclose(seen, accepted, rtol=0, atol=1e-12), math.inf, np.ceil(np.exp(high) - 1e-6))


def decided(
    drop: ArrayLike, margin: ArrayLike, discordance: ArrayLike, n: ArrayLike, alpha: ArrayLike, power: float = POWER
) -> NDArray[np.bool_]:
    """
    Return whether `n` images decide with at least probability `power` at these true rates, (cells,).

    The gate's own score is evaluated at the corresponding quantile of the outcome. Losses less gains are about normal;
    added to their spread is what the test's own estimate of the discordance varies, and half an image, for they move in
    whole ones. (The textbook's formula, (z_α + z_β)²·σ² / (margin − drop)², leaves out continuity, skewness and that
    the variance is that at the margin: what it promised at 80 % decided in 3 to 80 of 100 cases.)
    """
    arrays = (np.asarray(value, np.float64) for value in (drop, margin, discordance, n, alpha))
    true, accepted, shared, total, level = np.broadcast_arrays(*arrays)
    side = np.where(true > accepted, 1.0, -1.0)
    z, unlucky = _quantiles(level), normal_quantile(1 - power)
    variance = np.maximum(shared - true**2, 1e-12)
    spread = np.sqrt(total * variance + (z / 2) ** 2 * np.minimum(total * shared, 1))
    net = total * true - side * (unlucky * spread + CONTINUITY)
    differing = total * shared + true * (1 - shared) / variance * (net - total * true)  # expected beside that outcome
    differing = np.maximum(differing, np.abs(net))
    losses, gains = (differing + net) / 2, (differing - net) / 2
    fits = differing <= total
    losses, gains = np.where(fits, losses, 0.0), np.where(fits, gains, 0.0)
    decisions = np.where(
        side > 0, tango_score(losses, gains, total, accepted, 1.0), -tango_score(losses, gains, total, accepted, -1.0)
    )
    decisive: NDArray[np.bool_] = fits & (decisions >= z)
    return decisive


def _quantiles(alpha: Floats) -> Floats:
    """Return `normal_quantile` of each level; a gate has one or two."""
    levels, place = np.unique(alpha, return_inverse=True)
    return np.array([normal_quantile(float(level)) for level in levels])[place].reshape(alpha.shape)


def pass_rate_if_equal(
    changes: NDArray[np.integer[Any]],
    n: NDArray[np.int64],
    margin: ArrayLike,
    alpha: float,
    exchanges: int = EXCHANGES,
    steps: Sequence[int] = (),
) -> float:
    """
    Return how often a model as good as the baseline passes in all cells at once, on images that differ like these.

    `changes`, (cells, images), are 1 for a loss, −1 for a gain, else 0. If the two models are equal, each image might
    equally have exchanged them. So images are exchanged at random, in all cells together, and the gate is evaluated
    again. Where `steps`, (cells,), are more than 1, changes are drops in strengths of a ladder.

    >>> pass_rate_if_equal(np.zeros((3, 1000), np.int8), np.full(3, 1000), 0.02, 0.05)
    1.0
    """
    differing = changes.any(axis=0)
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence([0, exchanges])))
    signs = draws.choice(np.array([-1, 1], np.float32), size=(int(differing.sum()), exchanges))
    drops = changes[:, differing].astype(np.float32) @ signs
    discordant = (changes != 0).sum(axis=1, dtype=np.int64)
    margins = np.broadcast_to(np.asarray(margin, np.float64), n.shape)
    passes = drops <= _largest_passing(discordant, n, margins, alpha)[:, None]
    for cell, size in enumerate(steps):
        if size == 1:
            continue
        tallies = ladder_stats.tally_exchanged(changes[cell, differing], size, signs > 0)
        tallies[:, size] += int((~differing).sum())
        passes[cell] = ladder_stats.p_within_margin(tallies, ladder_stats.ladder(size), margins[cell]) <= alpha
    return float(passes.all(axis=0).mean())


def _largest_passing(discordant: NDArray[np.int64], n: NDArray[np.int64], margin: Floats, alpha: float) -> Floats:
    """Return the largest losses − gains with which a cell still passes, (cells,); below all values if it cannot."""
    low, high = -discordant - 1, discordant.copy()
    while (low < high).any():
        middle = (low + high + 1) // 2
        losses = (discordant + middle) / 2
        passes = interval(losses, discordant - losses, n, alpha)[1] <= margin
        low, high = np.where(passes, middle, low), np.where(passes, high, middle - 1)
    return low.astype(np.float64)
