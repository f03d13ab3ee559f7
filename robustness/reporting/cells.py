"""A card's sweeps and claims as measured: one report per sweep, with one cell per strength."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robustness import cards, claims
from robustness.cards import Card
from robustness.errors import CardError
from robustness.metrics import registry
from robustness.metrics.evidence import DECIDED, OK, Evidence
from robustness.perturbations import strength as strengths
from robustness.reporting import misclassifications
from robustness.reporting.report import ClaimReport
from robustness.reporting.report_types import plain
from robustness.reporting.results import ClaimOutcome
from robustness.reporting.sweep_report import (
    NOT_KEPT,
    Attractor,
    Bound,
    CellClaim,
    CellFate,
    CellReport,
    EvidenceReference,
    NumberReport,
    SweepReport,
)

SHOWN = ("snr", "accuracy", "precision", "recall", "f1", "loss")
"""Measured in every cell, claimed or not."""

NO_ATTACKS = ("clean", "gaussian", "uniform", "smoothing")

Outcomes = Mapping[tuple[str, str, str], ClaimOutcome]
"""By sweep, strength and metric."""


def sweep_report(card: Card, name: str, evidence: Evidence | None, outcomes: Outcomes) -> SweepReport:
    """Describe a sweep: its parameters, where its evidence is, and one cell per strength, in the card's order."""
    perturbation = card.perturbation(name)
    table = card.file.sweeps.get(name)
    promised = _promised(card, name)
    chosen = card.file.strengths_of(name)
    names = [strengths.name(strength) for strength in chosen]
    deviations = dict(zip(names, perturbation.deviations(chosen) or (), strict=False))
    return SweepReport(
        name=name,
        kind=perturbation.kind,
        family=perturbation.family,
        parameters=plain(perturbation.model_dump(exclude={"kind"})),
        unit=table.unit if table else "default",
        strength_name=perturbation.strength_name,
        source=_source(card, name),
        evidence=None if evidence is None else _reference(evidence),
        cells=[
            _cell(evidence, name, strength, promised.get(strength, {}), outcomes, deviations.get(strength))
            for strength in names
        ],
        confusion=None if evidence is None else misclassifications.confusion(evidence),
        gallery=[] if evidence is None else misclassifications.gallery(evidence),
    )


def claim_report(outcome: ClaimOutcome) -> ClaimReport:
    """Describe a claim and its outcome."""
    claim = outcome.claim
    return ClaimReport.model_validate(
        {
            "id": claim.id,
            "sweep": claim.sweep,
            "strength": claim.strength,
            "metric": claim.metric,
            "bound": bound(claim.metric),
            "threshold": claim.threshold,
            "outcome": outcome.outcome,
            "message": outcome.message,
            "prerequisite": outcome.numbers.get("prerequisite"),
            "numbers": _claimed_numbers(outcome),
            "nodeid": outcome.nodeid,
        }
    )


def _claimed_numbers(outcome: ClaimOutcome) -> NumberReport:
    """Return the numbers of an outcome; an empty report if nothing was measured."""
    if "value" not in outcome.numbers:
        return NumberReport()
    # A test's properties leave out what is None: XML would say "None".
    return number_report(**{key: outcome.numbers.get(key) for key in NumberReport.model_fields})


def number_report(*, note: Any = None, **numbers: Any) -> NumberReport:
    """
    Return a measurement for the report; `note` says why an expected number is null.

    >>> number_report(value=math.nan, note="no images").as_json()
    {'value': None, 'note': 'no images'}
    >>> number_report(value=2.0, low=math.nan, high=math.nan, note="").as_json()
    {'value': 2.0, 'low': None, 'high': None, 'note': 'no interval'}
    """
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in numbers.items()}
    value, low, note = values.get("value"), values.get("low"), str(note or "")
    if isinstance(value, float) and not math.isfinite(value):
        note = note or ("not a number" if math.isnan(value) else "infinite")
    elif isinstance(low, float) and not math.isfinite(low):
        note = f"{note}; no interval" if note else "no interval"
    return NumberReport(**values, note=note)


