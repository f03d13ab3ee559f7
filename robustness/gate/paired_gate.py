"""Compare two models image by image: passed if every drop is significantly within its margin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustness.cards.gate import GateTable
from robustness.gate import ladder_power, ladder_stats, paired_stats, power
from robustness.gate.baseline import Baseline
from robustness.gate.differences import (
    DISAGREEMENT,
    GateCell,
    GateError,
    PairedDifference,
    critical_difference,
    disagreement,
)
from robustness.gate.differences import paired_difference as drop_of
from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import wilson

Decided = tuple[Any, str, dict[str, Any]]
"""The outcome, the sentence, and the table."""
LISTED = 20
"""Number of lost, and of gained, images that a row lists."""


def evaluate_paired_gate(
    gate: GateTable,
    baseline: Baseline,
    swept: Mapping[str, Evidence],
    cells: Sequence[GateCell],
    waived: Mapping[str, str],
    same: int | None = None,
    levels: tuple[float, float] | None = None,
) -> Decided:
    """
    Compare a model with the one accepted model.

    If it is the `same` model, every cell passes by identity, on any number of images.

    Passed if the upper bound of the drop is within the margin in every cell: α bounds a false pass, uncorrected,
    because all cells must pass. Failed if the drop significantly exceeds it in some cell, by Holm's procedure: α bounds
    a false failure of the whole gate. Else inconclusive. `levels`, of a pass and of a failure, replace α where many
    models are judged.
    """
    if len(baseline.accepted) != 1:
        raise GateError(
            f"a paired gate compares with one accepted model, but its baseline has {len(baseline.accepted)}; accept a "
            'single run, or write kind = "retraining"'
        )
    was = {name: baseline.evidence(0, name, evidence) for name, evidence in swept.items()}
    drops = [cell_drop(cell, was[cell.sweep], swept[cell.sweep]) for cell in cells]
    passing, failing = levels or (gate.alpha, gate.alpha)
    rows = judge(cells, drops, passing, waived, same=same is not None, failing=failing)
    fates = [row["verdict"] for row in rows]
    if all(fate == "waived" for fate in fates):
        raise GateError("every cell is waived, so nothing is left to test; remove a waiver")
    equal, met = passes_if_equal(cells, drops, passing, waived), len(cells) - fates.count("waived")
    table = {"cells": rows, "passes_if_equal": equal}
    if worse := [row for row in rows if row["verdict"] == "failed"]:
        worst = max(worse, key=lambda row: float(row["drop"] - row["margin"]))
        seen = f"failed: {len(worse)} of {met} cells are worse by more than their margin; {_worst_cell(worst)}"
        return "failed", seen, table
    if same is not None:
        how = f"these are the accepted weights, and all their predictions in {met} cells are unchanged"
        return "passed", f"passed by identity: {how}", table
    if "inconclusive" not in fates:
        bounded = f"a drop equal to the margin passes with probability at most {gate.alpha:.0%}"
        bounded += " in any look" * (levels is not None)
        return "passed", f"passed: in all {met} cells the drop is within its margin ({bounded})", table
    left = [(cell, drop) for cell, drop in zip(cells, drops, strict=True) if str(cell) not in waived]
    images = len(baseline.labels)
    needed = images_needed([cell.margin for cell, _ in left], [drop for _, drop in left], passing, images, failing)
    many = "no number of images would decide (one drop equals its margin)"
    if math.isfinite(needed):
        many = f"{max(needed, images + 1):,.0f} images would decide in at least {power.POWER:.0%} of cases"
    return (
        "inconclusive",
        f"is inconclusive: {fates.count('inconclusive')} of {met} cells are undecided; at the observed rates {many}, "
        f"and with these {images:,} a model as good passes in {equal:.0%} of cases",
        table,
    )


def cell_drop(cell: GateCell, baseline: Evidence, candidate: Evidence) -> PairedDifference:
    """Compare two models in one cell, by the critical strengths of its sweep, or by their decisions."""
    if cell.metric == DISAGREEMENT:
        return disagreement(baseline, candidate, cell.strength)
    if cell.strengths:
        return critical_difference(baseline, candidate, cell.strengths)
    return drop_of(cell.metric, baseline, candidate, cell.strength)


def images_needed(
    margins: Sequence[float],
    drops: Sequence[PairedDifference],
    alpha: float,
    images: int,
    failing: float | None = None,
) -> float:
    """
    Return how many test images decide the whole gate with at least 80 % probability at the observed rates.

    One cell that exceeds its margin decides. If none does, all cells must be within theirs: the probability to miss
    that is divided among the cells.
    """
    margin, tests = np.array(margins), len(drops)
    scale = np.array([images / drop.n for drop in drops])  # a metric may count only some of the images
    beyond = np.array([drop.drop for drop in drops]) > margin
    if beyond.any():
        return float((_needed(drops, margin, alpha, tests, failing=failing) * scale)[beyond].min())
    return float((_needed(drops, margin, alpha, tests, 1 - (1 - power.POWER) / tests) * scale).max())


def _needed(
    drops: Sequence[PairedDifference],
    margin: Any,
    alpha: float,
    tests: int,
    chance: float = power.POWER,
    failing: float | None = None,
) -> Any:
    """Return how many images, as the metric counts them, decide each cell with at least probability `chance`."""
    seen, losses, gains, counted = _arrays(drops)
    n, error = np.array([drop.n for drop in drops]), np.array([drop.error for drop in drops])
    failing = alpha if failing is None else failing
    level = np.where(seen > margin, failing, alpha)
    by_count = power.required_sample_size(seen, margin, _discordance(losses, gains, n), level, chance, tests)
    z = np.where(seen > margin, paired_stats.normal_quantile(failing / tests), paired_stats.normal_quantile(alpha))
    with np.errstate(divide="ignore", invalid="ignore"):
        by_delta = np.ceil(n * ((z + paired_stats.normal_quantile(1 - chance)) * error / (margin - seen)) ** 2)
    needed = np.where(counted, by_count, by_delta)
    for i, (drop, most) in enumerate(zip(drops, margin, strict=True)):
        if drop.steps > 1:
            needed[i] = ladder_power.required_sample_size(*_tally(drop), most, level[i], tests, chance)
    return needed


def _tally(drop: PairedDifference) -> tuple[Any, Any]:
    """Return how many images have each drop of a ladder, and these drops."""
    assert drop.changes is not None
    return ladder_stats.tally(drop.changes, drop.steps), ladder_stats.ladder(drop.steps)


def _discordance(losses: Any, gains: Any, n: Any) -> Any:
    """Return the fraction of images that differ, plus one image: none observed does not prove that there is none."""
    return np.minimum((losses + gains + 1) / n, 1.0)


def judge(
    cells: Sequence[GateCell],
    drops: Sequence[PairedDifference],
    alpha: float,
    waived: Mapping[str, str],
    *,
    same: bool = False,
    failing: float | None = None,
) -> list[dict[str, Any]]:
    """
    Return the table, one row per cell; waived cells neither fail nor count.

    Cells of the `same` model pass by identity: their drop is 0, without an interval. A cell passes at level `alpha`,
    and the gate fails at level `failing`, by default the same.
    """
    failing = alpha if failing is None else failing
    free = np.array([str(cell) not in waived for cell in cells])
    n = np.array([drop.n for drop in drops])
    margin = np.array([cell.margin for cell in cells])
    seen, losses, gains, counted = _arrays(drops)
    low, high, over = _bounds(drops, margin, alpha, failing)
    adjusted = np.ones(len(cells))
    adjusted[free] = paired_stats.holm(over[free])
    tests = max(int(free.sum()), 1)
    fates = np.where(adjusted <= failing, "failed", np.where(high <= margin, "passed", "inconclusive"))
    needed = _needed(drops, margin, alpha, tests, failing=failing)
    error = np.array([drop.error for drop in drops])
    by_delta = (
        margin + (paired_stats.normal_quantile(failing / tests) + paired_stats.normal_quantile(1 - power.POWER)) * error
    )
    by_count = power.detectable_drop(margin, _discordance(losses, gains, n), n, failing, tests)
    for i, drop in enumerate(drops):
        if drop.steps > 1:
            by_count[i] = ladder_power.detectable_drop(*_tally(drop), margin[i], failing, tests)
    if same:
        low, high, adjusted = np.zeros(len(cells)), np.zeros(len(cells)), np.ones(len(cells))
        fates, needed = np.full(len(cells), "passed"), np.full(len(cells), math.nan)
    columns = {
        "drop": seen,
        "low": low,
        "high": high,
        "p_fail": adjusted,
        "mcnemar": np.where(counted, paired_stats.mcnemar(losses, gains), math.nan),
        "images_needed": np.where(fates == "inconclusive", np.maximum(needed, n + 1), needed),
        "smallest_drop": np.where(counted, by_count, by_delta),
    }
    return [
        {
            "cell": str(cell), "sweep": cell.sweep, "strength": cell.strength, "metric": cell.metric,
            "margin": cell.margin, "n": drop.n, "baseline": drop.baseline, "candidate": drop.candidate,
            "baseline_interval": _wilson(drop.baseline, drop), "candidate_interval": _wilson(drop.candidate, drop),
            "method": "identity" if same else drop.method,
            "losses": int(losses[i]) if counted[i] else None, "gains": int(gains[i]) if counted[i] else None,
            "lost": _which(drop, 1), "gained": _which(drop, -1),
            **{name: _plain(values[i], whole=name == "images_needed") for name, values in columns.items()},
            "verdict": str(fates[i]) if free[i] else "waived",
            "waiver": waived.get(str(cell)),
        }
        for i, (cell, drop) in enumerate(zip(cells, drops, strict=True))
    ]  # fmt: skip


def _arrays(drops: Sequence[PairedDifference]) -> tuple[Any, Any, Any, Any]:
    losses = np.array([0 if d.changes is None else int((d.changes > 0).sum()) for d in drops])
    gains = np.array([0 if d.changes is None else int((d.changes < 0).sum()) for d in drops])
    return np.array([d.drop for d in drops]), losses, gains, np.array([d.changes is not None for d in drops])


def _bounds(drops: Sequence[PairedDifference], margin: Any, passing: float, failing: float) -> tuple[Any, Any, Any]:
    """Return both ends of the drop's interval, and the p-value of "at most the margin"."""
    seen, losses, gains, counted = _arrays(drops)
    n, error = np.array([d.n for d in drops]), np.array([d.error for d in drops])
    low, high = paired_stats.interval(losses, gains, n, passing)
    if failing != passing:
        low = paired_stats.interval(losses, gains, n, failing)[0]
    z_high, z_low = paired_stats.normal_quantile(passing), paired_stats.normal_quantile(failing)
    with np.errstate(invalid="ignore"):
        by_delta = paired_stats.upper_tail((seen - margin) / error)
    over = np.where(counted, paired_stats.p_exceeds_margin(losses, gains, n, margin), by_delta)
    low, high = np.where(counted, low, seen - z_low * error), np.where(counted, high, seen + z_high * error)
    for i, drop in enumerate(drops):
        if drop.steps > 1:
            low[i], high[i] = ladder_stats.interval(*_tally(drop), passing)
            if failing != passing:
                low[i] = ladder_stats.interval(*_tally(drop), failing)[0]
            over[i] = ladder_stats.p_exceeds_margin(*_tally(drop), margin[i])
    return low, high, over


