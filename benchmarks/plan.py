"""
What `robustness plan` says beside what the sweeps then take by the clock, for cards of models/.

    python -m benchmarks.plan [MODEL ...] [--repeats 3] [--check]

Each model is planned and swept in turn, in one process and a store of its own. What a plan does not count comes first
and is not timed: weights, generators.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from robustness import cards
from robustness.cards import Card
from robustness.planning.planner import Planner
from robustness.util import hardware, output
from robustness.workspace import attack_inputs
from robustness.workspace.context import data_root
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

MODELS = Path(__file__).parents[1] / "models"
DEFAULT = (
    "digits-mlp",
    "digits-cnn",
    "digits-eyes-cnn",
    "digits-mobilenet",
    "digits-null",
    "digits-signs",
    "digits-wrn",
)
OFF = 0.5
"""By what share a plan may be off."""


class Comparison(NamedTuple):
    """What a card's sweeps were planned to take, what they took, and what planning took, in seconds."""

    sweeps: int
    planned: float
    taken: float
    planning: float


def prepare(card: Card, folder: Path) -> Workspace:
    """Load the models of a card's sweeps, and fit the generators: a plan does not count that."""
    workspace = Workspace(Store(folder), data_root())
    for sweep in card.file.sweeps:
        attacked = workspace.source(card, sweep) or card
        workspace.classifier(card)
        workspace.classifier(attacked)
        if (perturbation := attacked.perturbation(sweep)).needs_fitting:
            attack_inputs.generator(workspace, attacked, perturbation)
    return workspace


def compare_once(card: Card, folder: Path) -> Comparison:
    """Plan the sweeps of a card, then make them."""
    planner, workspace = Planner(prepare(card, folder)), prepare(card, folder)
    began = time.perf_counter()
    plan = planner.plan(card)
    planning = time.perf_counter() - began
    assert not plan.stored + plan.notes, plan
    began = time.perf_counter()
    for sweep in ("clean", *card.file.sweeps):
        assert set(workspace.evidence(card, sweep).status) == {"ok"}
    return Comparison(len(plan.costs), plan.seconds("local", 1, planner.threads), time.perf_counter() - began, planning)


def compare(models: Sequence[str], repeats: int) -> dict[str, float]:
    """Print the table, and return the ratios of plan and sweeps."""
    rows, ratios = [], {}
    for name in models:
        comparisons = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                comparisons.append(compare_once(cards.load(MODELS / f"{name}.toml"), Path(folder)))
        every = sorted(each.planned / each.taken for each in comparisons)
        ratios[name] = statistics.median(every)
        medians = [statistics.median(column) for column in zip(*comparisons, strict=True)]
        seconds = [f"{value:.1f}" for value in medians[1:]]
        rows.append([name, int(medians[0]), *seconds, f"{ratios[name]:.2f}", f"{every[0]:.2f} to {every[-1]:.2f}"])
        print(rows[-1], file=sys.stderr, flush=True)
    header = ["model", "sweeps", "planned s", "taken s", "planning s", "planned / taken", "of single runs"]
    print(f"\n{repeats} repeats, {hardware.cpu_count()} threads, medians, {hardware.device_fingerprint('cpu')}")
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))
    return ratios


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; with --check, exit 1 where a plan is further off than it may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", metavar="MODEL", nargs="*", help=f"default: {', '.join(DEFAULT)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", action="store_true", help=f"fail where a plan is off by more than {OFF * 100:g} %%")
    arguments = parser.parse_args(words)
    ratios = compare(arguments.models or DEFAULT, arguments.repeats)
    wrong = {name: ratio for name, ratio in ratios.items() if not 1 - OFF <= ratio <= 1 + OFF}
    print("; ".join(f"{name}: {ratio:.2f}" for name, ratio in wrong.items()) or f"all within {OFF:.0%}")
    return int(arguments.check and bool(wrong))


if __name__ == "__main__":
    sys.exit(output.run(main))