def bound(metric: str) -> Bound:
    """
    Return the direction of a claim on a metric.

    >>> bound("recall[3]"), bound("loss")
    ('at least', 'at most')
    """
    known = registry.find(metric)
    return "at most" if known and known.better == "lower" else "at least"


def _promised(card: Card, sweep: str) -> dict[str, dict[str, float | str]]:
    """Return the card's thresholds of a sweep by strength and metric."""
    table = card.file.claims.get(sweep)
    if table is None:
        return {}
    chosen = card.file.strengths_of(sweep) if table.strengths is None else table.strengths
    return {
        strengths.name(strength): {metric: row[i] for metric, row in table.thresholds.items()}
        for i, strength in enumerate(chosen)
    }


def _source(card: Card, sweep: str) -> str | None:
    """Name the source model of a sweep's examples; None for the swept model."""
    path = card.source(sweep)
    if path is None:
        return None
    try:
        return str(plain(cards.load(path).name))
    except CardError:  # its claims have reported it
        return str(plain(path.stem))


def _reference(evidence: Evidence) -> EvidenceReference:
    provenance = evidence.provenance
    fields = {key: plain(provenance.get(key)) for key in ("key", "started", "seconds", "images_per_second")}
    return EvidenceReference(**fields, digest=evidence.digest)


def _cell(
    evidence: Evidence | None,
    sweep: str,
    strength: str,
    promised: Mapping[str, float | str],
    outcomes: Outcomes,
    deviation: float | None,
) -> CellReport:
    """Measure one strength; a cell without numbers has only its status and its claims."""
    mine = {metric: outcomes.get((sweep, strength, metric)) for metric in promised}
    status, note, attractors = NOT_KEPT, "", list[Attractor]()
    judged = {metric: _claimed_numbers(outcome) for metric, outcome in mine.items() if outcome is not None}
    metrics = {metric: numbers for metric, numbers in judged.items() if numbers.model_fields_set}
    if evidence is None:
        pass
    elif strength not in evidence.strengths:
        status, metrics = "not in the evidence", {}
    else:
        row = evidence.index(strength)
        status, note = evidence.status[row], evidence.provenance.get("notes", {}).get(strength, "")
        names = dict.fromkeys((*SHOWN, *_compared(evidence), *promised)) if status == OK else {}
        if not status.startswith(DECIDED):  # only its claims have bounds
            metrics = {metric: _measured(evidence, strength, metric) for metric in names}
        attractors = misclassifications.attractors(evidence, row) if status == OK else []
    return CellReport(
        strength=strength,
        status=status,
        note=note,
        metrics=metrics,
        claims={metric: _promise(metric, threshold, mine[metric]) for metric, threshold in promised.items()},
        attractors=attractors,
        **({} if deviation is None else {"deviation": deviation}),
    )


def _compared(evidence: Evidence) -> list[str]:
    """Return the metrics that need other evidence, if it is there."""
    attacked = evidence.clean is not None and evidence.provenance.get("perturbation", {}).get("kind") not in NO_ATTACKS
    return [*(["attack_success_rate"] * attacked), *(["transferability"] * (evidence.source is not None))]


def _promise(metric: str, threshold: float | str, outcome: ClaimOutcome | None) -> CellClaim:
    if isinstance(threshold, str):
        return CellClaim(bound=bound(metric), threshold=None, outcome="no claim possible")
    fate: CellFate = "not selected" if outcome is None else outcome.outcome
    return CellClaim(bound=bound(metric), threshold=threshold, outcome=fate)


def _measured(evidence: Evidence, strength: str, metric: str) -> NumberReport:
    try:
        measurement = claims.measure(evidence, strength, metric)
    except ValueError as error:  # a class that the data lack; its claim has failed with the same message
        return number_report(**dict.fromkeys(NumberReport.model_fields) | {"note": str(error)})
    return number_report(
        value=measurement.value, low=measurement.interval.low, high=measurement.interval.high,
        method=measurement.method, n=measurement.n, successes=measurement.successes, note=measurement.note,
    )  # fmt: skip
