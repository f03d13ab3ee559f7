"""A sweep as rows of text: one per strength, the clean one first, with numbers and thresholds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from robustness.cards.schema import NO_CLAIM
from robustness.metrics.evidence import DECIDED, OK
from robustness.reporting.report import ModelReport
from robustness.reporting.sweep_report import BOUNDS, NOT_KEPT, CellClaim, CellReport, NumberReport, SweepReport
from robustness.util.text import DASH, NAME, one_line

COLUMNS = {
    "snr": "SNR dB",
    "accuracy": "accuracy [95 %]",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "loss": "loss",
}

MARKS = {
    "error": "ERROR",
    "not run": "not run",
    "failed": "FAILED",
    "vacuous": "vacuous",
    "waived": "waived",
    "skipped": "skipped",
    "passed": "ok",
    "not selected": "not selected",
    NO_CLAIM: NO_CLAIM,
}
"""Worst first: a row has one mark for all its claims."""


@dataclass(frozen=True)
class NumberFormat:
    """
    Number format: the decimals of a rate, .5 or 0.5, and whether all intervals are shown or only that of accuracy.

    >>> found = NumberReport(value=0.94996, low=0.92, high=0.97)
    >>> NumberFormat(3, bare=True).entry("f1", found), NumberFormat(4, intervals=True).entry("f1", found)
    ('.950', '0.9500 [0.9200, 0.9700]')
    >>> NumberFormat(3, bare=True).entry("f1", found, CellClaim(bound="at least", threshold=0.95, outcome="failed"))
    '.94996 <.95'
    """

    places: int
    bare: bool = False
    intervals: bool = False

    def entry(
        self, metric: str, number: NumberReport | None, claim: CellClaim | None = None, *, interval: bool = False
    ) -> str:
        """Write a measured metric: value, interval, and the threshold if a claim on it ran."""
        if number is None:
            return ""
        if number.method == BOUNDS and number.low is not None and number.high is not None:
            low, high = (self.number(metric, end, self.places) for end in (number.low, number.high))
            return f"between {low} and {high}"
        if number.value is None:
            return DASH
        ran = claim is not None and claim.outcome in ("passed", "failed", "vacuous")
        threshold, most = (claim.threshold, claim.bound == "at most") if claim is not None and ran else (None, False)
        shown = self._value(metric, number.value, threshold, most)
        if (self.intervals or metric == "accuracy" or interval) and number.low is not None and number.high is not None:
            ends = (self.number(metric, end, self.places) for end in (number.low, number.high))
            shown += f" [{', '.join(ends)}]"
        if threshold is None:
            return shown
        return f"{shown} {_sign(number.value, threshold, most)}{self._zero(f'{threshold:.12g}')}"

    def _value(self, metric: str, value: float, threshold: float | None, most: bool) -> str:
        """Write a value with enough decimals to show on which side of its threshold it lies."""
        for places in range(self.places, 17):
            shown = self.number(metric, value, places)
            if threshold is None or _sign(float(shown), threshold, most) == _sign(value, threshold, most):
                return shown
        return self._zero(repr(value))

    def number(self, metric: str, value: float, places: int) -> str:
        """Write a number with this many decimals, in dB with two fewer; a huge one with this many digits."""
        if metric == "snr":
            return f"{value:.{max(places - 2, 0)}f}"
        return self._zero(f"{value:.{places}f}" if abs(value) < 1000 else f"{value:.{places}g}")

    def _zero(self, number: str) -> str:
        return number.removeprefix("0") if self.bare and number.startswith("0.") else number


TERMINAL = NumberFormat(3, bare=True)
PAGE = NumberFormat(4, intervals=True)
PRINT = NumberFormat(3)


def sweep_table(
    model: ModelReport, sweep: SweepReport, style: NumberFormat, without: Collection[str] = ()
) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a sweep's table; a row has numbers only if its cell has."""
    columns = [metric for metric in COLUMNS if metric not in without]
    own = sweep.strength_name
    strength = {"snr": "dB", "snr-std": "dB / std", "image-std": f"{own} / std"}.get(sweep.unit, own)
    rows = [
        [
            one_line(name, NAME) + _deviation(cell),
            *(style.entry(metric, cell.metrics.get(metric), cell.claims.get(metric)) for metric in columns),
            verdict_label(cell),
        ]
        for name, cell in labelled_cells(model, sweep)
    ]
    return [strength, *(COLUMNS[metric] for metric in columns), "verdict"], rows


def repeated_columns(model: ModelReport, sweep: SweepReport) -> list[str]:
    """Return "recall" if it equals accuracy in every row, as on balanced classes, and has no other claims."""
    cells = [cell for _, cell in labelled_cells(model, sweep)]
    return ["recall"] if cells and all(map(_repeats_accuracy, cells)) else []


def _repeats_accuracy(cell: CellReport) -> bool:
    recall, accuracy = (cell.number(metric).value for metric in ("recall", "accuracy"))
    claims = cell.claims.get("recall"), cell.claims.get("accuracy")
    equal = recall == accuracy
    if recall is not None and accuracy is not None:
        equal = math.isclose(recall, accuracy, abs_tol=1e-12)  # the mean over classes is rounded otherwise
    return equal and (claims[0] is None or claims[0] == claims[1])


def _deviation(cell: CellReport) -> str:
    """Write the standard deviation of a cell's noise, if it differs from the strength."""
    return "" if cell.deviation is None else f" (σ {cell.deviation:.3f})"


def sweeps_with_table(model: ModelReport) -> list[SweepReport]:
    """Return the sweeps with a table: all except the clean pass, which is a row in each, unless it is the only one."""
    others = [sweep for sweep in model.sweeps if sweep.name != "clean"]
    return others or list(model.sweeps)


def labelled_cells(model: ModelReport, sweep: SweepReport) -> Iterator[tuple[str, CellReport]]:
    """Return the cells of a sweep by the names of their rows, the clean one first."""
    for each in model.sweeps:
        if each.name == "clean":
            yield from (("clean", cell) for cell in each.cells)
    if sweep.name != "clean":
        yield from ((cell.strength, cell) for cell in sweep.cells)


def has_numbers(sweep: SweepReport) -> bool:
    """Return whether a sweep has numbers for a table."""
    return sweep.evidence is not None or any(cell.metrics for cell in sweep.cells)


def verdict_label(cell: CellReport, metric: str | None = None) -> str:
    """Return the worst outcome of a cell's claims, or that of one metric's claim; "not claimed" if there is none."""
    if cell.status not in (OK, NOT_KEPT) and not cell.status.startswith(DECIDED):
        return MARKS["error"]
    outcomes = {claim.outcome for name, claim in cell.claims.items() if metric in (None, name)}
    return next((shown for outcome, shown in MARKS.items() if outcome in outcomes), "not claimed")


def _sign(value: float, threshold: float, most: bool) -> str:
    if most:
        return "≤" if value <= threshold else ">"
    return "≥" if value >= threshold else "<"
