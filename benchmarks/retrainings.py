"""
What both kinds of gate say of real retrainings: healthy ones held against each other, and damaged ones.

    python -m benchmarks.retrainings [--model mnist-mlp] [--retrainings 20] [--data DIR] [--store DIR] [--render]

Writes results/retrainings.json, which `benchmarks.gate` draws its outcomes by, and a section of docs/gate-errors.md.
All trainings and all evidence are kept in the store.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import multivariate_normal

from benchmarks import retrained_page
from reports import paper, running, writing
from robustness import cards
from robustness.cards import Card
from robustness.cards.gate import GateTable
from robustness.gate import baseline, paired_gate, retraining_gate, retraining_stats
from robustness.gate.accept import accepted_from_seed, train
from robustness.gate.baseline import AcceptedModel, Baseline
from robustness.gate.differences import GateCell, paired_difference
from robustness.metrics.evidence import Evidence
from robustness.mutations.kinds import Mutation
from robustness.util import output
from robustness.workspace.models import train_if_missing as trained
from robustness.workspace.workspace import Workspace, fresh_workspace

MARGIN, ALPHA = 0.02, 0.05
WIDE = 0.05
"""A margin that is wider than most would accept."""
HEALTHY = "healthy, of another seed"
FIRST = 1000
"""The first seed: those that `robustness update-thresholds` makes thresholds of come first."""
SWEEPS = ("clean", "normal", "fgsm")
SMALL = 5
"""Accepted retrainings of the small baselines."""
DRAWS = 1000

RESULT = Path(__file__).with_name("results") / "retrainings.json"
PAGE = Path(__file__).parents[1] / "docs" / "gate-errors.md"

Swept = Mapping[str, Evidence]


def healthy(workspace: Workspace, card: Card, count: int) -> list[AcceptedModel]:
    """Train a card from several seeds and sweep each, or find that in the store."""
    seeds = range(FIRST, FIRST + count)
    train(card, seeds, workspace, None)
    found = []
    with workspace.progress(f"sweeping {count} trainings of {card.name}") as show:
        for seed in seeds:
            found.append(accepted_from_seed(fresh_workspace(workspace), card, seed, SWEEPS))
            if show:
                show(len(found), count)
    return found


def damaged(workspace: Workspace, card: Card) -> Iterator[tuple[str, Swept]]:
    """Damage the first training in ten graded ways, three of them by training it again on fewer images."""
    ways = {"noise": (0.2, 0.4, 0.8), "pruning": (0.7, 0.9), "normalisation": (0.05, 0.2), "data": (0.5, 0.2, 0.05)}
    for damage in (Mutation(kind, level) for kind, levels in ways.items() for level in levels):
        one, of = card.reseeded(FIRST).mutated(damage), fresh_workspace(workspace)
        running.say(f"sweeping: {damage}")
        trained(of, one, by_command=True)
        yield str(damage), {sweep: of.evidence(one, sweep) for sweep in SWEEPS}


def kept(one: Sequence[AcceptedModel], folder: Path) -> Baseline:
    """Return a baseline, written and read as users' are."""
    path = folder / "model.json"
    baseline.write(path, "model", one)
    return baseline.read(path)


def cells(swept: Swept) -> list[GateCell]:
    """Return the accuracy of everything that was swept."""
    return [GateCell(sweep, strength, "accuracy", MARGIN) for sweep in SWEEPS for strength in swept[sweep].strengths]


def verdicts(
    kind: str,
    accepted: Sequence[AcceptedModel],
    candidates: Sequence[Swept],
    sweeps: Sequence[str],
    margin: float = MARGIN,
) -> list[str]:
    """Say what a gate says of each candidate."""
    gate = GateTable(kind=kind, margin=margin if kind == "paired" else None, alpha=ALPHA)
    hold = paired_gate.evaluate_paired_gate if kind == "paired" else retraining_gate.evaluate_retraining_gate
    with TemporaryDirectory() as folder:
        held = kept(accepted, Path(folder))
    chosen = [cell._replace(margin=margin) for cell in cells(candidates[0]) if cell.sweep in sweeps]
    return [str(hold(gate, held, {n: swept[n] for n in sweeps}, chosen, {})[0]) for swept in candidates]


