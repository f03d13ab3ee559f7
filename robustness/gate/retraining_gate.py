"""Is the difference larger than retraining would explain? Compares summaries with those of accepted retrainings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustness.cards.gate import GateTable
from robustness.gate import retraining_stats
from robustness.gate.baseline import Baseline
from robustness.gate.differences import GateCell, GateError, cell_value
from robustness.metrics import registry
from robustness.metrics.evidence import Evidence

Floats = NDArray[np.float64]


def evaluate_retraining_gate(
    gate: GateTable,
    baseline: Baseline,
    swept: Mapping[str, Evidence],
    cells: Sequence[GateCell],
    waived: Mapping[str, str],
    same: int | None = None,
) -> tuple[Any, str, dict[str, Any]]:
    """
    Compare a retraining with the accepted ones, by each metric's clean value and mean over each sweep's strengths.

    With enough accepted retrainings for α, the rank of the largest standardised shortfall decides. It assumes only that
    a healthy retraining is exchangeable with them. With fewer, the widened t bound decides; with
    fewer than five, the gate is inconclusive. An accepted model itself (index `same`) passes by identity.
    """
    groups = summaries(cells)
    names = [name for name in groups if name not in waived]
    if not names:
        raise GateError("every summary is waived, so nothing is left to test; remove a waiver")
    own, others = rates(groups, baseline, swept)
    ours, theirs = summed(groups, own), summed(groups, others)
    rows = _rows(list(groups), ours, theirs, waived)
    free = [name in names for name in groups]
    k, alpha, images = len(theirs), gate.alpha, len(baseline.labels)
    judged = [row for row in rows if row["verdict"] != "waived"]
    bounds = (
        retraining_stats.prediction_bounds(theirs[:, free], alpha, 1 / images)
        if k > 1
        else np.full(sum(free), math.nan)
    )
    by_rank = retraining_stats.rank_test_possible(k, alpha)
    p = retraining_stats.rank_p_value(theirs[:, free], ours[free]) if k > 1 else None
    drops = theirs[:, free].mean(axis=0) - bounds
    caught = retraining_stats.detectable_drop_by_rank(theirs[:, free], alpha) if by_rank else drops
    for row, bound, caught_from in zip(judged, bounds, caught, strict=True):
        below = bool(row["sign"] * row["candidate"] < bound)
        row |= {"bound": _plain(row["sign"] * bound), "caught_from": _plain(caught_from)}
        row["verdict"] = "inconclusive" if k < retraining_stats.ENOUGH else "below" if below else "within"
        if same is not None:
            row["verdict"] = "within"
    table = {"cells": rows, "rank_p": p, "decided_by": "rank" if by_rank else "t bound", "k": k}
    table["strengths"] = _strengths(groups, others)
    if same is not None:
        how = f"this is accepted model {same + 1} of {k}: the same weights, and all their predictions are unchanged"
        return "passed", f"passed by identity: {how}", table | {"decided_by": "identity"}
    if k < retraining_stats.ENOUGH:
        return (
            "inconclusive",
            f"is inconclusive: its baseline has {k} accepted retraining(s) and needs {retraining_stats.ENOUGH}; with "
            f"{math.ceil(1 / alpha - 1e-9) - 1}, the rank decides",
            table,
        )
    worst = min(
        judged, key=lambda row: float(row["sign"] * (row["candidate"] - row["mean"]) / max(row["spread"], 1e-9))
    )
    usual = f"{worst['mean']:.4f} ± {worst['spread']:.4f}"
    seen = f"{worst['cell']} is {worst['candidate']:.4f}, {k} accepted have {usual}"
    if by_rank:
        assert p is not None
        failed, how = (
            p <= alpha * (1 + 1e-12),
            f"by rank, p = {p:.3f} of {k + 1}; a healthy model fails with probability at most {alpha:.0%}",
        )
    else:
        failed = any(row["verdict"] == "below" for row in judged)
        how = f"by the widened t bound of {k}; a healthy model fails with probability at most {alpha:.0%}"
    if failed:
        return "failed", f"failed: worse than retraining explains ({how}); furthest off, {seen}", table
    return "passed", f"passed: within what retraining explains ({how}); furthest off, {seen}", table


def summaries(cells: Sequence[GateCell]) -> dict[str, list[GateCell]]:
    """
    Group cells into summaries: each metric's clean value, and its mean over each sweep's strengths.

    >>> list(summaries([GateCell("clean", "0", "accuracy", 0), GateCell("fgsm", "0.1", "accuracy", 0)]))
    ['clean:0:accuracy', 'fgsm:mean:accuracy']
    """
    rows: dict[str, list[GateCell]] = {}
    for cell in cells:
        strength = cell.strength if cell.sweep == "clean" else "mean"
        rows.setdefault(f"{cell.sweep}:{strength}:{cell.metric}", []).append(cell)
    return rows


def rates(
    groups: Mapping[str, Sequence[GateCell]], baseline: Baseline, swept: Mapping[str, Evidence]
) -> tuple[Floats, Floats]:
    """Return the groups' cells of the candidate, (cells,), and of the accepted, (k, cells); larger is better."""

    def of(get: Mapping[str, Evidence]) -> list[float]:
        cells = [cell for group in groups.values() for cell in group]
        return [_sign(c.metric) * cell_value(c.metric, get[c.sweep], c.strength) for c in cells]

    theirs = [
        of({name: baseline.evidence(which, name, evidence) for name, evidence in swept.items()})
        for which in range(len(baseline.accepted))
    ]
    return np.array(of(swept)), np.array(theirs)


def summed(groups: Mapping[str, Sequence[GateCell]], values: Floats) -> Floats:
    """Average cells, (..., cells), within each group, (..., summaries)."""
    ends = np.cumsum([len(group) for group in groups.values()])[:-1]
    return np.stack([part.mean(axis=-1) for part in np.split(values, ends, axis=-1)], axis=-1)


def _strengths(groups: Mapping[str, Sequence[GateCell]], theirs: Floats) -> list[dict[str, Any]]:
    """Return the accepted models' values at each strength, for the curves."""
    cells = [cell for group in groups.values() for cell in group]
    columns = zip(cells, theirs.mean(axis=0), theirs.min(axis=0), theirs.max(axis=0), strict=True)
    return [
        {"sweep": cell.sweep, "strength": cell.strength, "metric": cell.metric, "mean": float(sign * mean),
         "least": float(min(sign * low, sign * high)), "most": float(max(sign * low, sign * high))}
        for cell, mean, low, high in columns
        for sign in [_sign(cell.metric)]
    ]  # fmt: skip


def _sign(metric: str) -> int:
    return 1 if registry.get(metric).better == "higher" else -1


def _rows(names: Sequence[str], ours: Floats, theirs: Floats, waived: Mapping[str, str]) -> list[dict[str, Any]]:
    spread = theirs.std(axis=0, ddof=1) if len(theirs) > 1 else np.full(len(names), math.nan)
    return [
        {
            "cell": name,
            "sign": (sign := _sign(name.split(":", 2)[2])),
            "candidate": float(sign * ours[i]),
            "mean": float(sign * theirs[:, i].mean()),
            "least": float((sign * theirs[:, i]).min()),
            "most": float((sign * theirs[:, i]).max()),
            "spread": _plain(spread[i]),
            "verdict": "waived" if name in waived else "",
            "waiver": waived.get(name),
        }
        for i, name in enumerate(names)
    ]


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
