"""Levels and bounds of tests that are repeated: one test set for many models (looks), or many sizes of one test set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DECAY = 1.2
"""Look k has the share k⁻¹·² / ζ(1.2) of α. A faster decay leaves late looks less, a slower one the first looks."""
ZETA = 5.591582441177751
"""ζ(1.2), the sum of k⁻¹·² over all k."""


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
