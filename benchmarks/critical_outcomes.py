"""
Train and damage models on digits, and write every image's outcomes, from which `benchmarks.gate critical` draws.

    python -m benchmarks.critical_outcomes [--retrainings 20] [--data DIR] [--store DIR]

Twenty retrainings of digits-mlp and of digits-cnn by their recipes, and the first of each damaged in ten ways, swept by
FGSM and PGD. Trainings and evidence stay in the store.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.retrainings import FIRST
from reports import paper, running
from robustness import cards
from robustness.cards import Card
from robustness.gate.accept import train
from robustness.mutations.kinds import Mutation
from robustness.util import output
from robustness.workspace.models import train_if_missing
from robustness.workspace.workspace import Workspace, fresh_workspace

CARDS = ("digits-mlp", "digits-cnn")
SWEEPS = ("fgsm", "pgd")
DAMAGES = {"noise": (0.1, 0.2, 0.4, 0.8), "pruning": (0.5, 0.7, 0.9), "rounding": (4, 3, 2)}
RESULT = Path(__file__).with_name("results") / "critical.npz"


def models(workspace: Workspace, card: Card, count: int) -> Iterator[tuple[str, Card]]:
    """Return the retrainings of a card, trained if they are not in the store, and the first one's damaged copies."""
    train(card, range(FIRST, FIRST + count), workspace, 1)
    for seed in range(FIRST, FIRST + count):
        yield str(seed), card.reseeded(seed)
    for damage in (Mutation(kind, level) for kind, levels in DAMAGES.items() for level in levels):
        yield str(damage), card.reseeded(FIRST).mutated(damage)


def outcomes(workspace: Workspace, card: Card, count: int) -> dict[str, NDArray[np.uint8]]:
    """Return by model and sweep which images are correct at each strength, (strengths, N), in packed bits."""
    correct = {}
    for name, one in models(workspace, card, count):
        running.say(f"sweeping {card.name}: {name}")
        of = fresh_workspace(workspace)
        train_if_missing(of, one, by_command=True)
        for sweep in SWEEPS:
            evidence = of.evidence(one, sweep)
            correct[f"{card.name}/{sweep}/{name}"] = np.packbits(evidence.predictions == evidence.labels, axis=1)
    return correct


def main(given: list[str] | None = None) -> int:
    """Train, damage, sweep, and write the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retrainings", type=int, default=20, help="of each card (20)")
    paper.add_options(parser)
    arguments = parser.parse_args(given)
    workspace = paper.run_for(arguments, "digits", None, Path()).workspace
    correct: dict[str, NDArray[np.uint8]] = {}
    for name in CARDS:
        card = cards.load(Path(__file__).parents[1] / "models" / f"{name}.toml")
        correct |= outcomes(workspace, card, arguments.retrainings)
    np.savez_compressed(RESULT, **{"images": np.array(600), **correct})  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(output.run(main))
