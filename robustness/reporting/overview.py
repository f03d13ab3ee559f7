"""One row per model: how its claims and its gate ended, its weakest claim, and what changed since the baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from robustness.reporting.outcomes import closest_claim, half_widths, weakest_claim
from robustness.reporting.report import ClaimReport, ModelReport, RunReport
from robustness.reporting.report_types import RED
from robustness.reporting.sweep_report import CellClaim, SweepReport
from robustness.reporting.table_rows import MARKS, PAGE, TERMINAL, NumberFormat, verdict_label
from robustness.util.text import DASH, NAME, one_line, pluralize, table

HEADER = ["model", "claims", "verdict", "n", "closest to its threshold"]
RELEASE = [
    "model", "verdict", "clean accuracy [95 %]", "lowest claimed accuracy", "weakest margin", "change since baseline",
    "n",
]  # fmt: skip
CHANGES = ["model", "cell", "baseline", "now", "change", "images lost", "images gained"]
NAMED = 3
"""Models that a title names."""
MOST_CHANGES = 12
"""Rows of the table of changes; each gate's own table has all."""


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
    return DASH if claim is None else _measured(claim, TERMINAL)


def _measured(claim: ClaimReport, style: NumberFormat) -> str:
    """Return a claim's place, value and threshold."""
    threshold = CellClaim(bound=claim.bound, threshold=claim.threshold, outcome=claim.outcome)
    value = claim.numbers.model_copy(update={"low": None, "high": None})  # an interval would not fit
    return one_line(f"{claim.sweep} {claim.strength} {claim.metric} {style.entry(claim.metric, value, threshold)}")


def model_names(report: RunReport) -> str:
    """Name the first models of a run, and count the others."""
    names = [one_line(model.name, NAME) for model in report.models]
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join(names[:NAMED] + more) or "no model"


def release_rows(report: RunReport) -> list[list[str]]:
    """
    Return a row of `RELEASE` per model, in the order of the report.

    The weakest margin is that of the measured claim that is least met, in half-widths of its interval. The change is
    the largest drop of a cell since the baseline, or of a mean over the accepted retrainings.
    """
    return [
        [
            one_line(model.name, NAME),
            _verdict(model) or DASH,
            _clean_accuracy(model),
            _lowest_accuracy(model),
            _weakest(model),
            _change(model),
            DASH if model.data.n is None else f"{model.data.n:,}",
        ]
        for model in report.models
    ]


def _clean_accuracy(model: ModelReport) -> str:
    clean = next((cell for sweep in model.sweeps if sweep.name == "clean" for cell in sweep.cells), None)
    return DASH if clean is None else PAGE.entry("accuracy", clean.metrics.get("accuracy")) or DASH


def _lowest_accuracy(model: ModelReport) -> str:
    measured = [
        (claim.numbers.value, f"{claim.sweep} {claim.strength}")
        for claim in model.claims
        if claim.metric == "accuracy" and claim.sweep != "clean" and claim.numbers.value is not None
    ]
    if not measured:
        return DASH
    value, place = min(measured)
    return f"{value:.4f} at {one_line(place, NAME)}"


def _weakest(model: ModelReport) -> str:
    claim = weakest_claim(model.claims)
    return DASH if claim is None else f"{_signed(half_widths(claim), 2)} half-widths: {_measured(claim, PAGE)}"


def _change(model: ModelReport) -> str:
    drops = [(drop, row[0]) for drop, row in _changes(model)]
    if not drops:
        return DASH
    drop, cell = max(drops)
    return f"{_signed(-drop, 4)} at {cell}"


def _changes(model: ModelReport) -> Iterator[tuple[float, list[str]]]:
    """Return the drop of each cell of a gate, positive if the model is worse, with its entries of `CHANGES`."""
    table = None if model.gate is None else model.gate.table
    for cell in [] if table is None else table.paired:
        images = (_images(cell.losses, cell.lost), _images(cell.gains, cell.gained))
        yield cell.drop, [one_line(cell.cell, NAME), *map(_number, (cell.baseline, cell.candidate)), *images]
    for row in [] if table is None else table.retraining:
        if row.candidate is not None:
            drop = (row.mean - row.candidate) * (row.sign or 1)
            yield drop, [one_line(row.cell, NAME), _number(row.mean), _number(row.candidate), DASH, DASH]


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.4f}"


def _signed(value: float | None, places: int) -> str:
    return DASH if value is None else f"{value + 0.0:+.{places}f}".replace("-", "−")


def change_rows(report: RunReport) -> list[list[str]]:
    """Return a row of `CHANGES` per cell that changed since the baseline, the largest drops first."""
    changed = [(drop, model.name, row) for model in report.models for drop, row in _changes(model)]
    largest = sorted((each for each in changed if _differs(*each)), key=lambda each: -each[0])[:MOST_CHANGES]
    return [[one_line(name, NAME), *row[:3], _signed(-drop, 4), *row[3:]] for drop, name, row in largest]


def _differs(drop: float, _: str, row: list[str]) -> bool:
    return bool(drop) or any(images not in (DASH, "0") for images in row[3:])


def _images(count: int | None, rows: list[int] | None) -> str:
    if count is None:
        return DASH
    shown = [str(row) for row in (rows or [])[:5]] + ["…"] * (count > 5)
    return f"{count:,} ({', '.join(shown)})" if count else "0"


def is_red(sweep: SweepReport) -> bool:
    """Return whether a cell of a sweep has no numbers, or a claim that is not met."""
    red = {MARKS[outcome] for outcome in RED}
    return any(verdict_label(cell) in red for cell in sweep.cells)


def is_quiet(model: ModelReport) -> bool:
    """Return whether a model leaves nothing to look at: it has claims, and no claim, gate, cell or doubt is open."""
    gate = model.gate is None or model.gate.outcome in ("passed", "skipped")
    return bool(model.claims or model.gate) and gate and not model.open_doubts and not any(map(is_red, model.sweeps))
