"""What a gate can see: the drop that it would catch, the images that it would take, how often it passes an equal."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.gate.paired import interval, normal_quantile

Floats = NDArray[np.float64]

POWER = 0.8
"""How surely a drop is caught, or a question decided, where it is said that one would be."""
EXCHANGES = 200
"""Times that two models are exchanged image by image, to see how often a gate passes equals."""


def smallest_drop(
    margin: ArrayLike, discordance: ArrayLike, n: ArrayLike, alpha: float = 0.05, tests: int = 1, power: float = POWER
) -> Floats:
    """
    Give the true drop that would be shown to exceed the margin with probability `power`, (cells,).

    `discordance` is the share of images on which the two models differ in being right; the larger drop itself counts
    towards it. `tests` are corrected for by Bonferroni, which Holm's steps never fall below.

    >>> smallest_drop([0.02], [0.05], [10_000]).round(4).tolist()
    [0.0255]
    """
    centre, shared, total = (np.asarray(value, dtype=np.float64) for value in (margin, discordance, n))
    spread = normal_quantile(alpha / tests) + normal_quantile(1 - power)
    drop = centre
    for _ in range(20):  # a drop below the discordance needs no more of it
        variance = np.maximum(np.maximum(shared, drop) - drop**2, 0)
        drop = np.minimum(centre + spread * np.sqrt(variance / total), 1.0)
    return drop


def images_needed(
    drop: ArrayLike, margin: ArrayLike, discordance: ArrayLike, alpha: float = 0.05, power: float = POWER
) -> Floats:
    """
    Give how many images would decide with probability `power` if the true rates were the observed ones, (cells,).

    Infinite where the drop is the margin: no number of images decides that.

    >>> images_needed([0.0, 0.02], 0.02, 0.05).tolist()
    [773.0, inf]
    """
    seen, shared = np.asarray(drop, dtype=np.float64), np.asarray(discordance, dtype=np.float64)
    spread = normal_quantile(alpha) + normal_quantile(1 - power)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.ceil(spread**2 * np.maximum(shared - seen**2, 0) / (np.asarray(margin) - seen) ** 2)
    return np.where(np.asarray(margin) == seen, math.inf, np.maximum(found, 1.0))


def passes_of_equals(
    changes: NDArray[np.int8], n: NDArray[np.int64], margin: ArrayLike, alpha: float, exchanges: int = EXCHANGES
) -> float:
    """
    Give how often a model as good as the baseline passes in all cells at once, on images that differ like these.

    `changes`, (cells, images), are 1 for a loss, −1 for a gain, else 0. Were the two models equal, each image might as
    well have exchanged them: so the images are exchanged by chance, in all cells together, and the gate is held again.

    >>> passes_of_equals(np.zeros((3, 1000), np.int8), np.full(3, 1000), 0.02, 0.05)
    1.0
    """
    differing = changes.any(axis=0)
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence([0, exchanges])))
    signs = draws.choice(np.array([-1, 1], np.float32), size=(int(differing.sum()), exchanges))
    drops = changes[:, differing].astype(np.float32) @ signs
    discordant = np.abs(changes).sum(axis=1, dtype=np.int64)
    most = _largest_passing(discordant, n, np.broadcast_to(np.asarray(margin, np.float64), n.shape), alpha)
    return float((drops <= most[:, None]).all(axis=0).mean())


def _largest_passing(discordant: NDArray[np.int64], n: NDArray[np.int64], margin: Floats, alpha: float) -> Floats:
    """Give the most losses less gains with which a cell still passes, (cells,); less than none where it cannot."""
    low, high = -discordant - 1, discordant.copy()
    while (low < high).any():
        middle = (low + high + 1) // 2
        losses = (discordant + middle) / 2
        passes = interval(losses, discordant - losses, n, alpha)[1] <= margin
        low, high = np.where(passes, middle, low), np.where(passes, high, middle - 1)
    return low.astype(np.float64)