def judge_paired(models: Sequence[AcceptedModel], broken: Mapping[str, Swept]) -> list[dict[str, Any]]:
    """Hold every healthy retraining against every other, image by image, and what is damaged against its own."""
    rows = []

    def row(candidate: str, sweeps: Sequence[str], margin: float, found: Counter[str]) -> None:
        rows.append({"candidate": candidate, "sweeps": [*sweeps], "margin": margin, **_shares(found)})

    for sweeps, margin in ((("clean",), MARGIN), (SWEEPS, MARGIN), (SWEEPS, WIDE)):
        found: Counter[str] = Counter()
        for i, one in enumerate(models):
            others = [m.swept for j, m in enumerate(models) if j != i]
            found.update(verdicts("paired", [one], others, sweeps, margin))
        row(HEALTHY, sweeps, margin, found)
    same = (verdict for one in models for verdict in verdicts("paired", [one], [one.swept], SWEEPS))
    row("the same weights", SWEEPS, MARGIN, Counter(same))
    for name, swept in broken.items():
        for sweeps, margin in ((("clean",), MARGIN), (SWEEPS, MARGIN), (SWEEPS, WIDE)):
            row(name, sweeps, margin, Counter(verdicts("paired", [models[0]], [swept], sweeps, margin)))
    return rows


def judge_retraining(models: Sequence[AcceptedModel], broken: Mapping[str, Swept]) -> list[dict[str, Any]]:
    """Hold each retraining, and what is damaged, against the others as accepted retrainings: all, and five of them."""
    out: Counter[str] = Counter()
    for i, one in enumerate(models):
        out.update(verdicts("retraining", [m for j, m in enumerate(models) if j != i], [one.swept], SWEEPS))
    values, n = summaries(models, [m.swept for m in models]), len(models[0].swept["clean"])
    rows = [{"candidate": HEALTHY, **_shares(out), **small(values, values, n, healthy=True)}]
    for name, swept in broken.items():
        found = Counter(verdicts("retraining", models[1:], [swept], SWEEPS))
        few = small(summaries(models, [swept]), values, n, healthy=False)
        rows.append({"candidate": name, **_shares(found), **few})
    return rows


def summaries(models: Sequence[AcceptedModel], candidates: Sequence[Swept]) -> np.ndarray:
    """Return what the retraining gate sums each candidate up by, (candidates, summaries)."""
    with TemporaryDirectory() as folder:
        held = kept(models[:1], Path(folder))
    groups = retraining_gate.summaries(cells(candidates[0]))
    return np.array(
        [retraining_gate.summed(groups, retraining_gate.rates(groups, held, swept)[0]) for swept in candidates]
    )


def small(candidates: np.ndarray, values: np.ndarray, n: int, *, healthy: bool) -> dict[str, Any]:
    """Draw small baselines, and give how often the t bound fails, and how often the rank is the last."""
    draws, found = np.random.default_rng(0), np.zeros(2, np.int64)
    for _ in range(DRAWS):
        order = draws.permutation(len(values) if healthy else np.arange(1, len(values)))
        accepted, candidate = values[order[:SMALL]], values[order[SMALL]] if healthy else candidates[0]
        found += (
            bool((candidate < retraining_stats.prediction_bounds(accepted, ALPHA, 1 / n)).any()),
            retraining_stats.rank_p_value(accepted, candidate) < 1.5 / (SMALL + 1),
        )
    return {"draws": DRAWS, "t_bound_fails": int(found[0]), "rank_is_last": int(found[1])}


