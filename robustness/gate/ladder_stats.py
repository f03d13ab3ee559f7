"""
How much worse one model is on a ladder of strengths: bounds of a mean of bounded numbers that hold for few images.

Each image has a drop in [−1, 1]: the fraction of the ladder's strengths at which it is misled now and was not before.
`counts`, (..., values), say how many images have each of the `values`, (values,).

The bound of Gaffke (2005), see Learned-Miller and Thomas, "A new confidence interval for the mean of a bounded random
variable" (2019): the images' drops and one more at the worst possible value get weights drawn uniformly from the
simplex. The probability that the weighted mean lies beyond the margin is the p-value. For drops of 0 and 1 it is
exactly Clopper and Pearson's. It is proved for special cases only, but no distribution is known for which it errs more
often. Student's t passes up to a quarter of the models that it should not (docs/gate-errors.md).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.gate.paired_stats import upper_tail

Floats = NDArray[np.float64]

STEPS = 50
"""Steps of bisection."""


def ladder(steps: int) -> Floats:
    """
    Return the drops that an image can have on a ladder of `steps` strengths, (2·steps + 1,).

    >>> ladder(2).tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    return np.arange(-steps, steps + 1) / steps


def tally(ranks: ArrayLike, steps: int) -> NDArray[np.int64]:
    """
    Return how many images have each drop of the `ladder`, (2·steps + 1,); `ranks`, (images,), are drops in strengths.

    >>> tally([0, 0, 2, -1], 2).tolist()
    [0, 1, 2, 0, 1]
    """
    return np.bincount(np.asarray(ranks, np.int64) + steps, minlength=2 * steps + 1)


def tally_exchanged(ranks: ArrayLike, steps: int, own: NDArray[np.bool_]) -> NDArray[np.int64]:
    """
    Return the `tally` after each of several exchanges of the two models, (exchanges, 2·steps + 1).

    `own`, (images, exchanges), is false for the images whose drop is reversed.

    >>> tally_exchanged([0, 2], 2, np.array([[True, False], [True, False]])).tolist()
    [[0, 0, 1, 0, 1], [1, 0, 1, 0, 0]]
    """
    drops, size = np.asarray(ranks), np.arange(1, steps + 1)[:, None]
    up, down, stays = (drops == size).astype(np.float32), (drops == -size).astype(np.float32), own.astype(np.float32)
    worse = up @ stays + down @ (1 - stays)
    better = (up + down).sum(axis=1)[:, None] - worse
    zero = np.full((1, own.shape[1]), (drops == 0).sum())
    return np.concatenate([better[::-1], zero, worse]).T.astype(np.int64)


def p_within_margin(counts: ArrayLike, values: ArrayLike, margin: ArrayLike) -> Floats:
    """
    Return the p-value of "the mean drop is the margin or more", (...): small if it is significantly less.

    The weights are those of exponential numbers, so the p-value is P(Σⱼ (vⱼ − margin)·Γⱼ ≥ 0) with independent gamma
    numbers of the shapes `counts` and one more of shape 1 at the value 1; by the saddlepoint (Lugannani and Rice 1980).

    >>> p_within_margin([0, 150, 0], [-1, 0, 1], 0.02).round(3).tolist(), round(0.98**150, 3)
    (0.049, 0.048)
    """
    shape = np.asarray(counts, np.float64)
    accepted = np.asarray(margin, np.float64)[..., None]
    shape = np.concatenate([shape, np.ones((*shape.shape[:-1], 1))], axis=-1)
    scale = np.append(np.asarray(values, np.float64), 1.0) - accepted
    shape, scale = np.broadcast_arrays(shape, scale)
    used = np.where(shape > 0, scale, 0.0)
    lowest, highest = used.min(axis=-1), used.max(axis=-1)
    one_sided = (lowest >= 0) | (highest <= 0)
    low = 1 / np.where(one_sided, -1.0, lowest)
    high = 1 / np.where(one_sided, 1.0, highest)
    used = np.where(one_sided[..., None], 0.0, used)
    for _ in range(STEPS):
        middle = (low + high) / 2
        rising = (shape * used / (1 - used * middle[..., None])).sum(axis=-1) > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    tilt = (low + high) / 2
    left = 1 - used * tilt[..., None]
    root = np.sign(tilt) * np.sqrt(np.maximum(2 * (shape * np.log(left)).sum(axis=-1), 0))
    variance = (shape * used**2).sum(axis=-1)
    wald = tilt * np.sqrt((shape * (used / left) ** 2).sum(axis=-1))
    central = np.abs(root) < 1e-4  # there the formula divides by 0; its limit is the skewness'
    density = np.exp(-(root**2) / 2) / math.sqrt(2 * math.pi)
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = upper_tail(root) + density * (1 / wald - 1 / root)
        limit = 0.5 - 2 * (shape * used**3).sum(axis=-1) / variance**1.5 / 6 / math.sqrt(2 * math.pi)
    p = np.clip(np.where(central, limit, tail), 0, 1)
    decided: Floats = np.where(one_sided, (highest > 0).astype(np.float64), p)
    return decided


def p_exceeds_margin(counts: ArrayLike, values: ArrayLike, margin: ArrayLike) -> Floats:
    """
    Return the p-value of "the mean drop is no more than the margin", (...): small if it is significantly more.

    >>> p_exceeds_margin([0, 200, 10], [-1, 0, 1], 0.02).round(3).tolist()
    0.051
    """
    return p_within_margin(counts, -np.asarray(values, np.float64), -np.asarray(margin, np.float64))


def interval(counts: ArrayLike, values: ArrayLike, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """
    Return both ends of the mean drop's interval, (...) twice, each with error at most `alpha`.

    >>> [end.round(3).tolist() for end in interval([0, 150, 0], [-1, 0, 1])]
    [-0.02, 0.02]
    """
    shape, of = np.asarray(counts, np.float64), np.asarray(values, np.float64)
    seen = (shape * of).sum(axis=-1) / shape.sum(axis=-1)

    def end(side: float) -> Floats:
        near, far = side * seen, np.ones(seen.shape)
        for _ in range(STEPS):
            middle = (near + far) / 2
            rejected = p_within_margin(shape, side * of, middle) <= alpha
            near, far = np.where(rejected, near, middle), np.where(rejected, middle, far)
        return side * far

    return end(-1.0), end(1.0)
