"""Metrics of attacks: the share of images that they mislead, on the attacked model and on another."""

from __future__ import annotations

from functools import partial
from typing import Any

from robustness.metrics.detection import discarded
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.metric import Counted, Flags, MetricError, known_chance
from robustness.metrics.rate_metric import counted_metric, require_evidence


def fooled(evidence: Evidence, row: int) -> Flags:
    """Return which images are adversarial, (N,): correct without the perturbation and wrong under it."""
    clean = require_evidence(evidence.clean, "clean evidence")
    right: Flags = clean.predictions[0] == evidence.labels
    wrong: Flags = evidence.predictions[row] != evidence.labels
    return right & wrong


def count_fooled(evidence: Evidence, row: int, label: int | None = None) -> Counted:
    """Count the misled images among the correctly predicted ones."""
    clean = require_evidence(evidence.clean, "clean evidence")
    right = clean.predictions[0] == evidence.labels
    return Counted(fooled(evidence, row), right, "no clean image is predicted correctly")


def count_transferred(evidence: Evidence, row: int, label: int | None = None) -> Counted:
    """Count the images that mislead this model among those that mislead the attacked model."""
    source = require_evidence(evidence.source, "evidence of the source model")
    at = source.index(evidence.strengths[row])
    if source.status[at] != OK:
        raise MetricError(f"the source has no numbers at {evidence.strengths[row]}: {source.status[at]}")
    return Counted(fooled(evidence, row), fooled(source, at), "no example misleads the source")


def count_transferred_undetected(evidence: Evidence, row: int, label: int | None = None) -> Counted:
    """Count as `count_transferred`, but discarded images do not count as misled."""
    hits, among, reason = count_transferred(evidence, row)
    return Counted(hits & ~discarded(evidence, row), among, reason)


ATTACK: dict[str, Any] = {
    "better": "lower",
    "chance_level": partial(known_chance, 1.0),
    "needs_clean_evidence": True,
    # A constant classifier, which nothing misleads, has a rate of 0.
    "requires_claims": ("accuracy",),
}

METRICS = (
    counted_metric(
        "attack_success_rate",
        "fraction of the correctly predicted clean images that are predicted wrongly under the perturbation",
        count_fooled,
        monotone=True,
        **ATTACK,
    ),
    counted_metric(
        "transferability",
        "fraction of the examples that mislead their source model which also mislead this model (docs/attacks.md)",
        count_transferred,
        needs_source=True,
        **ATTACK,
    ),
    counted_metric(
        "selective_transferability",
        "transferability if discarded images count as not misled",
        count_transferred_undetected,
        needs_source=True,
        needs_detector=True,
        **ATTACK | {"requires_claims": ("accuracy", "coverage")},
    ),
)