def correlations(models: Sequence[AcceptedModel]) -> dict[str, Any]:
    """
    Estimate what the simulation is given: how many images differ in each cell, and how outcomes go together.

    A pair of neighbouring seeds each; "lost in both" of two cells is put back to the correlation of two normal numbers
    of which each is below its threshold as often. Two cells in which too few images are lost have that of most others.
    """
    where = cells(models[0].swept)
    shares, found = [], []
    for one, other in zip(models[::2], models[1::2], strict=False):
        changed = [
            paired_difference("accuracy", one.swept[c.sweep], other.swept[c.sweep], c.strength).changes for c in where
        ]
        lost = np.array([change == 1 for change in changed])
        shares.append([float(np.mean(change != 0)) for change in changed])
        matrix = np.eye(len(where))
        for i, j in zip(*np.triu_indices(len(where), 1), strict=True):
            matrix[i, j] = matrix[j, i] = latent(lost[i], lost[j])
        found.append(matrix)
    with warnings.catch_warnings(action="ignore"):  # a pair of cells of which no two models tell anything
        known = np.nanmean(np.array(found), axis=0)
    values = summaries(models, [model.swept for model in models])
    return {
        "cells": [f"{cell.sweep}:{cell.strength}" for cell in where],
        "discordance": np.mean(shares, axis=0).round(5).tolist(),
        "correlation": np.where(np.isnan(known), np.nanmedian(known), known).round(4).tolist(),
        "summaries": list(retraining_gate.summaries(where)),
        "means": values.mean(axis=0).round(5).tolist(),
        "deviations": values.std(axis=0, ddof=1).round(5).tolist(),
        "correlation_of_summaries": np.corrcoef(values.T).round(4).tolist(),
    }


def latent(first: np.ndarray, second: np.ndarray) -> float:
    """
    Return the correlation of two normal numbers that are below their thresholds as often, alone and together.

    NaN where too few are to say anything: five in both, were there none. A tetrachoric correlation, by bisection.
    """
    if first.sum() * second.sum() / len(first) < 5:
        return float("nan")
    at, both, low, high = ndtri([first.mean(), second.mean()]), float((first & second).mean()), -0.99, 0.99
    for _ in range(14):
        middle = (low + high) / 2
        together = multivariate_normal.cdf(at, [0, 0], [[1, middle], [middle, 1]])
        low, high = (middle, high) if together < both else (low, middle)
    return (low + high) / 2


def _shares(found: Counter[str]) -> dict[str, int]:
    return {verdict: found[verdict] for verdict in ("passed", "inconclusive", "failed")}


def measure(workspace: Workspace, card: Card, count: int) -> dict[str, Any]:
    """Train, sweep and hold: all that the page tells."""
    models = healthy(workspace, card, count)
    broken, images = dict(damaged(workspace, card)), workspace.images(card)
    running.say("holding the gates")
    return {
        "model": card.name, "data": images.name, "images": len(images), "alpha": ALPHA, "small": SMALL,
        "seeds": [FIRST, FIRST + len(models) - 1], **running.machine(workspace),
        "outcomes": correlations(models), "paired": judge_paired(models, broken),
        "retraining": judge_retraining(models, broken),
    }  # fmt: skip


def main(given: list[str] | None = None) -> int:
    """Train, sweep, hold, and write the result and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mnist-mlp", help="a card in models/ (mnist-mlp)")
    parser.add_argument("--retrainings", type=int, default=20, help="healthy ones (20)")
    paper.add_options(parser)
    arguments = parser.parse_args(given)
    if not arguments.render:
        workspace = paper.run_for(arguments, "mnist", None, Path()).workspace
        card = cards.load(Path(__file__).parents[1] / "models" / f"{arguments.model}.toml")
        RESULT.write_text(writing.dumped(measure(workspace, card, arguments.retrainings)), encoding="utf-8")
    body = retrained_page.body(json.loads(RESULT.read_text(encoding="utf-8")))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(writing.inserted(page, "benchmarks.retrainings", body), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(output.run(main))
