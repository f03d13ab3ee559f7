"""The rows of a result over the folds of a protocol: one a system, sweep, strength and set of images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


def mean(values: Sequence[float]) -> float:
    """Return the mean of numbers, NaN if there is none."""
    return sum(values) / len(values) if values else math.nan


@dataclass(frozen=True)
class Measured:
    """The rows of one data set."""

    source: str
    rows: Sequence[Row]
    scale: str = "full"

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Measured:
        """Return the rows of a result."""
        return cls(result["source"], unpacked(result), result["scale"])

    def folds(
        self, system: str, sweep: str, metric: str, strength: str | None = None, images: str = "fold"
    ) -> list[float]:
        """Return a number of every fold, in their order, on some ``images``; NaN where there is none."""
        found = {}
        for row in self.rows:
            cell = (row["system"], row["sweep"], row["images"])
            if cell == (system, sweep, images) and strength in (None, row["strength"]):
                value = row.get(metric)
                found[row["fold"]] = math.nan if value is None else float(value)
        return [found[fold] for fold in sorted(found)]

    def mean(self, system: str, sweep: str, metric: str, strength: str | None = None, images: str = "fold") -> float:
        """Return the mean over the folds; NaN where any has none."""
        return mean(self.folds(system, sweep, metric, strength, images))

    def strengths(self, sweep: str) -> list[str]:
        """Return the strengths of a sweep, in their order."""
        return sorted({row["strength"] for row in self.rows if row["sweep"] == sweep}, key=float)


def packed(rows: Sequence[Row]) -> dict[str, Any]:
    """Return rows as they go into a result file: the names of the columns once."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return {"columns": columns, "rows": [[row.get(column) for column in columns] for row in rows]}


def unpacked(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Return the rows of a result by their columns' names, without what is missing.

    >>> unpacked({"columns": ["n", "kept"], "rows": [[3, None], [4, 0.5]]})
    [{'n': 3, 'kept': None}, {'n': 4, 'kept': 0.5}]
    >>> packed([{"n": 3}, {"n": 4, "kept": 0.5}])
    {'columns': ['n', 'kept'], 'rows': [[3, None], [4, 0.5]]}
    """
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
