"""The drop of one metric in one cell between two models on the same images: counted, or by the delta method."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustness import claims
from robustness.errors import RobustnessError
from robustness.metrics import attack_success, detection, registry, roc_auc
from robustness.metrics.evidence import Evidence

Floats = NDArray[np.float64]


class GateError(RobustnessError):
    """A gate that cannot be held: what is missing, or what is unlike, and what to do about it."""


class GateCell(NamedTuple):
    """One perturbation at one strength under one metric, and the drop that is accepted there."""

    sweep: str
    strength: str
    metric: str
    margin: float

    def __str__(self) -> str:
        return f"{self.sweep}:{self.strength}:{self.metric}"


class PairedDifference(NamedTuple):
    """
    How much worse a candidate is than the baseline in one cell.

    `changes`, (N,), is 1 where an image is lost, −1 where it is gained, among the `n` that the metric counts; None for
    a metric that counts no images, whose `error` is the standard error of the drop, by the `method` that is named.
    `sign` is −1 where less is better.
    """

    baseline: float
    candidate: float
    sign: int
    n: int
    changes: NDArray[np.int8] | None
    error: float = math.nan
    method: str = "paired score"

    @property
    def drop(self) -> float:
        """What the candidate lacks: positive where it is worse."""
        if self.changes is None:
            return self.sign * (self.baseline - self.candidate)
        return float(self.changes.sum(dtype=np.int64)) / self.n


def is_defined_for(metric: str, sweep: str, *, transferred: bool) -> bool:
    """
    Return whether a metric has a meaning under a sweep; what compares with the clean pass has none on it.

    >>> [is_defined_for(metric, "clean", transferred=False) for metric in ("attack_success_rate", "kept")]
    [False, True]
    """
    if metric.startswith("transferability"):
        return transferred
    return sweep != "clean" or metric not in ("attack_success_rate", "detection_auc", "detection_precision")


def paired_difference(metric: str, baseline: Evidence, candidate: Evidence, strength: str) -> PairedDifference:
    """
    Compare two models in one cell, image by image.

    Where both count the same images the changes are counted; else each image's influence on the two rates is taken.
    GateError where a rate has no denominator.
    """
    if not registry.gateable(metric):
        raise GateError(f"{metric}: is not of classes, scores or what is discarded; a gate can hold it to nothing")
    kind = registry.parse(metric, candidate.classes).kind
    sign = 1 if kind.better == "higher" else -1
    was, now = (_counts(metric, evidence, evidence.index(strength)) for evidence in (baseline, candidate))
    if was is not None and now is not None and np.array_equal(was[1], now[1]):
        among, n = now[1], int(now[1].sum())
        if not n:
            raise GateError(f"{metric} at {strength}: there is no image to count; leave the metric out of [gate]")
        changes = np.where(among, sign * (was[0].astype(np.int8) - now[0].astype(np.int8)), 0).astype(np.int8)
        return PairedDifference(float(was[0][among].mean()), float(now[0][among].mean()), sign, n, changes)
    rates, influences, steepest = zip(*(_influence(metric, e, strength) for e in (baseline, candidate)), strict=True)
    moved = influences[0] - influences[1]
    # Images that differ in nothing are no certainty: as if one more differed by all that one can.
    error = math.sqrt(float(((moved - moved.mean()) ** 2).sum()) + max(steepest) ** 2) / len(moved)
    method = "delong" if metric in ("detection_auc", "roc_auc") else "delta"
    return PairedDifference(rates[0], rates[1], sign, len(moved), None, error, method)


def _counts(metric: str, evidence: Evidence, row: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Return which images count, and among which, (N,) each; None for a metric that counts none."""
    if metric in attack_success.COMPARED:
        return attack_success.COMPARED[metric](evidence, row)[:2]
    name, label = registry.parse(metric, evidence.classes)
    right = evidence.predictions[row] == evidence.labels
    if name in ("accuracy", "precision_micro", "recall_micro", "f1_micro"):
        return right, np.ones(len(right), np.bool_)
    return (right, evidence.labels == label) if name == "recall" and label is not None else None


def _influence(metric: str, evidence: Evidence, strength: str) -> tuple[float, Floats, float]:
    """Return a rate, how much each image moves it, (N,), of mean zero, and how much one could at most."""
    row = evidence.index(strength)
    counted = _counts(metric, evidence, row)
    if metric in SCORED:
        rate, moved, steepest = SCORED[metric](evidence, row)
        if not math.isnan(rate):
            return rate, moved, steepest
    elif counted is not None:
        hit, among = counted
        share, rate = float(among.mean()), math.nan
        if share:
            rate = float((hit & among).mean()) / share
            return rate, (hit & among).astype(np.float64) / share - among * (rate / share), 1 / share
    else:
        name, label = registry.parse(metric, evidence.classes)
        rule = registry.METRICS[name].rate
        assert rule is not None
        matrix = claims.matrix(evidence, row)
        rate, _, _, gradient, _ = rule(matrix, label)
        if gradient is not None and not math.isnan(rate):
            slopes = gradient[evidence.labels, evidence.predictions[row]]
            return rate, slopes - slopes.mean(), float(np.abs(gradient - slopes.mean()).max())
    raise GateError(f"{metric} at {strength}: there is nothing to divide by; leave the metric out of [gate]")


def _detector_area(evidence: Evidence, row: int) -> tuple[float, Floats, float]:
    beside = attack_success.require_evidence(evidence.clean, "clean evidence")
    value, moved = roc_auc.auc_influence(detection.scores(evidence, row), detection.scores(beside, 0))
    return value, moved, 2.0  # both of an image's scores count, each from no other's side to all others'


def _class_area(evidence: Evidence, row: int) -> tuple[float, Floats, float]:
    value, moved = roc_auc.micro_auc_influence(roc_auc.probabilities(evidence)[row], evidence.labels)
    return value, moved, 2.0


def _detector_precision(evidence: Evidence, row: int) -> tuple[float, Floats, float]:
    beside = attack_success.require_evidence(evidence.clean, "clean evidence")
    hits, false = detection.discarded(evidence, row).astype(np.float64), detection.discarded(beside, 0)
    share = float((hits + false).mean())
    if not share:
        return math.nan, hits, math.nan
    value = float(hits.mean()) / share
    return value, (hits - value * (hits + false)) / share, 1 / share


SCORED: dict[str, Callable[[Evidence, int], tuple[float, Floats, float]]] = {
    "detection_auc": _detector_area,
    "detection_precision": _detector_precision,
    "roc_auc": _class_area,
}
"""By metric: a rate, how much each image moves it, (N,), of mean zero, and how much one could at most."""


def cell_value(metric: str, evidence: Evidence, strength: str) -> float:
    """Measure one cell of one model; GateError where there is nothing to divide by."""
    counted = _counts(metric, evidence, evidence.index(strength))
    if counted is not None and counted[1].any():
        return float((counted[0] & counted[1]).sum() / counted[1].sum())
    value = claims.measure(evidence, strength, metric).value
    if math.isnan(value):
        raise GateError(f"{metric} at {strength}: there is nothing to divide by; leave the metric out of [gate]")
    return value
