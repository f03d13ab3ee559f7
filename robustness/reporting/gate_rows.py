"""A model's gate and waivers as rows and sentences, for every form of the report."""

from __future__ import annotations

from collections.abc import Iterator

from robustness.reporting.gate_report import PairedCell, RetrainingCell
from robustness.reporting.report import ModelReport
from robustness.reporting.run_info import GateTally
from robustness.util.text import DASH, NAME, one_line, pluralize

PAIRED = ["cell", "verdict", "drop [interval]", "margin", "lost", "gained", "baseline", "now"]
NARROW = len(PAIRED)
"""The columns in a terminal."""
PAIRED += ["McNemar p", "sees", "decides with"]
CAUGHT = ["damage", "detected by its claims from", "detected by its gate from"]
RETRAINING = ["summary", "verdict", "accepted mean ± sd", "now", "bound", "sees"]


def gate_grid(model: ModelReport, *, every: bool) -> tuple[list[str], list[list[str]]]:
    """
    Return header and rows of a gate's table; without ``every``, cells of a paired gate that passed are left out.

    If there is no gate, or it compared nothing, there are no rows.
    """
    if model.gate is not None and model.gate.table.kind == "retraining":
        return RETRAINING, [_summary(cell) for cell in model.gate.table.retraining]
    cells = [] if model.gate is None else model.gate.table.paired
    shown = [cell for cell in cells if every or cell.verdict != "passed"]
    columns = len(PAIRED) if every else NARROW
    return PAIRED[:columns], [_cell(cell)[:columns] for cell in shown]


def _cell(cell: PairedCell) -> list[str]:
    return [
        one_line(cell.cell, NAME),
        cell.verdict,
        f"{_number(cell.drop)} [{_number(cell.low)}, {_number(cell.high)}]",
        f"{cell.margin:g}",
        *(DASH if images is None else str(images) for images in (cell.losses, cell.gains)),
        *(_number(value) for value in (cell.baseline, cell.candidate)),
        DASH if cell.mcnemar is None else f"{cell.mcnemar:.2g}",
        _number(cell.smallest_drop),
        DASH if cell.images_needed is None else f"{cell.images_needed:,} images",
    ]


def _summary(cell: RetrainingCell) -> list[str]:
    return [
        one_line(cell.cell, NAME),
        cell.verdict,
        f"{_number(cell.mean)} ± {_number(cell.spread)}",
        _number(cell.candidate),
        _number(cell.bound),
        _number(cell.caught_from),
    ]


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.4f}"


def gate_sentences(model: ModelReport) -> Iterator[str]:
    """Return a gate's message and notes as sentences."""
    gate = model.gate
    if gate is None:
        return
    yield f"Gate: {one_line(gate.message)}."
    table = gate.table
    yield from (f"Gate: {one_line(note)}." for note in table.notes)
    if table.passes_if_equal is not None:
        yield f"Gate: a model as good as the baseline passes in {table.passes_if_equal:.0%} of cases."
    if worse := [cell for cell in table.paired if cell.verdict == "failed" and cell.lost]:
        worst = max(worse, key=lambda cell: cell.drop - cell.margin)
        lost = worst.lost or []
        which, more = ", ".join(map(str, lost)), ", …" * ((worst.losses or 0) > len(lost))
        yield f"Gate: lost in {one_line(worst.cell, NAME)}: images {which}{more}, counted from 0."
    if bound := sum(cell.verdict == "passed" for cell in table.cells):
        yield f"Gate: {pluralize(bound, 'cell')} within the margin, in the report files."


def caught_grid(model: ModelReport) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the damage that a model's claims and gate detect; no rows if unknown."""
    damage = [] if model.caught is None else model.caught.damage
    return CAUGHT, [[one_line(d.title), *(one_line(by or "not detected") for by in (d.claims, d.gate))] for d in damage]


def caught_sentences(model: ModelReport) -> Iterator[str]:
    """Return the false alarm rate on undamaged models as a sentence."""
    caught = model.caught
    if caught and caught.retrainings:
        yield (
            f"False alarms: {caught.false_alarms.either} of {caught.retrainings} undamaged retrainings fail "
            f"({caught.false_alarms.claims} by claims, {caught.false_alarms.gate} by the gate)."
        )


def waiver_sentences(model: ModelReport) -> Iterator[str]:
    """Return a sentence for every waiver of a model's card, in force or expired."""
    for waiver in model.waivers:
        what = f"claim {waiver.claim}" if waiver.claim else f"gate's cell {waiver.cell}"
        fate = "expired" if waiver.expired else "in force"
        yield one_line(f"Waiver ({fate} until {waiver.expires}, {waiver.owner}): {what}: {waiver.reason}")


def gate_counts(gates: GateTally) -> str:
    """
    Return a sentence on the outcomes of a run's gates; "" if there are none.

    >>> gate_counts(GateTally(passed=2, failed=1))
    '3 gates: 2 passed, 1 failed'
    """
    counts = gates.by_fate()
    fates = ", ".join(f"{n} {fate}" for fate, n in counts.items())
    return f"{pluralize(sum(counts.values()), 'gate')}: {fates}" if counts else ""
