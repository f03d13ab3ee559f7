"""What filtering does to accuracy, by the paper's formulas (label-2n, section 4)."""

from __future__ import annotations


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
