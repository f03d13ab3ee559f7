"""What healthy trainings of a card reach: its cells, how many trainings its recipe affords, and their measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustness import claims, strengths, thresholds
from robustness.cards import Card
from robustness.errors import SweepError, TrainingError
from robustness.evidence import OK, RAISED, Evidence
from robustness.harness import Harness
from robustness.measures import metrics

METRICS = ("accuracy", "precision", "recall")
"""What is claimed of a sweep for which the card does not say it."""


@dataclass(frozen=True)
class Cell:
    """What one threshold is about."""

    sweep: str
    strength: str
    metric: str

    def __str__(self) -> str:
        return f"{self.sweep} at {self.strength}: {self.metric}"


def cells(card: Card) -> tuple[Cell, ...]:
    """Give everything that a card claims, or is to claim, row by row of its tables."""
    found = []
    for sweep in ("clean", *card.file.sweeps):
        table = card.file.claims.get(sweep)
        listed = table.strengths if table and table.strengths is not None else card.file.strengths_of(sweep)
        compared = () if card.perturbation(sweep).made_on is None else ("transferability",)
        chosen = (*METRICS, *compared) if table is None else table.thresholds
        found += [Cell(sweep, strengths.name(strength), metric) for metric in chosen for strength in listed]
    return tuple(found)


def seeds_by_time(seconds: float) -> int:
    """
    Give how many healthy trainings to make where one takes so long.

    >>> seeds_by_time(5), seeds_by_time(60)
    (40, 10)
    """
    if seconds < 60:
        return 40
    if seconds < 600:
        return 10
    raise TrainingError(
        f"one training takes {seconds / 60:.0f} minutes, too long to make ten more unasked; "
        "say how many to make the thresholds from with --seeds N"
    )


def derive(harness: Harness, card: Card, table: np.ndarray, seeds: Sequence[int]) -> thresholds.Thresholds:
    """Make thresholds of a card's cells from the measurements (seeds, cells) of its healthy trainings."""
    images, each = harness.images(card), cells(card)
    kinds = [metrics.parse(cell.metric, images.classes).kind for cell in each]
    limits = {m: thresholds.limit(m, images.labels, images.classes) for m in {cell.metric for cell in each}}
    try:
        return thresholds.derive(
            table,
            [kind.better == "higher" for kind in kinds],
            [limits[cell.metric] for cell in each],
            # Rates move by an image or more, and loss by anything.
            [1 / len(images) if kind.rate or kind.compares else 0.0 for kind in kinds],
        )
    except thresholds.NotHealthy as error:
        raise TrainingError(
            f"{card.name}: {error} (seeds {', '.join(str(seeds[row]) for row in error.rows)}); no thresholds hold such "
            "trainings and none were written: see why they fail, or make the recipe steadier"
        ) from error


def measure(harness: Harness, card: Card, seeds: Sequence[int]) -> np.ndarray:
    """
    Sweep the card's trainings with these seeds and measure every cell, (seeds, cells).

    A cell without numbers is NaN, and its reason a notice; SweepError where code failed.
    """
    rows = []
    with harness.progress(f"sweeping {len(seeds)} trainings of {card.name}") as show:
        for seed in seeds:
            one = anew(harness)
            rows.append(_row(one, card.reseeded(seed), f"seed {seed}"))
            for notice in one.notices:
                harness.notice(notice)
            if show:
                show(len(rows), len(seeds))
    return np.array(rows)


def _row(harness: Harness, card: Card, which: str) -> list[float]:
    swept: dict[str, Evidence] = {}
    row = []
    for cell in cells(card):
        evidence = swept.get(cell.sweep) or swept.setdefault(cell.sweep, harness.evidence(card, cell.sweep))
        status = evidence.status[evidence.index(cell.strength)]
        if status.startswith(RAISED):
            raise SweepError(f"{card.name} ({which}) under {cell.sweep} at {cell.strength}: {status}")
        if status != OK:
            harness.notice(f"no claim is possible under {cell.sweep} at {cell.strength}: {status} ({which})")
        row.append(claims.measure(evidence, cell.strength, cell.metric).value if status == OK else np.nan)
    return row


def anew(harness: Harness) -> Harness:
    """Give a harness with the same settings that holds nothing: forty models need not lie in memory at once."""
    return Harness(harness.store, harness.data_root, harness.device, harness.seed, harness.threads, dtype=harness.dtype)
