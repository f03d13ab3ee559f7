"""Coordinates of lines and marks of a metric over strength; `templates/figures.html` draws them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from robustness.metrics.evidence import OK
from robustness.reporting.gate_report import AcceptedStrength, PairedCell
from robustness.reporting.report import ModelReport
from robustness.reporting.sweep_report import NOT_KEPT, CellReport, NumberReport, SweepReport
from robustness.reporting.table_rows import labelled_cells, verdict_label
from robustness.util.text import one_line

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 38, 348, 10, 184
INSET = 10
"""Distance from the frame to the first and last strength."""
LETTER = 6.2
"""Approximate width of a label's digit."""
LABEL = 10
"""Maximum characters of a strength's name on an axis."""
CLEAN = "clean"


@dataclass(frozen=True)
class Point:
    """One strength: its position, description and measured numbers; y is None if there is no number."""

    x: float
    y: float | None
    low: float | None
    high: float | None
    threshold: float | None
    baseline: float | None
    failed: bool
    said: str
    strength: str
    numbers: NumberReport


@dataclass(frozen=True)
class Curve:
    """A metric of one sweep: points from weak to strong, axis labels (position, text), and the better direction."""

    metric: str
    bound: str
    points: Sequence[Point]
    across: Sequence[tuple[float, str]]
    up: Sequence[tuple[float, str]]

    def stretches(self) -> Iterator[Sequence[Point]]:
        """Return the runs of points that a line may join: no line crosses a strength without a number."""
        run: list[Point] = []
        for point in self.points:
            if point.y is None:
                yield from [run] if run else []
                run = []
            else:
                run.append(point)
        yield from [run] if run else []

    def band(self) -> Iterator[str]:
        """Return the outline of the intervals, one polygon per run of points."""
        for run in self.stretches():
            edged = [p for p in run if p.low is not None and p.high is not None]
            corners = [(p.x, p.high) for p in edged] + [(p.x, p.low) for p in reversed(edged)]
            if len(edged) > 1:
                yield " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)

    def line(self, name: str) -> Iterator[str]:
        """Return the lines that join the values, the thresholds or the baselines of neighbours."""
        run: list[str] = []
        for point in (*self.points, None):
            at = None if point is None else getattr(point, name)
            if point is not None and at is not None:
                run.append(f"{point.x:.1f},{at:.1f}")
            elif run:
                yield " ".join(run)
                run = []


def curves(model: ModelReport, sweep: SweepReport) -> list[Curve]:
    """Return the curve of accuracy, and of each metric with a threshold in the sweep."""
    cells = list(labelled_cells(model, sweep))
    claimed = [metric for cell in sweep.cells for metric, claim in cell.claims.items() if claim.threshold is not None]
    return [
        _curve(metric, cells, sweep, _accepted(model, sweep.name, metric))
        for metric in dict.fromkeys(("accuracy", *claimed))
        if any(cell.number(metric).value is not None for _, cell in cells)
    ]


def _curve(
    metric: str, cells: Sequence[tuple[str, CellReport]], sweep: SweepReport, accepted: Mapping[str, float]
) -> Curve:
    places = _places([name for name, _ in cells], sweep.unit)
    bottom, top, ticks = _range(
        [value for _, cell in cells for value in _values(cell, metric)] + list(accepted.values())
    )

    def height(value: float | None) -> float | None:
        return None if value is None else BOTTOM - (BOTTOM - TOP) * (value - bottom) / (top - bottom)

    points, bound = [], "at least"
    for (name, cell), x in zip(cells, places, strict=True):
        if metric not in cell.metrics and cell.status in (OK, NOT_KEPT):
            continue  # not claimed there, which is no failure
        number, claim = cell.number(metric), cell.claims.get(metric)
        bound = bound if claim is None else claim.bound
        low, high, threshold = (
            height(number.low),
            height(number.high),
            height(None if claim is None else claim.threshold),
        )
        baseline = height(accepted.get(name if name == CLEAN else cell.strength))
        failed = claim is not None and claim.outcome not in ("passed", "skipped", "not selected", "no claim possible")
        label = _description(name, metric, cell)
        points.append(Point(x, height(number.value), low, high, threshold, baseline, failed, label, name, number))
    up = [(BOTTOM - (BOTTOM - TOP) * (tick - bottom) / (top - bottom), f"{tick:g}") for tick in ticks]
    return Curve(metric, bound, points, _labels([name for name, _ in cells], places), up)


