"""Matrices as tables of shaded numbers, which `templates/figures.html` draws: confusion, attractors, transfer, …"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from robustness.reporting.report import ModelReport, RunReport
from robustness.reporting.sweep_report import Confusion, NumberReport, SweepReport
from robustness.reporting.table_rows import PAGE, labelled_cells

TRANSFER = ("transferability", "selective_transferability")


@dataclass(frozen=True)
class HeatmapCell:
    """A cell: its number, its text, its shade (0 to 1), and whether it is a correct entry."""

    value: float | int | None
    text: str
    share: float = 0.0
    good: bool = False


@dataclass(frozen=True)
class Heatmap:
    """A table: its corner, the names of columns, and rows with their names."""

    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[HeatmapCell]]]


def confusion_heatmap(confusion: Confusion) -> Heatmap:
    """
    Return images by true class (row) and predicted class (column), shaded by its fraction of the row.

    >>> heat = confusion_heatmap(Confusion(strength="1", classes=["cat", "dog"], matrix=[[3, 1], [0, 4]]))
    >>> [(shade.value, shade.share, shade.good) for shade in heat.rows[0][1]]
    [(3, 0.75, True), (1, 0.25, False)]
    """
    rows = [
        (name, [HeatmapCell(n, str(n), n / (sum(row) or 1), i == j) for j, n in enumerate(row)])
        for i, (name, row) in enumerate(zip(confusion.classes, confusion.matrix, strict=True))
    ]
    return Heatmap("true \\ predicted", confusion.classes, rows)


def attractors(model: ModelReport, sweep: SweepReport) -> Heatmap | None:
    """Return misclassified images by strength (row) and predicted class (column), shaded by row."""
    rows = {
        name: {drawn.label: drawn.images for drawn in cell.attractors or ()}
        for name, cell in labelled_cells(model, sweep)
        if cell.metrics
    }
    totals: dict[str, int] = {}
    for drawn in rows.values():
        for name, images in drawn.items():
            totals[name] = totals.get(name, 0) + images
    known = () if sweep.confusion is None else sweep.confusion.classes
    columns = [name for name in known if name in totals]
    columns += sorted(totals.keys() - set(columns), key=lambda name: -totals[name])
    if not columns:
        return None
    shaded = [
        (strength, [HeatmapCell(n, str(n), n / (sum(drawn.values()) or 1)) for n in (drawn.get(c, 0) for c in columns)])
        for strength, drawn in rows.items()
    ]
    return Heatmap("strength \\ predicted as", columns, shaded)


def corruptions(model: ModelReport) -> Heatmap | None:
    """Return the accuracy by common corruption (row) and severity (column), shaded by the error; None for one sweep."""
    sweeps = [sweep for sweep in model.sweeps if sweep.kind == "corruption" and sweep.cells]
    if len(sweeps) < 2:
        return None
    severities = sorted({cell.strength for sweep in sweeps for cell in sweep.cells}, key=float)
    rows = []
    for sweep in sweeps:
        numbers = {cell.strength: cell.number("accuracy") for cell in sweep.cells}
        rows.append((sweep.name, [_accuracy(numbers.get(severity)) for severity in severities]))
    return Heatmap("corruption \\ severity", severities, rows)


def _accuracy(number: NumberReport | None) -> HeatmapCell:
    if number is None or number.value is None:
        return HeatmapCell(None, "—")
    return HeatmapCell(number.value, f"{number.value:.3f}", 1 - number.value)


def transfers(report: RunReport) -> Iterator[tuple[str, Heatmap]]:
    """
    Return, for each attack, strength and metric, a matrix of models: source in the row, target in the column.

    The diagonal has the success rate of the white-box attack, if a card sweeps it.
    """
    groups: dict[str, list[tuple[ModelReport, SweepReport]]] = {}
    for model in report.models:
        for sweep in model.sweeps:
            groups.setdefault(_attack(sweep), []).append((model, sweep))
    for group in groups.values():
        sweeps = {(s.source, m.name): s for m, s in group if s.source}
        own = {m.name: s for m, s in group if not s.source}
        if sweeps:
            some = next(iter(sweeps.values()))
            for strength in (cell.strength for cell in some.cells):
                for metric in TRANSFER:
                    yield from _matrix(sweeps, own, strength, metric, some.kind)


def _attack(sweep: SweepReport) -> str:
    """Group attacks by everything except their source model."""
    parameters = {key: value for key, value in sweep.parameters.items() if key != "source"}
    return json.dumps([sweep.kind, parameters, sweep.unit], sort_keys=True)


def _matrix(
    sweeps: Mapping[tuple[str, str], SweepReport], own: Mapping[str, SweepReport], strength: str, metric: str, kind: str
) -> Iterator[tuple[str, Heatmap]]:
    entries = {pair: entry for pair, s in sweeps.items() if (entry := _entry(s, strength, metric)).value is not None}
    if not entries:
        return
    sources = list(dict.fromkeys(source for source, _ in entries))
    targets = list(dict.fromkeys(target for _, target in entries))
    if metric == TRANSFER[0]:
        targets += [name for name in sources if name not in targets and name in own]
        for name in sources:
            entries[name, name] = _entry(own.get(name), strength, "attack_success_rate", "itself: ")
    rows = [
        (source, [entries.get((source, target), HeatmapCell(None, "")) for target in targets]) for source in sources
    ]
    yield f"{metric} of {kind} at {strength}", Heatmap("made on \\ tested on", targets, rows)


def _entry(sweep: SweepReport | None, strength: str, metric: str, before: str = "") -> HeatmapCell:
    if sweep is None:
        return HeatmapCell(None, "")
    number = next((cell.number(metric) for cell in sweep.cells if cell.strength == strength), None)
    if number is None or number.value is None:
        return HeatmapCell(None, "—")
    return HeatmapCell(number.value, before + PAGE.entry(metric, number), number.value)
