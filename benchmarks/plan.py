"""
What `robustness plan` says beside what the plain engine then takes: time by time, and how long planning takes.

    python -m benchmarks.plan [--model mlp|vgg19|resnet50 ...] [--repeats 3] [--check]

Each model and sweep is planned and swept in turn, in one process. Compared is the processor's time, a thread's
share of it: other work on the machine does not change it much. The time by the clock is printed beside it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from robustness import cards
from robustness.cards import Card
from robustness.planning.planner import Planner
from robustness.sweep.runner import run_sweep as run
from robustness.util import hardware, output
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

ROOT = Path(__file__).parents[1]
OFF = 0.25
"""By what share a plan may be off."""


class Model(NamedTuple):
    """A factory with its arguments, the shape of its images, and how many of them are swept under each perturbation."""

    factory: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    images: dict[str, int]


MODELS = {
    "mlp": Model("models.mlp:mlp", {}, (28, 28), {"normal": 10_000, "fgsm": 10_000, "pgd": 4000}),
    "vgg19": Model("models.vgg:vgg", {"depth": 19}, (32, 32, 3), {"normal": 200, "fgsm": 200, "pgd": 100}),
    "resnet50": Model(
        "models.large:resnet50", {"stem": "imagenet"}, (224, 224, 3), {"normal": 32, "fgsm": 32, "pgd": 16}
    ),
}
SWEEPS: dict[str, dict[str, Any]] = {
    "normal": {"kind": "normal", "strengths": [0.1, 0.2, 0.3, 0.4]},
    "fgsm": {"kind": "fgsm", "strengths": [0.01, 0.02, 0.05, 0.1]},
    "pgd": {"kind": "pgd", "steps": 5, "strengths": [0.01]},
}


def card_of(model: Model, sweep: str, count: int, folder: Path) -> Card:
    """Write images for a model, and give a card with one sweep of them."""
    drawn = np.random.default_rng(0)
    pixels = drawn.integers(0, 256, (count, *model.shape), dtype=np.uint8)
    np.savez(folder / f"{sweep}.npz", test_x=pixels, test_y=np.arange(count) % 10)
    table = {
        "name": "planned",
        "model": {"factory": model.factory, "arguments": model.arguments, "seed": 0},
        "data": {"name": "array", "file": f"./{sweep}.npz"},
        "sweeps": {sweep: SWEEPS[sweep]},
    }
    return cards.parse_card(table, folder / "planned.toml", root=ROOT)


class Found(NamedTuple):
    """One comparison, in seconds: planned, taken of the processor (a thread's share), by the clock, and to plan."""

    planned: float
    taken: float
    clock: float
    planning: float


def once(card: Card, sweep: str, folder: Path, threads: int) -> Found:
    """Plan a sweep, then make it."""
    harness = Workspace(Store(folder / "store"), folder)
    harness.classifier(card)
    began = time.process_time()
    (cost,) = (cost for cost in Planner(harness).plan(card).made if cost.label.endswith(f":{sweep}"))
    planning = time.process_time() - began
    module, images, table = harness.classifier(card).module, harness.images(card), card.file.sweeps[sweep]
    started, before = time.perf_counter(), time.process_time()
    evidence = run(module, images, table.perturbation, table.strengths)
    taken, clock = time.process_time() - before, time.perf_counter() - started
    assert set(evidence.status) == {"ok"}, evidence.status
    side_by_side = min(threads, cost.batches)
    # What came before the first batch was one thread's, as it is planned.
    return Found(cost.seconds(threads), cost.start + (taken - cost.start) / side_by_side, clock, planning)


def compare(models: Sequence[str], repeats: int) -> dict[str, float]:
    """Print the table, and give the ratios of plan and sweep."""
    rows, ratios, threads = [], {}, hardware.cpu_count()
    for name in models:
        for sweep, count in MODELS[name].images.items():
            with tempfile.TemporaryDirectory() as scratch:
                card = card_of(MODELS[name], sweep, count, Path(scratch))
                found = [once(card, sweep, Path(scratch), threads) for _ in range(repeats)]
            ratio = statistics.median(each.planned / each.taken for each in found)
            ratios[f"{name}, {sweep}"] = ratio
            shown = [statistics.median(column) for column in zip(*found, strict=True)]
            rows.append([name, sweep, count, *(f"{value:.2f}" for value in shown), f"{ratio:.2f}"])
            print(rows[-1], file=sys.stderr, flush=True)
    header = ["model", "sweep", "images", "planned s", "taken s", "by the clock s", "planning s", "planned / taken"]
    print(f"\n{repeats} repeats, {threads} threads, medians, {hardware.device_fingerprint('cpu')}")
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))
    return ratios


def main(given: Sequence[str] | None = None) -> int:
    """Print the table; with --check, exit 1 where a plan is further off than it may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=sorted(MODELS), help="default: all; repeatable")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", action="store_true", help=f"fail where a plan is off by more than {OFF * 100:g} %%")
    arguments = parser.parse_args(given)
    ratios = compare(arguments.model or list(MODELS), arguments.repeats)
    wrong = {name: ratio for name, ratio in ratios.items() if not abs(ratio - 1) <= OFF}
    print("; ".join(f"{name}: {ratio:.2f}" for name, ratio in wrong.items()) or f"all within {OFF:.0%}")
    return int(arguments.check and bool(wrong))


if __name__ == "__main__":
    sys.exit(output.run(main))
