"""The report of a run, from what its tests recorded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robustness.cards import Card
from robustness.errors import RobustnessError
from robustness.gate.mutation import results
from robustness.metrics.evidence import Evidence
from robustness.plugin import problems
from robustness.plugin.state import RunState, versions
from robustness.reporting.advice import suggested_claims
from robustness.reporting.build import build
from robustness.reporting.report import CaughtReport, RunReport
from robustness.reporting.results import ModelResult
from robustness.reporting.run_info import RunInfo, ShardPlan
from robustness.util import hardware, revision


def build_report(run: RunState, *, complete: bool, code: int) -> RunReport:
    """Return the report of the run, given its exit code."""
    outcomes, gates = run.all_outcomes(), {gate.model: gate for gate in run.gates.values()}
    models = []
    for card in run.cards:
        mine = [outcome for outcome in outcomes if outcome.claim.model == card.name]
        measured = run.measuring.of(card.name)
        if mine or measured or card.name in gates:
            evidence = _evidence(run, card)
            doubted = _open_doubts(run, card, evidence)
            claims = suggested_claims(evidence, doubted) if not list(card.claims()) else ""
            caught = _caught(run, card, evidence)
            models.append(ModelResult(card, evidence, mine, gates.get(card.name), measured, claims, caught, doubted))
    return build(models, _run_info(run, complete, code), run.notices)


def add_gallery(run: RunState, report: RunReport) -> None:
    """Add the gallery's pictures to the report, or a notice if one cannot be rendered."""
    from robustness.reporting.html import gallery

    gallery.add_gallery(report, run.workspace, run.cards)


def write_statement(run: RunState, report: RunReport, path: Path) -> None:
    """Write the run's verdict as an in-toto statement."""
    from robustness.reporting import attestation

    attestation.write(report, run.workspace, run.cards, path)


def _evidence(run: RunState, card: Card) -> dict[str, Evidence | None]:
    """Return a card's evidence by sweep; None if the store does not have it."""
    keys = {sweep: key for (name, sweep), key in run.keys.items() if name == card.name}
    evidence: dict[str, Evidence | None] = dict.fromkeys(keys)
    with suppress(RobustnessError):  # the claims were judged; the report uses their numbers
        for sweep, key in keys.items():
            evidence[sweep] = run.workspace.cached_evidence(card, sweep, key)
        # Every sweep has computed the clean entry, claimed or not.
        if any(evidence.values()) and "clean" not in keys:
            clean = run.workspace.cached_evidence(card, "clean", run.workspace.key(card, "clean"))
            evidence |= {} if clean is None else {"clean": clean}
    return evidence


def _open_doubts(run: RunState, card: Card, evidence: Mapping[str, Evidence | None]) -> list[str]:
    """Return the open doubts of a card: from failed tests and from its sweeps."""
    swept = (doubt for each in evidence.values() if each for doubt in each.provenance.get("doubts", []))
    open_ = dict.fromkeys([*run.doubted.get(card.name, []), *swept])
    return [doubt for doubt in open_ if doubt not in card.file.doubts]


def _caught(run: RunState, card: Card, evidence: Mapping[str, Evidence | None]) -> CaughtReport | None:
    """Return which damage to a card's model is detected, if stored results exist and are current."""
    provenance = next((each.provenance for each in evidence.values() if each is not None), None)
    if provenance is None or card.overrides.weights is not None or card.overrides.claimless:
        return None
    subject = provenance["subject"]
    result, reason = results.stored_result(card, subject["weights"], subject["images"], subject["seed"])
    if reason:
        run.workspace.notice(reason)
    return results.summary(result)


def _run_info(run: RunState, complete: bool, code: int) -> RunInfo:
    tested: Any = revision.revision(Path.cwd())
    return RunInfo(
        causes=list(dict.fromkeys([cause for cause, _ in problems.causes(run)])),
        started=datetime.fromtimestamp(run.started, UTC).isoformat(timespec="seconds"),
        **tested,
        seconds=round(time.time() - run.started, 1),
        versions=versions(),
        device=hardware.worker_device(run.options.device, 0),
        seed=run.options.seed,
        workers=run.options.workers,
        shard=None if run.shard is None else ShardPlan.model_validate(run.shard),
        complete=complete,
        exit=code,
        problems=[*problems.messages(run), *problems.undecided(run)],
    )