def _values(cell: CellReport, metric: str) -> Iterator[float]:
    number, claim = cell.number(metric), cell.claims.get(metric)
    values = (number.value, number.low, number.high, None if claim is None else claim.threshold)
    yield from (value for value in values if value is not None)


def _accepted(model: ModelReport, sweep: str, metric: str) -> dict[str, float]:
    """Return the baseline's value at each strength that a gate compared: the mean, if there are several models."""
    if model.gate is None:
        return {}
    accepted: list[tuple[PairedCell | AcceptedStrength, float | None]] = [
        *((cell, cell.baseline) for cell in model.gate.table.paired),
        *((row, row.mean) for row in model.gate.table.strengths),
    ]
    return {
        CLEAN if cell.sweep == CLEAN else cell.strength: value
        for cell, value in accepted
        if cell.sweep in (CLEAN, sweep) and cell.metric == metric and value is not None
    }


def _description(name: str, metric: str, cell: CellReport) -> str:
    """Describe a point in words, for screen readers and for the tooltip."""
    number, claim = cell.number(metric), cell.claims.get(metric)
    if number.value is None:
        return f"{name}: {metric}: no number ({number.note or cell.status})"
    text = f"{name}: {metric} {number.value:.4f}"
    if number.low is not None and number.high is not None:
        text += f" [{number.low:.4f}, {number.high:.4f}]"
    if claim is not None and claim.threshold is not None:
        text += f", {claim.bound} {claim.threshold:g}: {verdict_label(cell, metric)}"
    return text


def _places(names: Sequence[str], unit: str) -> list[float]:
    """
    Place strengths to scale, the clean pass at 0; evenly if they are ratios or no numbers.

    >>> _places(["clean", "0.5", "2"], "default"), _places(["clean", "uniform", "2"], "default")
    ([48.0, 120.5, 338.0], [48.0, 193.0, 338.0])
    """
    sizes = [_size("0" if name == "clean" else name) for name in names]
    if unit not in ("default", "image-std") or any(b <= a for a, b in pairwise(sizes)):
        sizes = list(range(len(names)))
    if not all(map(math.isfinite, sizes)):
        sizes = list(range(len(names)))
    first, width = sizes[0], (sizes[-1] - sizes[0]) or 1
    return [LEFT + INSET + (RIGHT - LEFT - 2 * INSET) * (size - first) / width for size in sizes]


def _size(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return math.inf


def _labels(names: Sequence[str], places: Sequence[float]) -> list[tuple[float, str]]:
    """Return the labels of an axis that fit, the first of neighbours."""
    labels: list[tuple[float, str]] = []
    edge = -math.inf
    for name, place in zip(names, places, strict=True):
        text = one_line(name, LABEL)
        half = LETTER * len(text) / 2
        if place - half > edge:
            labels.append((place, text))
            edge = place + half + 4
    return labels


def _range(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """
    Return the ends of an axis and its ticks: 0 to 1 for rates, else a round number above the largest.

    >>> _range([0.1, 0.9]), _range([0.2, 3.4])
    ((0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]), (0.0, 4.0, [0.0, 1.0, 2.0, 3.0, 4.0]))
    """
    low, high = min((0.0, *values)), max((0.0, *values))
    if low >= 0 and high <= 1:
        return 0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, last * step, [tick * step for tick in range(first, last + 1)]
