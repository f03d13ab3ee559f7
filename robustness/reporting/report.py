"""The document of a run: everything that a report says, in plain JSON types; docs/report.md describes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from robustness.cards import Card, Claim
from robustness.metrics.evidence import Evidence
from robustness.reporting.cells import claim_entry, sweep_entry
from robustness.reporting.json_types import plain

FORMAT = "pytest-robustness/report/1"

Outcome = Literal["held", "failed", "errored", "refused", "waived", "skipped", "never ran"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
RED = ("failed", "errored", "refused", "never ran")

GateFate = Literal["passed", "failed", "inconclusive", "errored", "skipped", "never ran"]
UNDECIDED = 10
"""The exit code of a run that is red only because gates decide nothing; pytest's own end at 5."""
UNRUN = ("skipped", "never ran")
GATE_FATES: tuple[GateFate, ...] = get_args(GateFate)


@dataclass(frozen=True)
class ClaimOutcome:
    """
    What came of one claim in a run, in the words and numbers of its test.

    ``numbers`` holds value, low, high, method, n, successes and note, or nothing where nothing was measured;
    where evidence is not kept, its data, seed and device serve too.
    """

    claim: Claim
    outcome: Outcome
    message: str
    numbers: Mapping[str, float | int | str | None]
    nodeid: str


@dataclass(frozen=True)
class GateOutcome:
    """What came of one model's gate: the sentence of its test, and its table (docs/gate.md)."""

    model: str
    outcome: GateFate
    message: str
    table: Mapping[str, Any]


@dataclass(frozen=True)
class ModelResult:
    """What came of a card: ``evidence`` by sweep ("clean" too; None where it was not kept), its claims, its gate."""

    card: Card
    evidence: Mapping[str, Evidence | None]
    outcomes: Sequence[ClaimOutcome]
    gate: GateOutcome | None = None
    measured: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What came of sweeps that were asked for without claims, by name: "measured", or what else and why."""
    suggested: str = ""
    """Claims that these would suggest, as TOML."""
    caught: Mapping[str, Any] | None = None
    """From which level on damage to it is caught (docs/caught.md), where that was kept beside its card."""
    doubted: Sequence[str] = ()
    """The doubts that were raised, or could not be looked for."""


def build(models: Sequence[ModelResult], run: Mapping[str, Any], notices: Sequence[str]) -> dict[str, Any]:
    """
    Make the document of a run, in the order of the cards whatever order tests ended in.

    ``run`` says at least whether the run is ``complete``, and which ``problems`` make it red although no
    claim failed; a document without any claim or gate that ran has a problem in any case.
    """
    counts = _counts(models)
    problems = list(run["problems"])
    ran = (*(o for o in OUTCOMES if o not in UNRUN), "measured")
    gated = any(n for fate, n in counts["gates"].items() if fate not in UNRUN)
    if not problems and not gated and not any(counts[fate] for fate in ran):
        problems = ["no claim ran"]
    about = plain({"causes": [], **run, "problems": problems})
    return {
        "format": FORMAT,
        "verdict": verdict(counts, about),
        "counts": counts,
        "run": about,
        "notices": plain(list(notices)),
        "models": [_model(result, run) for result in models],
    }


def verdict(counts: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """
    Return "failed" for anything red, "partial" where what ran held but not all did or a gate is open, else "passed".

    "measured" where nothing was claimed, and sweeps were asked for without claims.

    >>> counts = {"held": 3, "failed": 0, "errored": 0, "refused": 0, "skipped": 1, "never ran": 0, "not selected": 0}
    >>> verdict(counts, {"complete": True, "problems": []}), verdict(counts | {"refused": 1}, {"problems": []})
    ('partial', 'failed')
    """
    gates = counts.get("gates", {})
    if run["problems"] or any(counts[outcome] for outcome in RED) or any(gates.get(fate) for fate in RED):
        return "failed"
    open_gates = gates.get("inconclusive") or gates.get("skipped")
    if not run["complete"] or counts["skipped"] or counts["not selected"] or open_gates:
        return "partial"
    return "measured" if counts.get("measured") and not counts["claims"] else "passed"


def _counts(models: Sequence[ModelResult]) -> dict[str, Any]:
    each = [{"name": plain(result.card.name), **_tally(result)} for result in models]
    skips = Counter(
        (plain(result.card.name), plain(outcome.message))
        for result in models
        for outcome in result.outcomes
        if outcome.outcome == "skipped"
    )
    return {
        **{key: sum(row[key] for row in each) for key in ("claims", *OUTCOMES, "not selected", "measured")},
        "gates": {fate: sum(r.gate is not None and r.gate.outcome == fate for r in models) for fate in GATE_FATES},
        "models": each,
        "skips": [{"model": model, "reason": reason, "claims": n} for (model, reason), n in skips.items()],
    }


def _tally(result: ModelResult) -> dict[str, int]:
    """Count a card's claims by what came of them; "not selected" are those that the run was not asked for."""
    tally = Counter(outcome.outcome for outcome in result.outcomes)
    asked = {outcome.claim.id for outcome in result.outcomes}
    others = sum(claim.id not in asked for claim in result.card.claims())
    return {
        "claims": tally.total() + others,
        **{o: tally[o] for o in OUTCOMES},
        "not selected": others,
        "measured": _measured(result),
    }


