"""Builds the report of a run from evidence and from the outcomes of claims and gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from robustness.reporting.cells import claim_report, sweep_report
from robustness.reporting.gate_report import GateNumbers, GateReport
from robustness.reporting.report import (
    FORMAT,
    DataReport,
    KnownDoubt,
    ModelReport,
    RunReport,
    WaiverReport,
    verdict,
)
from robustness.reporting.report_types import GATE_FATES, OUTCOMES, UNRUN, plain
from robustness.reporting.results import GateOutcome, ModelResult
from robustness.reporting.run_info import Counts, GateTally, ModelTally, RunInfo, Skip
from robustness.reporting.worst_cases import worst_cases


def build(models: Sequence[ModelResult], run: RunInfo, notices: Iterable[str]) -> RunReport:
    """
    Return the report of a run, in the order of the cards, not of the tests.

    A report without any claim or gate that ran always has a problem.
    """
    counts = _counts(models)
    gated = any(fate not in UNRUN for fate in counts.gates.by_fate())
    ran = gated or counts.measured or any(counts.of(outcome) for outcome in OUTCOMES if outcome not in UNRUN)
    if not run.problems and not ran:
        run = run.model_copy(update={"problems": ["no claim ran"]})
    return RunReport(
        format=FORMAT,
        verdict=verdict(counts, run),
        counts=counts,
        run=run,
        notices=list(notices),
        models=[_model(result, run) for result in models],
    )


def _counts(models: Sequence[ModelResult]) -> Counts:
    each = [_tally(result) for result in models]
    skips = Counter((r.card.name, o.message) for r in models for o in r.outcomes if o.outcome == "skipped")
    gates = Counter(result.gate.outcome for result in models if result.gate is not None)
    return Counts.model_validate(
        {
            **{key: sum(row.of(key) for row in each) for key in ("claims", *OUTCOMES, "not selected", "measured")},
            "gates": GateTally.model_validate({fate: gates[fate] for fate in GATE_FATES}),
            "models": each,
            "skips": [Skip(model=model, reason=reason, claims=n) for (model, reason), n in skips.items()],
        }
    )


def _tally(result: ModelResult) -> ModelTally:
    """Count a card's claims by outcome; "not selected" are those that the run did not request."""
    tally = Counter(outcome.outcome for outcome in result.outcomes)
    selected = {outcome.claim.id for outcome in result.outcomes}
    others = sum(claim.id not in selected for claim in result.card.claims())
    return ModelTally.model_validate(
        {
            "name": result.card.name,
            "claims": tally.total() + others,
            **{outcome: tally[outcome] for outcome in OUTCOMES},
            "not selected": others,
            "measured": sum(outcome == "measured" for outcome, _ in result.measured.values()),
        }
    )


def _model(result: ModelResult, run: RunInfo) -> ModelReport:
    card = result.card
    place = {claim.id: i for i, claim in enumerate(card.claims())}
    outcomes = sorted(result.outcomes, key=lambda outcome: place.get(outcome.claim.id, len(place)))
    by_cell = {(o.claim.sweep, o.claim.strength, o.claim.metric): o for o in outcomes}
    judged = {outcome.claim.sweep for outcome in outcomes} | set(result.measured)
    names = ["clean", *card.file.sweeps]
    taken = [name for name in names if name in judged or name in result.evidence]
    return ModelReport(
        name=card.name,
        description=card.file.description,
        paper=card.file.paper,
        factory=card.file.model.factory,
        scale=card.file.scale,
        candidate=None if card.overrides.weights is None else str(card.overrides.weights),
        suggested=result.suggested,
        **_origin(result, run),
        open_doubts=list(result.doubted),
        known_doubts=[KnownDoubt(doubt=name, reason=reason) for name, reason in card.file.doubts.items()],
        not_run=[name for name in names if name not in taken],
        sweeps=[sweep_report(card, name, result.evidence.get(name), by_cell) for name in taken],
        worst_cases=list(worst_cases(card, {name: result.evidence.get(name) for name in taken})),
        claims=[claim_report(outcome) for outcome in outcomes],
        gate=_gate(result.gate),
        caught=result.caught,
        waivers=[
            WaiverReport(**waiver.model_dump() | {"expires": str(waiver.expires)}, expired=waiver.expired)
            for waiver in card.file.waivers
        ],
    )


def _gate(gate: GateOutcome | None) -> GateReport | None:
    if gate is None:
        return None
    return GateReport(outcome=gate.outcome, message=gate.message, table=GateNumbers.model_validate(plain(gate.table)))


def _origin(result: ModelResult, run: RunInfo) -> dict[str, Any]:
    """Return the data that the numbers describe: from evidence, else from the claims' outcomes, else from the run."""
    every = [evidence for evidence in result.evidence.values() if evidence is not None]
    provenance: Mapping[str, Any] = every[0].provenance if every else {}
    numbers: Mapping[str, Any] = next((o.numbers for o in result.outcomes if "value" in o.numbers), {})
    counted: Iterator[Any] = (
        o.numbers["n"] for o in result.outcomes if o.claim.metric == "accuracy" and "n" in o.numbers
    )
    images = provenance.get("images", {})
    return {
        "data": DataReport(
            name=images.get("name") or numbers.get("data") or result.card.file.data.name,
            n=len(every[0]) if every else next(counted, None),
            fingerprint=images.get("fingerprint"),
        ),
        "weights": provenance.get("subject", {}).get("weights"),
        "device": (every[0].machine if every else "") or numbers.get("device") or run.device,
        "seed": provenance.get("seed", numbers.get("seed", run.seed)),
        "doubts": list(dict.fromkeys(d for evidence in every for d in evidence.provenance.get("doubts", []))),
    }
