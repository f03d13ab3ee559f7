"""
What both kinds of gate say of real retrainings: healthy ones held against each other, and damaged ones.

    python -m benchmarks.retrainings [--model mnist-mlp] [--retrainings 20] [--data DIR] [--store DIR]

The last tables of docs/gate.md. All trainings and all evidence are kept in the store.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.special import ndtri
from scipy.stats import multivariate_normal
from tabulate import tabulate

from reports import running
from robustness import cards
from robustness.cards import Card
from robustness.damage.kinds import Damage
from robustness.evidence import Evidence
from robustness.gate import baseline, by_recipe, by_weights, recipe
from robustness.gate.accept import of_seed, train
from robustness.gate.baseline import Accepted, Baseline
from robustness.gate.differences import Cell, paired
from robustness.gate.tables import GateTable
from robustness.harness import Harness
from robustness.healthy import anew
from robustness.trained import by_recipe as trained

MARGIN, ALPHA = 0.02, 0.05
FIRST = 1000
"""The first seed: those that `robustness renew` makes thresholds of come first."""
SWEEPS = ("clean", "normal", "fgsm")
SMALL = 5
"""Accepted retrainings of the small baselines."""
DRAWS = 1000

Swept = Mapping[str, Evidence]


def healthy(harness: Harness, card: Card, count: int) -> list[Accepted]:
    """Train a card from several seeds and sweep each, or find that in the store."""
    seeds = range(FIRST, FIRST + count)
    train(card, seeds, harness, None)
    found = []
    with harness.progress(f"sweeping {count} trainings of {card.name}") as show:
        for seed in seeds:
            found.append(of_seed(anew(harness), card, seed, SWEEPS))
            if show:
                show(len(found), count)
    return found


def damaged(harness: Harness, card: Card) -> Iterator[tuple[str, Swept]]:
    """Damage the first training in ten graded ways, three of them by training it again on fewer images."""
    ways = {"noise": (0.2, 0.4, 0.8), "pruning": (0.7, 0.9), "normalisation": (0.05, 0.2), "data": (0.5, 0.2, 0.05)}
    for damage in (Damage(kind, level) for kind, levels in ways.items() for level in levels):
        one, of = card.reseeded(FIRST).damaged(damage), anew(harness)
        running.say(f"sweeping: {damage}")
        trained(of, one, by_command=True)
        yield str(damage), {sweep: of.evidence(one, sweep) for sweep in SWEEPS}


def kept(one: Sequence[Accepted], folder: Path) -> Baseline:
    """Give a baseline, written and read as users' are."""
    path = folder / "model.json"
    baseline.write(path, "model", one)
    return baseline.read(path)


def cells(swept: Swept) -> list[Cell]:
    """Give the accuracy of everything that was swept."""
    return [Cell(sweep, strength, "accuracy", MARGIN) for sweep in SWEEPS for strength in swept[sweep].strengths]


def verdicts(kind: str, accepted: Sequence[Accepted], candidates: Sequence[Swept], sweeps: Sequence[str]) -> list[str]:
    """Say what a gate says of each candidate."""
    gate = GateTable(kind=kind, margin=MARGIN if kind == "weights" else None, alpha=ALPHA)
    hold = by_weights.hold if kind == "weights" else by_recipe.hold
    with TemporaryDirectory() as folder:
        held = kept(accepted, Path(folder))
    chosen = [cell for cell in cells(candidates[0]) if cell.sweep in sweeps]
    return [str(hold(gate, held, {n: swept[n] for n in sweeps}, chosen, {})[0]) for swept in candidates]


def of_weights(models: Sequence[Accepted], broken: Mapping[str, Swept]) -> str:
    """Hold every healthy retraining against every other, image by image, and what is damaged against its own."""
    rows = []
    for sweeps in (("clean",), SWEEPS):
        found: Counter[str] = Counter()
        for i, one in enumerate(models):
            found.update(verdicts("weights", [one], [m.swept for j, m in enumerate(models) if j != i], sweeps))
        rows.append(["healthy, of another seed", " ".join(sweeps), *_shares(found)])
    rows.append(["the same weights", " ".join(SWEEPS), *_shares(Counter(
        verdict for one in models for verdict in verdicts("weights", [one], [one.swept], SWEEPS)
    ))])  # fmt: skip
    for name, swept in broken.items():
        for sweeps in (("clean",), SWEEPS):
            rows.append([name, " ".join(sweeps), *_shares(Counter(verdicts("weights", [models[0]], [swept], sweeps)))])
    return _table(["candidate", "sweeps", "n", "passed", "inconclusive", "failed"], rows)


