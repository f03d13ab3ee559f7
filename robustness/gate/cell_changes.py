"""`robustness compare`: two runs, or a baseline and a run, cell by cell, and which cells are worse beyond chance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from robustness.errors import RobustnessError
from robustness.gate import paired_stats
from robustness.gate.differences import paired_difference
from robustness.metrics import registry
from robustness.metrics.evidence import Evidence
from robustness.reporting.report_types import RED
from robustness.reporting.sweep_report import NumberReport
from robustness.util.text import DASH, one_line

Change = Literal["worse", "better", "within chance", "equal", "not tested", "no numbers"]
ORDER: tuple[Change, ...] = ("worse", "not tested", "better", "within chance", "equal", "no numbers")
"""What a reader must see first."""

ALPHA = 0.05
"""The probability that any of the cells of equal models counts as worse or better."""


@dataclass(frozen=True)
class CellChange:
    """
    One metric at one strength, before and after.

    ``low`` and ``high`` bound the difference (after minus before) with 90 %, ``lost`` and ``gained`` count images:
    unknown if the images were not compared one by one. ``p`` is corrected for the number of cells by Holm's procedure.
    """

    model: str
    sweep: str
    strength: str
    metric: str
    before: float | None
    after: float | None
    low: float | None = None
    high: float | None = None
    lost: int | None = None
    gained: int | None = None
    p: float | None = None
    note: str = ""
    claims: tuple[str, str] = ("", "")
    """The outcome of the claim on this cell in each run; "" without one."""
    change: Change = "not tested"

    @property
    def name(self) -> str:
        """`sweep:strength:metric`."""
        return f"{self.sweep}:{self.strength}:{self.metric}"

    @property
    def deficit(self) -> float:
        """How much worse it is now: positive if worse, 0 if either number is missing."""
        if self.before is None or self.after is None:
            return 0.0
        sign = 1 if registry.get(self.metric).better == "higher" else -1
        return sign * (self.before - self.after)

    @property
    def claim_fell(self) -> bool:
        """Whether a claim passed before and does not now."""
        return self.claims[0] == "passed" and self.claims[1] in RED


class Weights(NamedTuple):
    """The names of a model's weights before and after."""

    model: str
    before: str
    after: str
    data: str
    images: int | None


@dataclass(frozen=True)
class Comparison:
    """
    Everything that two runs have in common, the worst first.

    ``missing`` are models of the first run that the second lacks, ``added`` those that only the second has.
    """

    first: str
    second: str
    weights: Sequence[Weights]
    cells: Sequence[CellChange]
    missing: Sequence[str] = ()
    added: Sequence[str] = ()
    notes: Sequence[str] = field(default=())

    @property
    def worse(self) -> bool:
        """Whether any cell is worse, or a model is missing."""
        return bool(self.missing or self.of("worse"))

    def of(self, change: Change) -> list[CellChange]:
        """Return the cells with one kind of change."""
        return [cell for cell in self.cells if cell.change == change]

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        counts = [f"{len(self.of(change))} {change}" for change in ORDER if self.of(change)]
        several = f"{len(self.cells)} cell{'s' * (len(self.cells) != 1)}: {', '.join(counts)}"
        missing = f"; missing from the second run: {', '.join(self.missing)}" if self.missing else ""
        if not self.worse:
            return f"not worse: {several}"
        if not (worst := self.of("worse")):
            return f"worse: {several}{missing}"
        return one_line(f"worse: {several}; most of all {described(worst[0])}{missing}")


def described(cell: CellChange) -> str:
    """
    Return a cell's change in a few words.

    >>> described(CellChange("net", "fgsm", "0.1", "accuracy", 0.75, 0.5))
    'net fgsm:0.1:accuracy, 0.7500 → 0.5000'
    """
    was, now = (DASH if value is None else f"{value:.4f}" for value in (cell.before, cell.after))
    fell = f" (its claim {cell.claims[1]})" if cell.claim_fell else ""
    return f"{cell.model} {cell.name}, {was} → {now}{fell}"


def judged(cells: Iterable[CellChange]) -> list[CellChange]:
    """Correct the p-values for their number, say what changed, and put what got worse first."""
    listed = list(cells)
    tested = {i: cell.p for i, cell in enumerate(listed) if cell.p is not None}
    for i, p in zip(tested, paired_stats.holm(list(tested.values())), strict=True):
        listed[i] = replace(listed[i], p=float(p))
    listed = [replace(cell, change=_change(cell)) for cell in listed]
    return sorted(listed, key=lambda cell: (ORDER.index(cell.change), not cell.claim_fell, -cell.deficit))


def _change(cell: CellChange) -> Change:
    if cell.claim_fell or (cell.after is None and cell.before is not None):
        return "worse"
    if cell.before is None or cell.after is None:
        return "no numbers" if cell.after is None else "not tested"
    if cell.before == cell.after and not (cell.lost or cell.gained):
        return "equal"
    if cell.p is None:
        return "not tested"
    if cell.p > ALPHA or not cell.deficit:
        return "within chance"
    return "worse" if cell.deficit > 0 else "better"


def by_image(cell: CellChange, before: Evidence | None, after: Evidence | None) -> CellChange:
    """Add interval, changed images and p-value, if the evidence of both is there and the metric counts images."""
    if before is None or after is None or not registry.gateable(cell.metric):
        return cell
    try:
        drop = paired_difference(cell.metric, before, after, cell.strength)
    except (RobustnessError, KeyError):
        return cell
    if drop.changes is None:
        return _by_error(cell, drop.error)
    lost, gained = int((drop.changes > 0).sum()), int((drop.changes < 0).sum())
    low, high = paired_stats.interval([lost], [gained], [drop.n])
    ends = sorted(-drop.sign * float(end[0]) for end in (low, high))
    p = float(paired_stats.mcnemar([lost], [gained])[0])
    return replace(cell, low=ends[0], high=ends[1], lost=lost, gained=gained, p=p)


def by_intervals(cell: CellChange, before: NumberReport, after: NumberReport) -> CellChange:
    """
    Add interval and p-value from the 95 % intervals of two numbers, as if their images were independent.

    On the same images that is too wide: it calls fewer cells worse than a comparison by image.
    """
    widths = [
        (each.high - each.low) / 2 if each.low is not None and each.high is not None else 0.0
        for each in (before, after)
    ]
    if cell.p is not None or cell.before is None or cell.after is None or not all(widths):
        return cell
    return _by_error(cell, math.hypot(*widths) / paired_stats.normal_quantile(0.025))


def _by_error(cell: CellChange, error: float) -> CellChange:
    """Add interval and p-value of a difference with a standard error."""
    if cell.before is None or cell.after is None or not error > 0:
        return cell
    moved, reach = cell.after - cell.before, paired_stats.normal_quantile(ALPHA) * error
    p = min(1.0, 2 * float(paired_stats.upper_tail(abs(moved) / error)))
    return replace(cell, low=moved - reach, high=moved + reach, p=p)
