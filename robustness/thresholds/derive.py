"""
Thresholds from healthy trainings: the mean, less c standard deviations, where that clears what ignorance gets.

Pure arithmetic on a table of measured values, one row a training and one column a cell (sweep, strength, metric).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.errors import RobustnessError

LEAST_C = 3.0
MOST_C = 10.0
"""Trainings that need more than this are an accident and no spread; bounds that allowed for them would hide damage."""
MOST_C_OF_FEW = 30.0
"""The same for fewer than ten trainings, of which the deviation of the others is itself a guess."""
STEP = 0.1
RED_SHARE = 1 / 50
DECIMALS = 4

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]


class UnstableTrainings(RobustnessError):
    """Trainings that lie so far from the others that no threshold would hold both; ``rows`` says which."""

    def __init__(self, reason: str, rows: tuple[int, ...]) -> None:
        super().__init__(reason)
        self.rows = rows


@dataclass(frozen=True, eq=False)
class Thresholds:
    """One bound a cell, NaN where no claim is possible; ``left_out_red`` are the rows that the others call red."""

    bounds: Values
    higher: Flags
    c: float
    left_out_red: tuple[int, ...]

    def missed(self, measured: ArrayLike) -> Flags:
        """
        Return for each cell, or each row's cells, whether its claim is broken; a NaN breaks a claim.

        >>> found = Thresholds(np.array([0.9, np.nan, 0.5]), np.array([True, True, False]), 3.0, ())
        >>> found.missed([[0.91, 0.0, 0.6], [np.nan, 0.0, 0.5]]).tolist()
        [[False, False, True], [True, False, False]]
        """
        return _missed(np.asarray(measured, np.float64), self.bounds, self.higher)


def derive(measured: ArrayLike, higher: ArrayLike, limits: ArrayLike, resolution: ArrayLike = 0.0) -> Thresholds:
    """
    Return bounds of all cells, and the c that they were made with.

    ``measured`` (trainings, cells), ``higher`` (cells,) whether more is better, ``limits`` (cells,) what a bound must
    be beyond (see `luck_limit`), ``resolution`` (cells,) the smallest deviation that is believed: trainings that agree
    to the image do not differ by nothing. c is the smallest multiple of 0.1, at least 3, with which at most 1 in 50 of
    the trainings are red in any cell under the bounds of all the others. Lower bounds are rounded down to four
    decimals, upper ones up. NotHealthy where c would have to be above 10 (30 for fewer than ten trainings).

    >>> found = derive([[0.9], [0.92], [0.91], [0.93]], [True], [0.1])
    >>> found.bounds.tolist(), found.c, found.left_out_red
    ([0.8762], 3.0, ())
    """
    table, better = np.asarray(measured, np.float64), np.asarray(higher, bool)
    if table.ndim != 2 or len(table) < 3 or better.shape != table.shape[1:]:
        raise ValueError(
            f"`measured` must be (trainings, cells) of at least 3 trainings, got {table.shape} for {better.shape} "
            "directions; three are needed to leave one out"
        )
    limits, least = np.asarray(limits, np.float64), np.asarray(resolution, np.float64)
    # A cell without a number in some training promises nothing.
    complete = np.where(np.isfinite(table).all(axis=0), table, np.nan)
    others = [_spread(np.delete(complete, row, axis=0), least) for row in range(len(table))]
    most = MOST_C if len(table) >= 10 else MOST_C_OF_FEW
    for step in range(round(LEAST_C / STEP), round(most / STEP) + 1):
        c = step * STEP
        red = tuple(
            row
            for row, (mean, deviation) in enumerate(others)
            if _missed(complete[row], _bounds(mean, deviation, c, better, limits), better).any()
        )
        if len(red) <= RED_SHARE * len(table):
            return Thresholds(_bounds(*_spread(complete, least), c, better, limits), better, round(c, 1), red)
    raise UnstableTrainings(
        f"{len(red)} of {len(table)} trainings lie more than {most:g} standard deviations from all the others", red
    )


def _spread(table: Values, least: Values) -> tuple[Values, Values]:
    return table.mean(axis=0), np.maximum(table.std(axis=0, ddof=1), least)


def _bounds(mean: Values, deviation: Values, c: float, higher: Flags, limits: Values) -> Values:
    scale = 10.0**DECIMALS
    down, up = np.floor((mean - c * deviation) * scale), np.ceil((mean + c * deviation) * scale)
    # Dividing whole numbers gives the decimal that a card holds, to the bit.
    bounds = np.where(higher, down, up) / scale
    return np.where(np.where(higher, bounds > limits, bounds < limits), bounds, np.nan)


def _missed(measured: Values, bounds: Values, higher: Flags) -> Flags:
    kept = np.where(higher, measured >= bounds, measured <= bounds)
    return ~kept & ~np.isnan(bounds)
