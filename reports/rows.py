"""The rows of a result: one per fold, system, sweep, strength and set of images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

Row = Mapping[str, Any]


def mean(values: Sequence[float]) -> float:
    """Return the mean of numbers, NaN if there is none."""
    return sum(values) / len(values) if values else math.nan


@dataclass(frozen=True)
class Measured:
    """The rows of one data set at one scale."""

    source: str
    rows: Sequence[Row]
    scale: str = "full"

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Self:
        """Return the rows of a result."""
        return cls(result["source"], unpacked(result), result["scale"])

    def folds(
        self, system: str, sweep: str, metric: str = "accuracy", strength: str | None = None, images: str = "fold"
    ) -> list[float]:
        """Return a number of every fold, in their order; NaN for a fold without one."""
        numbers = {}
        for row in self.rows:
            cell = (row["system"], row["sweep"], row["images"])
            if cell == (system, sweep, images) and strength in (None, row["strength"]):
                value = row.get(metric)
                numbers[row["fold"]] = math.nan if value is None else float(value)
        return [numbers[fold] for fold in sorted(numbers)]

    def mean(
        self, system: str, sweep: str, metric: str = "accuracy", strength: str | None = None, images: str = "fold"
    ) -> float:
        """Return the mean over the folds; NaN if any fold has no number."""
        return mean(self.folds(system, sweep, metric, strength, images))

    def strengths(self, sweep: str) -> list[str]:
        """Return the strengths of a sweep, in rising order."""
        return sorted({row["strength"] for row in self.rows if row["sweep"] == sweep}, key=float)

    def sizes(self, sweep: str) -> list[str]:
        """Return the numbers of images of a sweep."""
        return [f"{n:,}" for n in sorted({row["n"] for row in self.rows if row["sweep"] == sweep})]


def packed(rows: Sequence[Row]) -> dict[str, Any]:
    """Return rows as a result file stores them: the names of the columns once."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return {"columns": columns, "rows": [[row.get(column) for column in columns] for row in rows]}


def unpacked(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a result by the names of their columns."""
    return [dict(zip(result["columns"], row, strict=True)) for row in result["rows"]]
