"""What a card swept and claimed, as measured: one entry a sweep, and in it one cell a strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from robustness import cards, claims
from robustness.cards import Card
from robustness.cards.schema import NO_CLAIM
from robustness.errors import CardError
from robustness.metrics import registry
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.metric import Measurement
from robustness.perturbations import strength as strengths
from robustness.reporting import misclassifications
from robustness.reporting.json_types import plain, settled

if TYPE_CHECKING:
    from robustness.reporting.report import ClaimOutcome

SHOWN = ("snr", "accuracy", "precision", "recall", "f1", "loss")
"""Measured in every cell, claimed or not."""

NOISES = ("clean", "normal", "uniform")

NUMBERS = ("value", "low", "high", "method", "n", "successes", "note")

NOT_KEPT = "evidence not kept"
"""Status of a cell that knows no more than its claims were told."""

Outcomes = Mapping[tuple[str, str, str], "ClaimOutcome"]
"""By sweep, strength and metric."""


def sweep_entry(card: Card, name: str, evidence: Evidence | None, outcomes: Outcomes) -> dict[str, Any]:
    """Describe a sweep: what was done, where its evidence is, and a cell a strength, in the card's order."""
    perturbation = card.perturbation(name)
    table = card.file.sweeps.get(name)
    promised = _promised(card, name)
    chosen = card.file.strengths_of(name)
    names = [strengths.name(strength) for strength in chosen]
    said = dict(zip(names, perturbation.deviations(chosen) or (), strict=False))
    return {
        "name": name,
        "kind": perturbation.kind,
        "family": perturbation.family,
        "parameters": plain(perturbation.model_dump(exclude={"kind"})),
        "unit": table.unit if table else "native",
        "strength_name": perturbation.strength_name,
        "source": _source(card, name),
        "evidence": None if evidence is None else _origin(evidence),
        "cells": [
            _cell(evidence, name, strength, promised.get(strength, {}), outcomes)
            | ({"deviation": said[strength]} if strength in said else {})
            for strength in names
        ],
        "confusion": None if evidence is None else misclassifications.confusion(evidence),
        "gallery": [] if evidence is None else misclassifications.gallery(evidence),
    }


def claim_entry(outcome: ClaimOutcome) -> dict[str, Any]:
    """Describe a claim and what came of it."""
    claim = outcome.claim
    return {
        "id": plain(claim.id),
        "sweep": claim.sweep,
        "strength": claim.strength,
        "metric": plain(claim.metric),
        "bound": bound(claim.metric),
        "threshold": claim.threshold,
        "outcome": outcome.outcome,
        "message": plain(outcome.message),
        "prerequisite": plain(outcome.numbers.get("prerequisite")),
        "numbers": told(outcome),
        "nodeid": plain(outcome.nodeid),
    }


def told(outcome: ClaimOutcome) -> dict[str, Any]:
    """Return the numbers that came with an outcome; {} where nothing was measured."""
    # A test's properties leave out what is None: XML would say "None".
    return settled({key: outcome.numbers.get(key) for key in NUMBERS}) if "value" in outcome.numbers else {}


def bound(metric: str) -> str:
    """
    Say in which direction a metric is claimed.

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
    """Name the model that a sweep's examples are made on; None for the swept one."""
    path = card.source(sweep)
    if path is None:
        return None
    try:
        return str(plain(cards.load(path).name))
    except CardError:  # its claims have said so
        return str(plain(path.stem))


def _origin(evidence: Evidence) -> dict[str, Any]:
    found = evidence.provenance
    told = {key: plain(found.get(key)) for key in ("key", "started", "seconds", "images_per_second")}
    return told | {"digest": evidence.digest}


def _cell(
    evidence: Evidence | None, sweep: str, strength: str, promised: Mapping[str, float | str], outcomes: Outcomes
) -> dict[str, Any]:
    """Measure one strength; a cell that has no numbers holds its status alone, beside what was claimed."""
    mine = {metric: outcomes.get((sweep, strength, metric)) for metric in promised}
    found: dict[str, Any] = {}
    drawn: list[dict[str, Any]] = []
    if evidence is None:
        status, note = NOT_KEPT, ""
        found = {plain(metric): numbers for metric, o in mine.items() if o is not None and (numbers := told(o))}
    elif strength not in evidence.strengths:
        status, note = "not in the evidence", ""
    else:
        status = evidence.status[evidence.index(strength)]
        note = evidence.provenance.get("notes", {}).get(strength, "")
        wanted = dict.fromkeys((*SHOWN, *_compared(evidence), *promised)) if status == OK else {}
        found = {plain(metric): _measured(evidence, strength, metric) for metric in wanted}
        drawn = misclassifications.attractors(evidence, evidence.index(strength)) if status == OK else []
    held = {plain(metric): _promise(metric, threshold, mine[metric]) for metric, threshold in promised.items()}
    said = {"strength": strength, "status": plain(status), "note": plain(note)}
    return {**said, "metrics": found, "claims": held, "attractors": drawn}


def _compared(evidence: Evidence) -> list[str]:
    """Name what can be measured of evidence beside which there is other evidence."""
    attacked = evidence.clean is not None and evidence.provenance.get("perturbation", {}).get("kind") not in NOISES
    return [*(["attack_success_rate"] * attacked), *(["transferability"] * (evidence.source is not None))]


def _promise(metric: str, threshold: float | str, outcome: ClaimOutcome | None) -> dict[str, Any]:
    if isinstance(threshold, str):
        return {"bound": bound(metric), "threshold": None, "outcome": NO_CLAIM}
    return {
        "bound": bound(metric),
        "threshold": threshold,
        "outcome": "not selected" if outcome is None else outcome.outcome,
    }


def _measured(evidence: Evidence, strength: str, metric: str) -> dict[str, Any]:
    try:
        measured = claims.measure(evidence, strength, metric)
    except ValueError as error:  # a class that the data do not have; its claim has failed with the same sentence
        return settled(dict.fromkeys(NUMBERS) | {"note": str(error)})
    return settled(_numbers(measured))


def _numbers(measured: Measurement) -> dict[str, Any]:
    values: Sequence[Any] = (
        measured.value, *measured.interval, measured.method, measured.n, measured.successes, measured.note
    )  # fmt: skip
    return dict(zip(NUMBERS, values, strict=True))
