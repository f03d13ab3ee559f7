"""Metrics that compare an image's outcomes: before and after, on one model and on another."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from robustness.metrics import detection, roc_auc, strength_curves
from robustness.metrics.detection import discarded
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.intervals import Interval, wilson
from robustness.metrics.registry import Measurement, MetricError

Flags = NDArray[np.bool_]


def measure(metric: str, evidence: Evidence, row: int) -> Measurement:
    """Measure a metric that compares evidence with what stands beside it; MetricError where that is missing."""
    if metric in ALONE:
        return ALONE[metric](evidence, row)
    if metric in MEASURED:
        return MEASURED[metric](evidence, row, require_evidence(evidence.clean, "clean evidence"))
    hit, among, nothing = COMPARED[metric](evidence, row)
    n, successes = int(among.sum()), int((hit & among).sum())
    if not n:
        return Measurement(metric, math.nan, Interval(math.nan, math.nan), "wilson", 0, None, nothing)
    return Measurement(metric, successes / n, wilson(successes, n), "wilson", n, successes)


def fooled(evidence: Evidence, row: int) -> Flags:
    """Say which images are adversarial, (N,): predicted right without the perturbation, and wrong under it."""
    clean = require_evidence(evidence.clean, "clean evidence")
    right: Flags = clean.predictions[0] == evidence.labels
    wrong: Flags = evidence.predictions[row] != evidence.labels
    return right & wrong


def _success(evidence: Evidence, row: int) -> tuple[Flags, Flags, str]:
    clean = require_evidence(evidence.clean, "clean evidence")
    return fooled(evidence, row), clean.predictions[0] == evidence.labels, "no image is predicted right to begin with"


def _transfer(evidence: Evidence, row: int) -> tuple[Flags, Flags, str]:
    source = require_evidence(evidence.source, "evidence of the model that its examples were made on")
    at = source.index(evidence.strengths[row])
    if source.status[at] != OK:
        raise MetricError(f"the source has no numbers at {evidence.strengths[row]}: {source.status[at]}")
    return fooled(evidence, row), fooled(source, at), "no example misleads the source"


def _filtered(evidence: Evidence, row: int) -> tuple[Flags, Flags, str]:
    hit, among, nothing = _transfer(evidence, row)
    return hit & ~discarded(evidence, row), among, nothing


COMPARED: dict[str, Callable[[Evidence, int], tuple[Flags, Flags, str]]] = {
    "attack_success_rate": _success,
    "transferability": _transfer,
    "transferability_filtered": _filtered,
    **detection.COUNTED,
}
"""By metric: which images count, among which, and why there may be none of the latter."""

MEASURED: dict[str, Callable[[Evidence, int, Evidence], Measurement]] = {
    "detection_precision": detection.precision,
    "detection_auc": detection.auc,
    **{name: partial(strength_curves.measure, name) for name in strength_curves.NAMES},
}
"""By metric: what measures it on evidence and clean evidence."""


ALONE: dict[str, Callable[[Evidence, int], Measurement]] = {"roc_auc": roc_auc.micro}
"""By metric: what measures it on evidence that holds more than predictions."""


def require_evidence(evidence: Evidence | None, what: str) -> Evidence:
    """Return evidence that a metric compares with; MetricError where there is none."""
    if evidence is None:
        raise MetricError(f"the metric compares, and needs {what} beside the sweep's, got none")
    return evidence