def passes_if_equal(
    cells: Sequence[GateCell], drops: Sequence[PairedDifference], alpha: float, waived: Mapping[str, str]
) -> float:
    """Return how often an equal model passes: by permutation for counted images, a lower bound for the others."""
    free = [pair for pair in zip(cells, drops, strict=True) if str(pair[0]) not in waived]
    pairs = [(cell, drop) for cell, drop in free if cell.metric != DISAGREEMENT]  # an exchange of models changes none
    counted = [(cell, drop.changes, drop) for cell, drop in pairs if drop.changes is not None]
    others = [(cell.margin / drop.error) for cell, drop in pairs if drop.changes is None]
    passes = 1.0
    if counted:
        margin, n = np.array([cell.margin for cell, _, _ in counted]), np.array([drop.n for _, _, drop in counted])
        changes, steps = np.stack([changes for _, changes, _ in counted]), [drop.steps for _, _, drop in counted]
        passes = power.pass_rate_if_equal(changes, n, margin, alpha, steps=steps)
    missed = float(paired_stats.upper_tail(np.array(others) - paired_stats.normal_quantile(alpha)).sum())
    return max(passes - missed, 0.0)


def _which(drop: PairedDifference, change: int) -> list[int] | None:
    """Return the indices of the first images that changed in one direction, in the tested split."""
    return None if drop.changes is None else np.flatnonzero(np.sign(drop.changes) == change)[:LISTED].tolist()


def _wilson(rate: float, drop: PairedDifference) -> list[float] | None:
    return None if drop.changes is None or drop.steps > 1 else list(wilson(round(rate * drop.n), drop.n))


def _plain(value: Any, *, whole: bool) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if whole else float(value)


def _worst_cell(row: Mapping[str, Any]) -> str:
    if row["method"] == DISAGREEMENT:
        return (
            f"at worst {row['cell']}: {row['losses']} decisions differ, a share of {row['drop']:.4f} "
            f"[{row['low']:.4f}, {row['high']:.4f}], accepted {row['margin']:g} (p = {row['p_fail']:.2g})"
        )
    counted = "" if row["losses"] is None else f"; {row['losses']} images lost, {row['gains']} gained"
    if row["method"] == "paired ladder":
        counted = f"; {row['losses']} images misled at a smaller strength, {row['gains']} at a larger one"
    return (
        f"at worst {row['cell']} went from {row['baseline']:.4f} to {row['candidate']:.4f}, a drop of "
        f"{row['drop']:.4f} [{row['low']:.4f}, {row['high']:.4f}], accepted {row['margin']:g} (p = "
        f"{row['p_fail']:.2g}{counted})"
    )
