"""
Thresholds from healthy trainings: the mean minus c standard deviations, if that exceeds the chance level.

Pure arithmetic on a table of measured values, one row per training and one column per cell (sweep, strength, metric).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.errors import RobustnessError

LEAST_C = 3.0
MOST_C = 10.0
"""Largest c: trainings that need more are outliers, and bounds that allow them would hide damage."""
MOST_C_OF_FEW = 30.0
"""The same for fewer than ten trainings, whose estimated deviation is itself uncertain."""
STEP = 0.1
RED_SHARE = 1 / 50
DECIMALS = 4

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]


class UnstableTrainings(RobustnessError):
    """Trainings so far from the others that no threshold fits both; ``rows`` lists them."""

    def __init__(self, reason: str, rows: tuple[int, ...]) -> None:
        super().__init__(reason)
        self.rows = rows


@dataclass(frozen=True, eq=False)
class Thresholds:
    """One bound per cell, NaN if no claim is possible; ``left_out_red`` are the rows that fail when left out."""

    bounds: Values
    higher: Flags
    c: float
    left_out_red: tuple[int, ...]

    def missed(self, measured: ArrayLike) -> Flags:
        """
        Return for each cell, or each row's cells, whether its claim fails; a NaN fails.

        >>> found = Thresholds(np.array([0.9, np.nan, 0.5]), np.array([True, True, False]), 3.0, ())
        >>> found.missed([[0.91, 0.0, 0.6], [np.nan, 0.0, 0.5]]).tolist()
        [[False, False, True], [True, False, False]]
        """
        return _missed(np.asarray(measured, np.float64), self.bounds, self.higher)


def derive(measured: ArrayLike, higher: ArrayLike, limits: ArrayLike, resolution: ArrayLike = 0.0) -> Thresholds:
    """
    Return bounds of all cells, and their c.

    ``measured`` (trainings, cells), ``higher`` (cells,) whether more is better, ``limits`` (cells,) what a bound must
    be beyond (see `luck_limit`), ``resolution`` (cells,) the smallest deviation to assume: trainings that agree on
    every image still differ. c is the smallest multiple of 0.1, at least 3, for which at most 1 in 50 trainings fails
    in any cell under the bounds of all the others. Lower bounds are rounded down to four decimals, upper ones up.
    UnstableTrainings if c would exceed 10 (30 for fewer than ten trainings).

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
    # A cell without a number in some training gets no claim.
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
    # Dividing integers gives exactly the decimal in the card.
    bounds = np.where(higher, down, up) / scale
    return np.where(np.where(higher, bounds > limits, bounds < limits), bounds, np.nan)


def _missed(measured: Values, bounds: Values, higher: Flags) -> Flags:
    holds = np.where(higher, measured >= bounds, measured <= bounds)
    return ~holds & ~np.isnan(bounds)
