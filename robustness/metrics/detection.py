"""Metrics of decisions that discard images: coverage, accuracy on accepted images, and detection of attacks."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from robustness.metrics.confusion_rates import ACCURACY
from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import wilson
from robustness.metrics.metric import Counted, Flags, Influence, Measurement, Metric, MetricError, known_chance
from robustness.metrics.rate_metric import counted_metric, require_evidence
from robustness.metrics.roc_auc import auc_influence, clipped_normal_interval, delong


def discarded(evidence: Evidence, row: int) -> Flags:
    """Return which images the decision's filter discards, (N,): attack probability above its threshold."""
    return np.asarray(scores(evidence, row) > evidence.provenance["decision"]["threshold"])


def scores(evidence: Evidence, row: int) -> NDArray[np.float32]:
    """Return the attack probability of each image, (N,); MetricError if the decision has none."""
    if evidence.attack_probability is None:
        raise MetricError(
            "`metric` needs a decision with an attack probability, got one that has none; "
            "name null, 2n or bin in model.decision"
        )
    probability: NDArray[np.float32] = evidence.attack_probability[row]
    return probability


def count_accepted_correct(evidence: Evidence, row: int, label: int | None = None) -> Counted:
    """Count the correctly predicted images among the accepted ones."""
    accepted = ~discarded(evidence, row)
    return Counted(evidence.predictions[row] == evidence.labels, accepted, "the decision discards every image")


def count_accepted(evidence: Evidence, row: int, label: int | None = None) -> Counted:
    """Count the accepted images."""
    return Counted(~discarded(evidence, row), np.ones(len(evidence), np.bool_))


def count_rejected(evidence: Evidence, row: int, label: int | None = None) -> Counted:
    """Count the discarded images: under a perturbation, the detector's recall."""
    return Counted(discarded(evidence, row), np.ones(len(evidence), np.bool_))


def count_undetected_errors(evidence: Evidence, row: int, label: int | None = None) -> Counted:
    """Count the images that are accepted and predicted wrongly, among all."""
    wrong = evidence.predictions[row] != evidence.labels
    return Counted(wrong & ~discarded(evidence, row), np.ones(len(evidence), np.bool_))


def measure_precision(evidence: Evidence, row: int, label: int | None, confidence: float) -> Measurement:
    """Measure the share of perturbed images among all discarded ones, with equally many clean images."""
    clean = require_evidence(evidence.clean, "clean evidence")
    hits, false = int(discarded(evidence, row).sum()), int(discarded(clean, 0).sum())
    n = hits + false
    note = "" if n else "nothing is discarded"
    return Measurement(hits / n if n else math.nan, wilson(hits, n, confidence), "wilson", n, hits, note)


def precision_influence(evidence: Evidence, row: int, label: int | None = None) -> Influence:
    """Return each image's influence on the detector's precision, by its perturbed and its clean form together."""
    clean = require_evidence(evidence.clean, "clean evidence")
    hits, false = discarded(evidence, row).astype(np.float64), discarded(clean, 0)
    share = float((hits + false).mean())
    if not share:
        return Influence(math.nan, hits, math.nan)
    value = float(hits.mean()) / share
    return Influence(value, (hits - value * (hits + false)) / share, 1 / share)


def measure_auc(evidence: Evidence, row: int, label: int | None, confidence: float) -> Measurement:
    """
    Measure the probability that a perturbed image has a higher attack probability than a clean one; ties count half.

    The interval is DeLong's (1988) for two unpaired samples; n counts both.
    """
    clean = require_evidence(evidence.clean, "clean evidence")
    value, variance = delong(scores(evidence, row), scores(clean, 0))
    return Measurement(value, clipped_normal_interval(value, variance, confidence), "delong", 2 * len(evidence))


def detector_influence(evidence: Evidence, row: int, label: int | None = None) -> Influence:
    """Return each image's influence on the detector's area, by its perturbed and its clean score together."""
    clean = require_evidence(evidence.clean, "clean evidence")
    value, per_image = auc_influence(scores(evidence, row), scores(clean, 0))
    # Both of an image's scores count, and each can go from below all others to above them.
    return Influence(value, per_image, 2.0, "delong")


# A constant classifier, or a decision that discards everything, would pass a claim on most of these metrics.
CONSTANT_OR_EMPTY = ("accuracy", "coverage")

METRICS = (
    counted_metric(
        "selective_accuracy",
        "fraction of the kept images that are predicted correctly",
        count_accepted_correct,
        chance_level=ACCURACY.chance_level,
        needs_detector=True,
        requires_claims=CONSTANT_OR_EMPTY,
    ),
    counted_metric(
        "coverage",
        "fraction of the images that are not discarded",
        count_accepted,
        chance_level=partial(known_chance, 0.0),
        needs_detector=True,
        requires_claims=("accuracy",),
        required_because="a decision that discards everything is never misled",
        requires_detection_claim=True,
    ),
    counted_metric(
        "rejection_rate",
        "fraction of the images that are discarded: the detector's recall",
        count_rejected,
        chance_level=partial(known_chance, 0.0),
        complement_of="coverage",
        needs_detector=True,
        requires_claims=CONSTANT_OR_EMPTY,
    ),
    counted_metric(
        "undetected_error_rate",
        "fraction of the images that are kept and predicted wrongly",
        count_undetected_errors,
        better="lower",
        chance_level=partial(known_chance, 1.0),
        needs_detector=True,
        requires_claims=CONSTANT_OR_EMPTY,
    ),
    Metric(
        name="detection_precision",
        description="fraction of perturbed images among all discarded ones, with equally many clean images",
        measure=measure_precision,
        chance_level=partial(known_chance, 0.5),
        influence=precision_influence,
        needs_clean_evidence=True,
        needs_detector=True,
    ),
    Metric(
        name="detection_auc",
        description="area under the detector's ROC curve, perturbed against clean images",
        measure=measure_auc,
        chance_level=partial(known_chance, 0.5),
        influence=detector_influence,
        needs_clean_evidence=True,
        needs_detector=True,
        baseline_scores="attack_probability",
    ),
)