def of_recipe(models: Sequence[Accepted], broken: Mapping[str, Swept]) -> str:
    """Hold each retraining, and what is damaged, against the others as accepted retrainings: all, and five of them."""
    out: Counter[str] = Counter()
    for i, one in enumerate(models):
        out.update(verdicts("recipe", [m for j, m in enumerate(models) if j != i], [one.swept], SWEEPS))
    values, n = summaries(models, [m.swept for m in models]), len(models[0].swept["clean"])
    rows = [["healthy", *_shares(out), *small(values, values, n, healthy=True)]]
    for name, swept in broken.items():
        found = Counter(verdicts("recipe", models[1:], [swept], SWEEPS))
        rows.append([name, *_shares(found), *small(summaries(models, [swept]), values, n, healthy=False)])
    header = ["candidate", "n", "passed", "inconclusive", "failed",
              f"k = {SMALL}: t bound fails", f"k = {SMALL}: rank p is 1/{SMALL + 1}"]  # fmt: skip
    return _table(header, rows)


def summaries(models: Sequence[Accepted], candidates: Sequence[Swept]) -> np.ndarray:
    """Give what the recipe's gate sums each candidate up by, (candidates, summaries)."""
    with TemporaryDirectory() as folder:
        held = kept(models[:1], Path(folder))
    groups = by_recipe.summaries(cells(candidates[0]))
    return np.array([by_recipe.values(groups, held, swept)[0] for swept in candidates])


def small(candidates: np.ndarray, values: np.ndarray, n: int, *, healthy: bool) -> list[str]:
    """Draw small baselines, and give how often the t bound fails, and how often the rank is the last."""
    draws, found = np.random.default_rng(0), np.zeros(2)
    for _ in range(DRAWS):
        order = draws.permutation(len(values) if healthy else np.arange(1, len(values)))
        accepted, candidate = values[order[:SMALL]], values[order[SMALL]] if healthy else candidates[0]
        found += (
            bool((candidate < recipe.t_bounds(accepted, ALPHA, 1 / n)).any()),
            recipe.rank_p(accepted, candidate) < 1.5 / (SMALL + 1),
        )
    return [f"{share:.1%} of {DRAWS:,}" for share in found / DRAWS]


def correlations(models: Sequence[Accepted]) -> str:
    """
    Estimate what the simulation is given: how many images differ, and how outcomes go together over strengths.

    A pair of neighbouring seeds each; "lost in both" of two strengths is put back to the correlation of two normal
    numbers of which each is below its threshold as often.
    """
    shares, found = {name: [] for name in SWEEPS}, {name: [] for name in SWEEPS}
    for one, other in zip(models[::2], models[1::2], strict=False):
        for sweep in SWEEPS:
            strengths = one.swept[sweep].strengths
            changed = [paired("accuracy", one.swept[sweep], other.swept[sweep], s).changes for s in strengths]
            lost = np.array([change == 1 for change in changed])
            shares[sweep] += [float(np.mean(change != 0)) for change in changed]
            found[sweep] += [latent(lost[i], lost[j]) for i in range(len(lost)) for j in range(i)]
    rows = []
    for sweep in SWEEPS:
        between = np.array([value for value in found[sweep] if not np.isnan(value)])
        told = [f"{np.quantile(between, q):.2f}" for q in (0.1, 0.5, 0.9)] if len(between) else ["–"] * 3
        rows.append([sweep, f"{min(shares[sweep]):.1%} to {max(shares[sweep]):.1%}", *told])
    return _table(
        ["sweep", "images that differ", "correlation: a tenth below", "half below", "nine tenths below"], rows
    )


def latent(first: np.ndarray, second: np.ndarray) -> float:
    """
    Give the correlation of two normal numbers that are below their thresholds as often, alone and together.

    NaN where too few are to say anything. A tetrachoric correlation, by bisection.
    """
    if min(first.sum(), second.sum()) < 20:
        return float("nan")
    at, both, low, high = ndtri([first.mean(), second.mean()]), float((first & second).mean()), -0.99, 0.99
    for _ in range(14):
        middle = (low + high) / 2
        together = multivariate_normal.cdf(at, [0, 0], [[1, middle], [middle, 1]])
        low, high = (middle, high) if together < both else (low, middle)
    return (low + high) / 2


def _shares(found: Counter[str]) -> list[str]:
    total = sum(found.values())
    return [f"{total}", *(f"{found[verdict]}" for verdict in ("passed", "inconclusive", "failed"))]


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def main(given: list[str] | None = None) -> int:
    """Train, sweep, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mnist-mlp", help="a card in models/ (mnist-mlp)")
    parser.add_argument("--retrainings", type=int, default=20, help="healthy ones (20)")
    running.add_options(parser)
    arguments = parser.parse_args(given)
    harness = running.harness_for(arguments)
    card = cards.load(Path(__file__).parents[1] / "models" / f"{arguments.model}.toml")
    models = healthy(harness, card, arguments.retrainings)
    made, images = running.machine(harness), harness.images(card)
    seeds = f"seeds {FIRST} to {FIRST + len(models) - 1}"
    print(f"{card.name} on {images.name}, n = {len(images):,}, {len(models)} retrainings ({seeds}), margin {MARGIN:g},")
    print(f"α = {ALPHA:g}, made {made['made']} on {made['device']}, torch {made['versions']['torch']}", end="\n\n")
    print(correlations(models), end="\n\n")
    broken = dict(damaged(harness, card))
    print(of_weights(models, broken), end="\n\n")
    print(of_recipe(models, broken))
    return 0


if __name__ == "__main__":
    sys.exit(main())
