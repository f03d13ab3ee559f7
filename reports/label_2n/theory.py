"""What filtering does to accuracy from one ε to the next, by the paper's formulas (label-2n, section 4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from reports.label_2n.numbers import Measured


def before(original: float, attacked: float, share: float) -> float:
    """
    Return the accuracy without a filter, if a fraction ``share`` of the inputs is perturbed.

    >>> before(0.9, 0.5, share=0.5)
    0.7
    """
    return original * (1 - share) + attacked * share


def after(original: float, attacked: float, share: float, recall_clean: float, missed: float) -> float:
    """
    Return the accuracy on what passes: ``recall_clean`` of the clean inputs and ``missed`` (R̄) of the perturbed ones.

    ZeroDivisionError if nothing passes.

    >>> round(after(0.9, 0.5, share=0.5, recall_clean=1.0, missed=0.25), 4)
    0.82
    """
    clean, perturbed = recall_clean * (1 - share), missed * share
    return (original * clean + attacked * perturbed) / (clean + perturbed)


def constant_ratio(accuracy: float, attacked: float, next_attacked: float) -> float:
    """
    Return r_X = R̄(i+1)/R̄(i) at which the accuracy after filtering does not change from one strength to the next.

    ``accuracy`` is that after filtering, ``attacked`` and ``next_attacked`` are those on perturbed inputs.

    >>> constant_ratio(0.9, 0.5, 0.5)
    1.0
    """
    fallen = next_attacked / attacked
    return (accuracy - attacked) / (accuracy - fallen * attacked)


def stays(accuracy: float, attacked: float, next_attacked: float, missed: float, next_missed: float) -> bool:
    """
    Return whether the accuracy after filtering does not fall from one strength to the next.

    The detector reaches the required ratio, next_missed/missed ≤ r_X. Without the division, so it also holds if
    nothing was missed before, or if the filter's errors raise the accuracy.

    >>> stays(0.9, 0.5, 0.4, 0.2, 0.1), stays(0.9, 0.5, 0.4, 0.2, 0.2)
    (True, False)
    """
    return next_missed * (accuracy - next_attacked) <= missed * (accuracy - attacked) + 1e-12


class Step(NamedTuple):
    """
    From one ε to the next: how the accuracy after filtering changes, and both ratios of what is not discarded.

    Attributes:
        strength: The larger ε.
        fallen: r_Z, the ratio of the accuracies on perturbed images.
        required: r_X at which the accuracy after filtering would not change; NaN if the formula has no value.
        ratio: The detector's ratio: perturbed images that pass at this ε, to those at the one before.
        reached: Whether the accuracy after filtering does not fall by the formula.
        change: The measured change of the accuracy after filtering.
    """

    strength: str
    fallen: float
    required: float
    ratio: float
    reached: bool
    change: float


def steps(m: Measured, system: str) -> Iterator[Step]:
    """Return every step of a system's curve, from the first ε on, if its numbers exist."""
    for pair in itertools.pairwise(m.strengths("curve")):
        whole, attacked, missed = (
            [m.mean(system, "curve", metric, strength) for strength in pair]
            for metric in ("half_selective_accuracy", "accuracy", "coverage")
        )
        if not all(map(math.isfinite, (*whole, *attacked, *missed))):
            continue
        solvable = attacked[0] and abs(whole[0] - attacked[1]) > 1e-9  # else the formula divides by 0
        yield Step(
            pair[1],
            attacked[1] / attacked[0] if attacked[0] else math.nan,
            constant_ratio(whole[0], attacked[0], attacked[1]) if solvable else math.nan,
            missed[1] / missed[0] if missed[0] else math.nan,
            stays(whole[0], attacked[0], attacked[1], missed[0], missed[1]),
            whole[1] - whole[0],
        )
