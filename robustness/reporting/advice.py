"""The next step for each cause of a failed or partial run, and suggested claims for a measured model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from robustness import claims
from robustness.metrics.chance_level import lucky_level
from robustness.metrics.evidence import OK, Evidence
from robustness.reporting.report import RunReport
from robustness.reporting.report_types import RED
from robustness.util.text import one_line

STEPS = {
    "no card": "select a card with --robustness-card FILE, or a model with --robustness-factory (docs/own-model.md)",
    "no test selected": "leave out -k, -m and single test files: `pytest suites/` checks every claim",
    "nothing claimed": "`pytest suites/` measures its sweeps and prints suggested claims; copy them into the card",
    "nothing swept": "`robustness init --claims` writes a card with sweeps and with claims that the model meets now",
    "no gate": "add a [gate] to the card (docs/gate.md)",
    "waiver expired": "remove the waiver from the card, or let its owner set another date",
    "doubt": "resolve the doubt: its test says what to try, docs/doubts.md why it matters",
    "other test": "the same command with --lf -n 0 shows only the other failed tests",
    "skipped": "get the missing files, as the reason says, or select other models with --robustness-model",
    "not run": "the same command with -n 0 shows where a worker died",
    "no numbers": "fix the cells without numbers: the same command with --lf -n 0 shows only the errors",
    "gate not run": "the same command with -n 0 shows where the gate's worker died",
    "gate skipped": "get the files that the gate's sweeps need, as its reason says",
    "gate failed": "see which cells are worse in the gate's table; docs/gate.md explains waivers",
    "gate error": "follow the gate's message (docs/gate.md)",
    "gate undecided": "use as many test images as the gate's message says, or a wider margin (docs/gate.md)",
    "failed": "the same command with --lf runs only the failed tests",
    "error": "the same command with --lf -n 0 shows only the errors",
    "vacuous": 'raise the threshold of {claim} in its card, or write "no claim possible" there',
    "interrupted": "run the same command again: finished work is stored",
    "not selected": "run the unselected tests too; this run covers only a part",
    "measured": "put the suggested claims into a card (`robustness init --claims` writes one), so that later runs "
    "check them",
    "nothing to claim": "no claim is possible: `robustness check` says what to fix",
}
"""By cause. Every cause must have a step: a test checks all of them."""

GATES = {
    "failed": "gate failed",
    "error": "gate error",
    "inconclusive": "gate undecided",
    "not run": "gate not run",
    "skipped": "gate skipped",
}
SAID = 2
"""Number of steps in a summary."""


def steps(report: RunReport) -> Iterator[str]:
    """Return the next steps, for the first causes: why a run failed, or what is open."""
    claims = [claim for model in report.models for claim in model.claims]
    listed = list(dict.fromkeys(causes(report)))
    if not listed and report.verdict == "failed":
        listed = ["skipped" if report.counts.skipped else "no test selected"]
    for cause in listed[:SAID]:
        first = next((claim.id for claim in claims if claim.outcome == cause), "")
        yield one_line(STEPS[cause].format(claim=first))


def causes(report: RunReport) -> Iterator[str]:
    """Return why a run did not pass, the most informative cause first; nothing if it passed."""
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


MARGIN = 0.01
"""Distance of a suggested claim below the interval's lower end, because retraining changes accuracy too."""
PLACES = 1000


def suggested_claims(evidence: Mapping[str, Evidence | None], doubted: Sequence[str] = ()) -> str:
    """
    Return claims of accuracy as TOML, by sweep: the lower end of each 95 % interval minus a margin, rounded down.

    Nothing is suggested if a doubt was raised or could not be checked. Where that is not beyond what a classifier that
    knows nothing may get by luck, no claim is possible; a sweep of which none is, or some cell has no numbers, is left
    out.
    """
    from robustness.cards.edit import claims_table

    if doubted:
        return ""
    tables = []
    for sweep, swept in evidence.items():
        if swept is None or set(swept.status) != {OK}:
            continue
        row = [_threshold(swept, strength) for strength in swept.strengths]
        if any(threshold is not None for threshold in row):
            tables.append(claims_table(sweep, {"accuracy": row}))
    return "\n".join(tables)


def _threshold(evidence: Evidence, strength: str) -> float | None:
    low = claims.measure(evidence, strength, "accuracy").interval.low
    threshold = int((low - MARGIN) * PLACES) / PLACES
    return threshold if threshold > lucky_level("accuracy", evidence.labels, evidence.classes) else None


def failed_cells(evidence: Evidence) -> Sequence[str]:
    """Return a sentence for each strength that has no numbers."""
    return [f"at {s}: {status}" for s, status in zip(evidence.strengths, evidence.status, strict=True) if status != OK]
