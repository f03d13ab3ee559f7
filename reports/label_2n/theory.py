"""What filtering does to accuracy from one ε to the next, by the paper's formulas (label-2n, section 4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from reports.label_2n.numbers import Measured


def before(original: float, attacked: float, share: float) -> float:
    """Return the accuracy without a filter, if a fraction ``share`` of the inputs is perturbed."""
    return original * (1 - share) + attacked * share


def after(original: float, attacked: float, share: float, recall_clean: float, missed: float) -> float:
    """Return the accuracy on what passes: ``recall_clean`` of the clean inputs, ``missed`` of the perturbed ones."""
    clean, perturbed = recall_clean * (1 - share), missed * share
    return (original * clean + attacked * perturbed) / (clean + perturbed)


def constant_ratio(accuracy: float, attacked: float, next_attacked: float) -> float:
    """Return r_X = R̄(i+1)/R̄(i) at which ``accuracy``, that after filtering, does not change to the next strength."""
    fallen = next_attacked / attacked
    return (accuracy - attacked) / (accuracy - fallen * attacked)


def stays(accuracy: float, attacked: float, next_attacked: float, missed: float, next_missed: float) -> bool:
    """
    Return whether the accuracy after filtering does not fall to the next strength: next_missed/missed ≤ r_X.

    Without the division, so it also holds if nothing was missed before, or if the filter's errors raise the accuracy.
    """
    return next_missed * (accuracy - next_attacked) <= missed * (accuracy - attacked) + 1e-12


class Step(NamedTuple):
    """
    How the accuracy after filtering changes from one ε to the next, the larger one, by the formula and as measured.

    ``fallen`` is r_Z, the ratio of the accuracies on perturbed images, ``required`` r_X (NaN if the formula has no
    value) and ``ratio`` the detector's: perturbed images that pass at this ε, to those at the one before.
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
