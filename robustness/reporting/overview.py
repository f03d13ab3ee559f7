"""One line per model: how its claims and its gate ended, and the claim that is closest to its threshold."""

from __future__ import annotations

from collections import Counter

from robustness.reporting.outcomes import closest_claim
from robustness.reporting.report import ModelReport, RunReport
from robustness.reporting.report_types import RED
from robustness.reporting.sweep_report import CellClaim, SweepReport
from robustness.reporting.table_rows import MARKS, TERMINAL, verdict_label
from robustness.util.text import DASH, NAME, one_line, pluralize, table

HEADER = ["model", "claims", "verdict", "n", "closest to its threshold"]


def overview(report: RunReport) -> list[str]:
    """Return a table with a row per model."""
    rows = [_row(model) for model in report.models]
    return table(HEADER, rows) if rows else []


def _row(model: ModelReport) -> list[str]:
    return [
        one_line(model.name, NAME),
        f"{len(model.claims):,}",
        _verdict(model),
        DASH if model.data.n is None else f"{model.data.n:,}",
        _closest(model),
    ]


def _verdict(model: ModelReport) -> str:
    counts = Counter[str](claim.outcome for claim in model.claims)
    parts = [f"{counts[outcome]:,} {mark}" for outcome, mark in MARKS.items() if counts[outcome]]  # worst first
    if set(counts) == {"passed"}:
        parts = [MARKS["passed"]]
    elif not counts:
        parts = ["measured"] if model.sweeps else []
    if model.gate is not None:
        parts.append(f"gate {MARKS.get(model.gate.outcome, model.gate.outcome)}")
    if model.doubts:
        parts.append(pluralize(len(model.doubts), "doubt"))
    return ", ".join(parts)


def _closest(model: ModelReport) -> str:
    """Return the passed claim that is closest to its threshold, with its value; a dash if there is none."""
    claim = closest_claim(model.claims)
    if claim is None:
        return DASH
    threshold = CellClaim(bound=claim.bound, threshold=claim.threshold, outcome=claim.outcome)
    value = claim.numbers.model_copy(update={"low": None, "high": None})  # an interval would not fit
    return one_line(f"{claim.sweep} {claim.strength} {claim.metric} {TERMINAL.entry(claim.metric, value, threshold)}")


def is_red(sweep: SweepReport) -> bool:
    """Return whether a cell of a sweep has no numbers, or a claim that is not met."""
    red = {MARKS[outcome] for outcome in RED}
    return any(verdict_label(cell) in red for cell in sweep.cells)


def is_quiet(model: ModelReport) -> bool:
    """Return whether a model leaves nothing to look at: it has claims, and no claim, gate, cell or doubt is open."""
    gate = model.gate is None or model.gate.outcome in ("passed", "skipped")
    return bool(model.claims or model.gate) and gate and not model.open_doubts and not any(map(is_red, model.sweeps))
