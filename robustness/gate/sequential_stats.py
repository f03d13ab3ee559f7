"""Levels and bounds of tests that are repeated: one test set for many models (looks), or many sizes of one test set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.gate.paired_stats import normal_quantile, tango_score, upper_tail

Floats = NDArray[np.float64]

DECAY = 1.2
"""Look k has the share k⁻¹·² / ζ(1.2) of α. A faster decay leaves late looks less, a slower one the first looks."""
ZETA = 5.591582441177751
"""ζ(1.2), the sum of k⁻¹·² over all k."""
NODES = 300
"""Gauss-Legendre nodes of each integral."""
FAR = 8.5
"""Standard deviations beyond which a normal number is not integrated."""
LEAST = 1e-14
"""A part that may spend less has no bound; the next one spends it."""


def look_level(rejections: Sequence[bool], alpha: float) -> float:
    """
    Return the level of the next look of a test that is repeated without end: the online fallback procedure.

    Every look has its own share of α, and the shares of all looks add up to α. A look that rejects hands its level on
    to the next one. The probability of at least one false rejection among all looks is then at most α, however they
    depend on each other: the first false rejection uses only shares since the last true hypothesis, which kept its
    level, so each share is used once (Tian and Ramdas, Online control of the familywise error rate, 2021).

    Args:
        rejections: Whether each earlier look rejected, in order.
        alpha: The bound of the probability of any false rejection.

    Returns:
        The level at which the next look is tested.

    >>> [round(look_level(earlier, 0.05), 4) for earlier in ([], [True], [False], [True, False, True])]
    [0.0089, 0.0128, 0.0039, 0.0041]
    """
    last = len(rejections) + 1
    first = last
    while first > 1 and rejections[first - 2]:
        first -= 1
    return alpha * float((np.arange(first, last + 1) ** -DECAY).sum()) / ZETA


def spent(information: ArrayLike, alpha: float) -> Floats:
    """
    Return the error that Lan and DeMets' spending function of O'Brien-Fleming type allows so far, one-sided, (parts,).

    Args:
        information: The fractions of all images, (parts,), in (0, 1].
        alpha: The error of all parts together.

    >>> spent([0.2, 0.5, 1.0], 0.025).round(5).tolist()
    [0.0, 0.00153, 0.025]
    """
    return 2 * upper_tail(normal_quantile(alpha / 2) / np.sqrt(np.asarray(information, np.float64)))


def spending_bounds(information: Sequence[float], alpha: float) -> Floats:
    """
    Return the one-sided bounds of a group-sequential test, on the scale of z, (parts,).

    The sum of the increments is a Brownian motion that is cut off at each bound; its density after every part is
    integrated numerically (Armitage, McPherson and Rowe 1969), and each bound spends what `spent` allows (Lan and
    DeMets 1983). A part too early to spend anything has the bound infinity.

    Args:
        information: The fractions of all images after each part, (parts,), increasing, the last at most 1.
        alpha: The error of all parts together.

    Raises:
        ValueError: If the fractions do not increase from above 0 to at most 1.

    >>> spending_bounds([0.2, 0.4, 0.6, 0.8, 1.0], 0.025).round(3).tolist()
    [4.877, 3.357, 2.68, 2.29, 2.031]
    """
    times = np.asarray(information, np.float64)
    steps = np.diff(times, prepend=0.0)
    if not len(times) or (steps <= 0).any() or times[-1] > 1 + 1e-12:
        raise ValueError(f"`information` must increase from above 0 to at most 1, got {list(information)}")
    allowed, used, bounds = spent(times, alpha), 0.0, np.full(len(times), math.inf)
    points, mass = np.zeros(1), np.ones(1)  # where the motion is, and with which probability
    x, weights = np.polynomial.legendre.leggauss(NODES)
    for part, (time, step) in enumerate(zip(times, steps, strict=True)):
        deviation, reach = math.sqrt(step), FAR * math.sqrt(time)
        if allowed[part] - used > LEAST:
            low, high = -reach, reach
            for _ in range(60):
                middle = (low + high) / 2
                beyond = float(mass @ upper_tail((middle - points) / deviation))
                low, high = (middle, high) if beyond > allowed[part] - used else (low, middle)
            reach, used, bounds[part] = high, float(allowed[part]), high / math.sqrt(time)
        start = -FAR * math.sqrt(time)
        nodes = start + (x + 1) * (reach - start) / 2
        density = np.exp(-(((nodes[:, None] - points) / deviation) ** 2) / 2) @ mass
        mass = density * weights * (reach - start) / 2 / (deviation * math.sqrt(2 * math.pi))
        points = nodes
    return bounds


def decide_in_parts(
    losses: ArrayLike, gains: ArrayLike, n: ArrayLike, margin: ArrayLike, alpha: float = 0.05
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    Judge a paired gate after each part of the images, until it passes or fails.

    It passes after a part in which every cell's score is beyond the bound at level α, and fails if one cell's is at α
    divided by the cells. Both bounds ignore each other, so each error is at most α whether or not the other stops.

    The images must be in random order: the first images of a file that is sorted are no sample of all.

    Args:
        losses: Images lost in all parts so far, (..., parts, cells).
        gains: Images gained, likewise.
        n: Images in all parts so far, (parts,).
        margin: The accepted drops, (cells,) or one.
        alpha: The error of each of the two verdicts.

    Returns:
        The verdicts, (...), 1 for a pass, −1 for a failure, 0 for neither; and how many parts were looked at, (...).

    >>> decide_in_parts([[20], [40], [60], [80]], np.zeros((4, 1)), [100, 200, 300, 400], 0.02)
    (array(-1), array(1))
    """
    b, c, images = np.asarray(losses), np.asarray(gains), np.asarray(n, np.float64)
    information = [float(each) for each in images / images[-1]]
    total = images[:, None]
    worse = tango_score(b, c, total, margin, 1.0) >= spending_bounds(information, alpha / b.shape[-1])[:, None]
    within = -tango_score(b, c, total, margin, -1.0) >= spending_bounds(information, alpha)[:, None]
    ends = np.where(worse.any(axis=-1), -1, np.where(within.all(axis=-1), 1, 0))
    first = np.argmax(ends != 0, axis=-1)
    verdicts = np.take_along_axis(ends, first[..., None], axis=-1)[..., 0]
    return verdicts, np.where(verdicts == 0, len(images), first + 1)
