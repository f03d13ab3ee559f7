"""The document of a run: everything that a report says, in plain JSON types; docs/report.md describes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from robustness.cards import Card, Claim
from robustness.evidence import Evidence
from robustness.reporting.cells import claim_entry, sweep_entry
from robustness.reporting.plain import plain

FORMAT = "pytest-robustness/report/1"

Outcome = Literal["held", "failed", "errored", "refused", "skipped", "never ran"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
RED = ("failed", "errored", "refused", "never ran")


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
class ModelResult:
    """What came of one card: ``evidence`` by sweep ("clean" too; None where it was not kept), and its claims."""

    card: Card
    evidence: Mapping[str, Evidence | None]
    outcomes: Sequence[ClaimOutcome]


def build(models: Sequence[ModelResult], run: Mapping[str, Any], notices: Sequence[str]) -> dict[str, Any]:
    """
    Make the document of a run, in the order of the cards whatever order tests ended in.

    ``run`` says at least whether the run is ``complete``, and which ``problems`` make it red although no
    claim failed; a document without any claim that ran has a problem in any case.
    """
    counts = _counts(models)
    problems = list(run["problems"])
    if not problems and not any(counts[o] for o in OUTCOMES if o not in ("skipped", "never ran")):
        problems = ["no claim ran"]
    about = plain({**run, "problems": problems})
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
    Give "failed" for anything red, "partial" where what ran held but not all claims ran, else "passed".

    >>> counts = {"held": 3, "failed": 0, "errored": 0, "refused": 0, "skipped": 1, "never ran": 0, "not selected": 0}
    >>> verdict(counts, {"complete": True, "problems": []}), verdict(counts | {"refused": 1}, {"problems": []})
    ('partial', 'failed')
    """
    if run["problems"] or any(counts[outcome] for outcome in RED):
        return "failed"
    if not run["complete"] or counts["skipped"] or counts["not selected"]:
        return "partial"
    return "passed"


def _counts(models: Sequence[ModelResult]) -> dict[str, Any]:
    each = [{"name": plain(result.card.name), **_tally(result)} for result in models]
    skips = Counter(
        (plain(result.card.name), plain(outcome.message))
        for result in models
        for outcome in result.outcomes
        if outcome.outcome == "skipped"
    )
    return {
        **{key: sum(row[key] for row in each) for key in ("claims", *OUTCOMES, "not selected")},
        "models": each,
        "skips": [{"model": model, "reason": reason, "claims": n} for (model, reason), n in skips.items()],
    }


def _tally(result: ModelResult) -> dict[str, int]:
    """Count a card's claims by what came of them; "not selected" are those that the run was not asked for."""
    tally = Counter(outcome.outcome for outcome in result.outcomes)
    asked = {outcome.claim.id for outcome in result.outcomes}
    others = sum(claim.id not in asked for claim in result.card.claims())
    return {"claims": tally.total() + others, **{o: tally[o] for o in OUTCOMES}, "not selected": others}


def _model(result: ModelResult, run: Mapping[str, Any]) -> dict[str, Any]:
    card = result.card
    place = {claim.id: i for i, claim in enumerate(card.claims())}
    outcomes = sorted(result.outcomes, key=lambda outcome: place.get(outcome.claim.id, len(place)))
    by_cell = {(o.claim.sweep, o.claim.strength, o.claim.metric): o for o in outcomes}
    judged = {outcome.claim.sweep for outcome in outcomes}
    names = ["clean", *card.file.sweeps]
    taken = [name for name in names if name in judged or name in result.evidence]
    return {
        "name": plain(card.name),
        "description": plain(card.file.description),
        "paper": plain(card.file.paper),
        "factory": plain(card.file.model.factory),
        "scale": card.file.scale,
        **_origin(result, run),
        "known_doubts": [{"doubt": plain(name), "reason": plain(said)} for name, said in card.file.doubts.items()],
        "not_run": [name for name in names if name not in taken],
        "sweeps": [plain(sweep_entry(card, name, result.evidence.get(name), by_cell)) for name in taken],
        "claims": [claim_entry(outcome) for outcome in outcomes],
    }


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
        "device": plain(found.get("device") or told.get("device") or run.get("device")),
        "seed": plain(found.get("seed", told.get("seed", run.get("seed")))),
        "doubts": list(dict.fromkeys(plain(d) for evidence in kept for d in evidence.provenance.get("doubts", []))),
    }
