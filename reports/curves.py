"""Lines of the papers' figures: means over repetitions, with bars to the least and the largest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

MARKERS = "osv^D<>p"


def line(axes: Any, points: Iterable[tuple[float, Sequence[float]]], label: str, number: int, **style: Any) -> None:
    """
    Draw a line through the means at some places of the axis.

    Args:
        axes: matplotlib's axes.
        points: Places, each with its values; a place without values, or with a missing one (NaN), is left out.
        label: Text of the legend.
        number: Decides colour and marker.
        style: Further arguments of matplotlib's ``errorbar``.
    """
    known = [(place, values) for place, values in points if values and not any(map(math.isnan, values))]
    if not known:
        return
    means = [sum(values) / len(values) for _, values in known]
    below = [mean - min(values) for mean, (_, values) in zip(means, known, strict=True)]
    above = [max(values) - mean for mean, (_, values) in zip(means, known, strict=True)]
    axes.errorbar(
        [place for place, _ in known], means, yerr=(below, above), label=label, color=f"C{number}",
        marker=MARKERS[number], markersize=3, linewidth=1.2, elinewidth=0.8, capsize=2, **style,
    )  # fmt: skip
