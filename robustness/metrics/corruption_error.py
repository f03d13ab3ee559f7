"""
Mean corruption error of a model relative to a reference model (Hendrycks and Dietterich 2019).

These compare two models over several sweeps, while a `Metric` reads one sweep of one model. So they are functions, not
metrics: no card can claim them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.metric import MetricError

Errors = Mapping[str, Sequence[float]]
"""For each corruption, the share of wrong images at each severity."""


def error_rates(evidence: Evidence) -> list[float]:
    """
    Return the share of wrong images at each strength.

    Args:
        evidence: The decisions of a model in a sweep of one corruption.

    Returns:
        One number in [0, 1] per strength.

    Raises:
        MetricError: If a strength has no numbers; a failure must not count as robust.
    """
    for strength, status in zip(evidence.strengths, evidence.status, strict=True):
        if status != OK:
            raise MetricError(f"`evidence` must have numbers at every severity, but {strength} {status}; fix the sweep")
    wrong = evidence.predictions != evidence.labels
    return [float(share) for share in wrong.mean(1)]


def mean_corruption_error(errors: Errors, reference: Errors) -> float:
    """
    Return the mean of the corruption errors CE_c = Σ_s E(s, c) / Σ_s E_reference(s, c) over corruptions c.

    The benchmark's mean is over its 15 corruptions at severities s = 1 to 5, relative to AlexNet on ImageNet-C. The
    numbers depend on the reference model and on how the images were corrupted, so they compare only with their like.

    Args:
        errors: The errors of a model, in [0, 1].
        reference: Those of the reference model, for the same corruptions and severities.

    Returns:
        1 for the reference itself; less is better. Papers print it in percent.

    Raises:
        MetricError: If the two differ in corruptions or numbers of severities, or the reference makes no error.

    Source: Hendrycks and Dietterich 2019, section 4.2.

    >>> errors, reference = {"fog": [0.1, 0.3], "snow": [0.2, 0.4]}, {"fog": [0.3, 0.5], "snow": [0.2, 0.4]}
    >>> round(mean_corruption_error(errors, reference), 6)  # the mean of 0.4 / 0.8 and 0.6 / 0.6
    0.75
    """
    return _mean_ratio(errors, reference, 0.0, 0.0)


def relative_mean_corruption_error(errors: Errors, reference: Errors, clean: float, reference_clean: float) -> float:
    """
    Return the mean of Σ_s (E(s, c) − E_clean) / Σ_s (E_reference(s, c) − E_reference,clean) over corruptions c.

    It compares how much the two models lose, whatever their clean errors are.

    Args:
        errors: The errors of a model, in [0, 1].
        reference: Those of the reference model, for the same corruptions and severities.
        clean: The error of the model on the images themselves.
        reference_clean: That of the reference model.

    Returns:
        1 for the reference itself; less is better.

    Raises:
        MetricError: If the two differ in corruptions or numbers of severities, or if the reference loses nothing
            under a corruption.

    Source: Hendrycks and Dietterich 2019, section 4.2.

    >>> errors, reference = {"fog": [0.1, 0.3], "snow": [0.2, 0.4]}, {"fog": [0.3, 0.5], "snow": [0.2, 0.4]}
    >>> round(relative_mean_corruption_error(errors, reference, 0.1, 0.2), 6)  # the mean of 0.2 / 0.4 and 0.4 / 0.2
    1.25
    """
    return _mean_ratio(errors, reference, clean, reference_clean)


def _mean_ratio(errors: Errors, reference: Errors, clean: float, reference_clean: float) -> float:
    shapes = [{name: len(row) for name, row in each.items()} for each in (errors, reference)]
    if shapes[0] != shapes[1] or not errors:
        raise MetricError(
            f"`errors` and `reference` must have the same corruptions and severities, got {shapes[0]} and {shapes[1]}; "
            "sweep both models alike"
        )
    ratios = []
    for name, row in errors.items():
        lost = sum(error - reference_clean for error in reference[name])
        if not lost > 0:
            raise MetricError(f"`reference` must lose accuracy under {name}, its errors sum to {lost:g}; use another")
        ratios.append(sum(error - clean for error in row) / lost)
    return sum(ratios) / len(ratios)
