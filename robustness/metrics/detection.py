"""What a decision that discards is worth: what it keeps, how it decides there, and how well it tells an attack."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import wilson
from robustness.metrics.registry import Measurement, MetricError
from robustness.metrics.roc_auc import clipped_normal_interval, delong

Flags = NDArray[np.bool_]
Counted = tuple[Flags, Flags, str]
"""Which images count, among which, and why there may be none of the latter."""


def discarded(evidence: Evidence, row: int) -> Flags:
    """Say which images the decision's filter discards, (N,): attack probability above its threshold."""
    return np.asarray(scores(evidence, row) > evidence.provenance["decision"]["threshold"])


def scores(evidence: Evidence, row: int) -> NDArray[np.float32]:
    """Return the attack probability of each image, (N,); MetricError where the decision has none."""
    if evidence.attack_probability is None:
        raise MetricError(
            "`metric` needs a decision with an attack probability, got one that has none; "
            "name null, 2n or bin in model.decision"
        )
    found: NDArray[np.float32] = evidence.attack_probability[row]
    return found


def accuracy_filtered(evidence: Evidence, row: int) -> Counted:
    """Count the images that are predicted right among those that are kept."""
    kept = ~discarded(evidence, row)
    return evidence.predictions[row] == evidence.labels, kept, "the decision discards every image"


def share_kept(evidence: Evidence, row: int) -> Counted:
    """Count the images that are kept."""
    return ~discarded(evidence, row), np.ones(len(evidence), np.bool_), "no images"


def share_discarded(evidence: Evidence, row: int) -> Counted:
    """Count the images that are discarded: under a perturbation, the detector's recall."""
    return discarded(evidence, row), np.ones(len(evidence), np.bool_), "no images"


def undetected_wrong(evidence: Evidence, row: int) -> Counted:
    """Count the images that are kept and predicted wrong, among all."""
    wrong = evidence.predictions[row] != evidence.labels
    return wrong & ~discarded(evidence, row), np.ones(len(evidence), np.bool_), "no images"


COUNTED: dict[str, Callable[[Evidence, int], Counted]] = {
    "accuracy_filtered": accuracy_filtered,
    "kept": share_kept,
    "discarded": share_discarded,
    "undetected_wrong": undetected_wrong,
}


def precision(evidence: Evidence, row: int, clean: Evidence) -> Measurement:
    """Measure the share of perturbed images among all that are discarded, of as many clean ones as perturbed."""
    hits, false = int(discarded(evidence, row).sum()), int(discarded(clean, 0).sum())
    n = hits + false
    value = hits / n if n else math.nan
    note = "" if n else "nothing is discarded"
    return Measurement("detection_precision", value, wilson(hits, n), "wilson", n, hits, note)


def auc(evidence: Evidence, row: int, clean: Evidence, confidence: float = 0.95) -> Measurement:
    """
    Measure how probably a perturbed image has a higher attack probability than a clean one, ties counting half.

    The interval is DeLong's (1988), of two unpaired samples; n counts both.
    """
    value, variance = delong(scores(evidence, row), scores(clean, 0))
    return Measurement(
        "detection_auc", value, clipped_normal_interval(value, variance, confidence), "delong", 2 * len(evidence)
    )