def _measured(result: ModelResult) -> int:
    return sum(outcome == "measured" for outcome, _ in result.measured.values())


def _model(result: ModelResult, run: Mapping[str, Any]) -> dict[str, Any]:
    card = result.card
    place = {claim.id: i for i, claim in enumerate(card.claims())}
    outcomes = sorted(result.outcomes, key=lambda outcome: place.get(outcome.claim.id, len(place)))
    by_cell = {(o.claim.sweep, o.claim.strength, o.claim.metric): o for o in outcomes}
    judged = {outcome.claim.sweep for outcome in outcomes} | set(result.measured)
    names = ["clean", *card.file.sweeps]
    taken = [name for name in names if name in judged or name in result.evidence]
    return {
        "name": plain(card.name),
        "description": plain(card.file.description),
        "paper": plain(card.file.paper),
        "factory": plain(card.file.model.factory),
        "scale": card.file.scale,
        "candidate": None if card.candidate is None else plain(str(card.candidate)),
        "suggested": plain(result.suggested),
        **_origin(result, run),
        "open_doubts": [plain(name) for name in result.doubted],
        "known_doubts": [{"doubt": plain(name), "reason": plain(said)} for name, said in card.file.doubts.items()],
        "not_run": [name for name in names if name not in taken],
        "sweeps": [plain(sweep_entry(card, name, result.evidence.get(name), by_cell)) for name in taken],
        "claims": [claim_entry(outcome) for outcome in outcomes],
        "gate": _gate(result.gate),
        "caught": plain(result.caught),
        "waivers": [
            {**plain(waiver.model_dump()), "expires": str(waiver.expires), "expired": waiver.expired}
            for waiver in card.file.waivers
        ],
    }


def _gate(gate: GateOutcome | None) -> dict[str, Any] | None:
    if gate is None:
        return None
    return {"outcome": gate.outcome, "message": plain(gate.message), "table": plain(gate.table)}


def _origin(result: ModelResult, run: Mapping[str, Any]) -> dict[str, Any]:
    """Say what the numbers were measured on: from evidence, else from what the claims were told, else the run."""
    kept = [evidence for evidence in result.evidence.values() if evidence is not None]
    found: Mapping[str, Any] = kept[0].provenance if kept else {}
    told: Mapping[str, Any] = next((o.numbers for o in result.outcomes if "value" in o.numbers), {})
    counted = (o.numbers.get("n") for o in result.outcomes if o.claim.metric == "accuracy" and "n" in o.numbers)
    images = found.get("images", {})
    return {
        "data": {
            "name": plain(images.get("name") or told.get("data") or result.card.file.data.name),
            "n": len(kept[0]) if kept else plain(next(counted, None)),
            "fingerprint": plain(images.get("fingerprint")),
        },
        "weights": plain(found.get("subject", {}).get("weights")),
        "device": plain((kept[0].machine if kept else "") or told.get("device") or run.get("device")),
        "seed": plain(found.get("seed", told.get("seed", run.get("seed")))),
        "doubts": list(dict.fromkeys(plain(d) for evidence in kept for d in evidence.provenance.get("doubts", []))),
    }
