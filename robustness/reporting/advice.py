"""What to do next, by why a run is red or answers for a part only: each cause has a step of its own."""

from __future__ import annotations

from collections.abc import Iterator

from robustness.reporting.report import RunReport
from robustness.reporting.report_types import RED
from robustness.util.text import one_line

STEPS = {
    "no card": "name a card with --robustness-card FILE, or a model with --robustness-factory (docs/own-model.md)",
    "no test selected": "leave out -k, -m and the names of single files: `pytest suites/` tests every claim",
    "nothing claimed": "`pytest suites/` measures its sweeps and prints what it may claim; put that into the card",
    "nothing swept": "`robustness init --claims` writes a card with sweeps and what the model keeps of them now",
    "no gate": "put a [gate] into the card: docs/gate.md says what one holds",
    "waiver expired": "take the waiver out of the card, or have its owner name another day",
    "doubt": "settle the doubt: its test says what to try, and docs/doubts.md why it matters",
    "other test": "the same command with --lf -n 0 shows the tests alone that failed beside the claims",
    "skipped": "get what is missing, as the reason says, or choose other models with --robustness-model",
    "not run": "the same command with -n 0 shows where a worker died",
    "no numbers": "mend what has no numbers: the same command with --lf -n 0 shows the errors alone",
    "gate not run": "the same command with -n 0 shows where the gate's worker died",
    "gate skipped": "get what the gate's sweeps lack, as its reason says",
    "gate failed": "see which cells are worse in the gate's table above; docs/gate.md says what a waiver takes",
    "gate error": "do as the gate's message says (docs/gate.md)",
    "gate undecided": "test on as many images as the gate's message says, or accept a wider margin (docs/gate.md)",
    "failed": "the same command with --lf runs what failed alone",
    "error": "the same command with --lf -n 0 shows the errors alone",
    "vacuous": 'raise the threshold of {claim} in its card, or write "no claim possible" there',
    "interrupted": "type the same command again: what is finished is kept",
    "not selected": "run what was not selected too; until then this answers for a part only",
    "measured": "put what it may claim into a card (`robustness init --claims` writes one): it is tested from then on",
    "nothing to claim": "nothing may be claimed of it: `robustness check` says what to mend",
}
"""By cause. A cause that has no step is an error in this program: a test goes through all of them."""

GATES = {
    "failed": "gate failed",
    "error": "gate error",
    "inconclusive": "gate undecided",
    "not run": "gate not run",
    "skipped": "gate skipped",
}
SAID = 2
"""Steps that a summary names."""


def steps(report: RunReport) -> Iterator[str]:
    """Return what to do next, for the first causes: of a red run those that make it red, else what is open."""
    claims = [claim for model in report.models for claim in model.claims]
    found = list(dict.fromkeys(causes(report)))
    if not found and report.verdict == "failed":
        found = ["skipped" if report.counts.skipped else "no test selected"]
    for cause in found[:SAID]:
        first = next((claim.id for claim in claims if claim.outcome == cause), "")
        yield one_line(STEPS[cause].format(claim=first))


def causes(report: RunReport) -> Iterator[str]:
    """Return why a run is not green, the most telling first; nothing if it is green."""
    counts, run, verdict = report.counts, report.run, report.verdict
    fates = {claim.outcome for model in report.models for claim in model.claims}
    gates = [gate.outcome for model in report.models if (gate := model.gate) is not None]
    if verdict == "failed":
        yield from (fate for fate in RED if fate in fates)
        yield from (GATES[fate] for fate in GATES if fate in gates and fate in RED)
        yield from run.causes
        yield from ["gate undecided"] * ("inconclusive" in gates)
    elif verdict == "partial":
        yield from ["interrupted"] * (not run.complete)
        yield from (GATES[fate] for fate in ("inconclusive", "skipped") if fate in gates)
        yield from ["skipped"] * bool(counts.skipped)
        yield from ["not selected"] * bool(counts.not_selected)
    elif verdict == "measured":
        yield "measured" if any(model.suggested for model in report.models) else "nothing to claim"
