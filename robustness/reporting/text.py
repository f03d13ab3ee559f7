"""Text around a table: the data, and the notes on its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any

from robustness.cards.doubts import DOUBTS
from robustness.metrics.evidence import OK
from robustness.reporting.report import ModelReport
from robustness.reporting.sweep_report import NOT_KEPT, CellReport, SweepReport
from robustness.reporting.table_rows import COLUMNS, labelled_cells
from robustness.util.text import DASH, NAME, one_line

NAMED = 12
"""Doubts that a sentence names: of a model that cannot be loaded, none could be checked."""


def data_summary(model: ModelReport) -> str:
    """Return the data, images, seed, device and scale of a model's numbers as a sentence."""
    n = DASH if model.data.n is None else f"{model.data.n:,}"
    weights = f", weights {PurePath(model.candidate).name}" if model.candidate else ""
    return one_line(f"{model.data.name}, n = {n}, seed {model.seed}, {model.device}, {model.scale} scale{weights}")


def title(sweep: SweepReport) -> str:
    """Name a sweep with its parameters, without unset ones."""
    about = [] if sweep.kind == sweep.name else [sweep.kind]
    about += [f"{key} {value}" for key, value in sweep.parameters.items() if value is not None]
    about += ["strengths are signal-to-noise ratios"] * (sweep.unit == "snr")
    about += ["strengths are ratios of each image's contrast to the noise"] * (sweep.unit == "snr-std")
    about += ["strengths are in standard deviations of each image"] * (sweep.unit == "image-std")
    return one_line(f"{sweep.name} ({', '.join(about)})" if about else sweep.name)


def explain_missing(model: ModelReport, sweep: SweepReport) -> str:
    """Explain why a sweep has no numbers."""
    outcomes = Counter(claim.outcome for cell in sweep.cells for claim in cell.claims.values())
    fate = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items())
    fate = f"claims: {fate}" if fate else "nothing was claimed"
    messages = (c.message for c in model.claims if c.sweep == sweep.name and c.outcome != "skipped")
    return one_line(f"{title(sweep)}: no numbers; {fate}{_after(': ', next(messages, ''))}", 300)


def table_notes(model: ModelReport, sweep: SweepReport) -> Iterator[str]:
    """Return notes on a sweep's table: cells without numbers, and caveats of numbers."""
    if sweep.evidence is None:
        yield "The evidence was not stored, so the table shows what the claims measured."
    cells = list(labelled_cells(model, sweep))
    for about in ([(cell.status, name) for name, cell in cells], [(cell.note, name) for name, cell in cells]):
        for note, rows in _grouped(about):
            if note not in (OK, NOT_KEPT, ""):
                yield f"{rows}: {one_line(note, 300)}."
    for note, where in _notes(cells).items():
        for rows, names in _grouped((rows, metric) for metric, rows in where.items()):
            yield f"{names} at {rows}: {one_line(note, 300)}."


def _notes(cells: list[tuple[str, CellReport]]) -> dict[str, dict[str, str]]:
    """Collect the notes on numbers, each with its metrics and their rows."""
    notes: dict[str, dict[str, str]] = {}
    # An unchanged image has an infinite ratio: for clean images that is trivial.
    for metric in dict.fromkeys(metric for _, cell in cells for metric in cell.metrics if metric != "snr"):
        shown = one_line(COLUMNS.get(metric, metric).partition(" [")[0], NAME)
        for note, rows in _grouped((cell.number(metric).note, name) for name, cell in cells):
            if note:
                notes.setdefault(note, {})[shown] = rows
    return notes


def doubts(model: ModelReport) -> Iterator[str]:
    """Return a sentence for every reason to distrust a model's numbers."""
    for doubt in model.doubts:
        yield one_line(f"Doubt: {doubt}{_after(': ', str(DOUBTS.get(doubt, '')))}.")


def standing(model: ModelReport) -> Iterator[str]:
    """Return the doubts about a model's numbers: raised in this run, or not checkable."""
    if names := model.open_doubts:
        more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
        listed = "; ".join([*names[:NAMED], *more])
        yield one_line(
            f"These numbers of {model.name} are in doubt: {listed}. Resolve the doubts first (docs/doubts.md); until "
            "then no claims are suggested."
        )


def sweeps_not_run(model: ModelReport) -> Iterator[str]:
    """Return the card's sweeps that were not part of the run."""
    if model.not_run:
        yield one_line(f"Not part of this run: {', '.join(model.not_run)}.")


def _after(mark: str, text: str) -> str:
    return f"{mark}{text}" if text else ""


def _grouped(pairs: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, str]]:
    """Join the names with equal values."""
    groups: dict[Any, list[str]] = {}
    for thing, name in pairs:
        groups.setdefault(thing, []).append(one_line(name, NAME))
    for thing, names in groups.items():
        yield thing, ", ".join(names)
