"""Healthy trainings of a card: its cells, the number of trainings, and their measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustness import claims
from robustness.cards import Card
from robustness.errors import SweepError, TrainingError
from robustness.metrics import registry
from robustness.metrics.chance_level import lucky_level
from robustness.metrics.evidence import OK, RAISED, Evidence
from robustness.perturbations import strength as strengths
from robustness.thresholds import derive as thresholds
from robustness.workspace.workspace import Workspace, fresh_workspace

METRICS = ("accuracy", "precision", "recall")
"""The claimed metrics of a sweep if the card names none."""


FLIP_RATE = "flip_rate"
"""What ``[search]`` claims."""


@dataclass(frozen=True)
class ThresholdCell:
    """The cell of one threshold: a metric of a sweep at a strength, or the flip rate of the search."""

    sweep: str
    strength: str
    metric: str

    def __str__(self) -> str:
        return f"{self.sweep} at {self.strength}: {self.metric}" if self.sweep else f"search: {self.metric}"


def threshold_cells(card: Card) -> tuple[ThresholdCell, ...]:
    """Return the cells that a card claims, or will claim, in the order of its tables; the flip rate is last."""
    cells = []
    for sweep in ("clean", *card.file.sweeps):
        table = card.file.claims.get(sweep)
        listed = table.strengths if table and table.strengths is not None else card.file.strengths_of(sweep)
        compared = () if card.perturbation(sweep).source_card is None else ("transferability",)
        chosen = (*METRICS, *compared) if table is None else table.thresholds
        cells += [ThresholdCell(sweep, strengths.name(strength), metric) for metric in chosen for strength in listed]
    return (*cells, ThresholdCell("", "", FLIP_RATE)) if card.file.search else tuple(cells)


def default_retraining_count(seconds: float) -> int:
    """
    Return the number of healthy trainings for a given training time.

    >>> default_retraining_count(5), default_retraining_count(60)
    (40, 10)
    """
    if seconds < 60:
        return 40
    if seconds < 600:
        return 10
    raise TrainingError(
        f"one training takes {seconds / 60:.0f} minutes, too long to start ten more automatically; set the number with "
        "--seeds N"
    )


def derive(
    workspace: Workspace, card: Card, table: np.ndarray, resolution: np.ndarray, seeds: Sequence[int]
) -> thresholds.Thresholds:
    """Return thresholds of a card's cells, from the measurements of its healthy trainings and their resolution."""
    images, each = workspace.images(card), threshold_cells(card)
    metrics = {m: registry.get(m) for m in {cell.metric for cell in each} - {FLIP_RATE}}
    limits = {m: lucky_level(m, images.labels, images.classes) for m in metrics} | {FLIP_RATE: 1.0}
    try:
        return thresholds.derive(
            table,
            [cell.metric != FLIP_RATE and metrics[cell.metric].better == "higher" for cell in each],
            [limits[cell.metric] for cell in each],
            resolution,
        )
    except thresholds.UnstableTrainings as error:
        raise TrainingError(
            f"{card.name}: {error} (seeds {', '.join(str(seeds[row]) for row in error.rows)}); no threshold fits such "
            "trainings, so none was written; find out why they fail, or make the recipe more stable"
        ) from error


def measure(workspace: Workspace, card: Card, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """
    Sweep the card's trainings with these seeds; return every cell's value (seeds, cells) and resolution (cells,).

    The resolution is the change of a rate by one image: large if few images are counted. A cell without numbers is NaN,
    and its reason a notice; SweepError if code failed.
    """
    rows: list[list[tuple[float, float]]] = []
    with workspace.progress(f"sweeping {len(seeds)} trainings of {card.name}") as show:
        for seed in seeds:
            one = fresh_workspace(workspace)
            rows.append(_row(one, card.reseeded(seed), f"seed {seed}"))
            for notice in one.notices:
                workspace.notice(notice)
            if show:
                show(len(rows), len(seeds))
    values, resolutions = np.moveaxis(np.array(rows), 2, 0)
    return values, resolutions.max(axis=0)


def _row(workspace: Workspace, card: Card, which: str) -> list[tuple[float, float]]:
    from robustness.search import card_search

    swept: dict[str, Evidence] = {}
    row = []
    for cell in threshold_cells(card):
        if cell.metric == FLIP_RATE:
            assert card.file.search is not None
            row.append((card_search.flip_rate(workspace, card), 1 / card.file.search.images))
            continue
        evidence = swept.get(cell.sweep) or swept.setdefault(cell.sweep, workspace.evidence(card, cell.sweep))
        status = evidence.status[evidence.index(cell.strength)]
        if status.startswith(RAISED):
            raise SweepError(f"{card.name} ({which}) under {cell.sweep} at {cell.strength}: {status}")
        if status != OK:
            workspace.notice(f"no claim is possible under {cell.sweep} at {cell.strength}: {status} ({which})")
        row.append(_measured(evidence, cell) if status == OK else (np.nan, 0.0))
    return row


def _measured(evidence: Evidence, cell: ThresholdCell) -> tuple[float, float]:
    """Return a cell's value and its change by one image, which is undefined for means such as loss."""
    measurement = claims.measure(evidence, cell.strength, cell.metric)
    if measurement.method == "normal":
        return measurement.value, 0.0
    return measurement.value, 1 / (measurement.n or len(evidence))
