"""
The report eyes-parseval rebuilt: train, sweep, and write its tables, figures and what came of its claims.

    python -m reports.eyes_parseval --data-set eyes --scale short

trains, fold by fold, eight networks and those of approach 1, and sweeps each. All of it is kept in the store:
interrupted anywhere, the same command goes on from where it was. ``eyes_parseval_eyes_short_0.json`` is the result of
the first fold; a fold whose file stands is not measured again, also where the store is another.
``docs/papers/eyes-parseval.md`` and the figures are made from all results alone. ``--grid`` trains approach 1's whole
grid.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reports import commands, folds, running
from reports.eyes_parseval import figures, measure, page, protocol
from robustness.cards import Card
from robustness.util import output
from robustness.workspace.workspace import Workspace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    return commands.run(_parser().parse_args(arguments), _measure, render)


def _measure(given: argparse.Namespace, output: Path) -> bool:
    scale, harness = protocol.SCALES[given.scale], running.harness_for(given)
    if given.grid:
        scale = protocol.whole(scale)
    for fold in range(given.folds or scale.folds):
        tables = protocol.cards(given.data_set, scale, range(fold, fold + 1))
        every = commands.loaded(tables, commands.RUNS / f"eyes_parseval-{scale.name}")
        target = folds.path(output, "eyes_parseval", given.data_set, scale.name, fold)
        folds.measure(target, fold, harness, every, partial(_result, given, every, scale, harness))
    return True


def _result(given: argparse.Namespace, every: Mapping[str, Card], scale: protocol.Scale, harness: Workspace) -> Any:
    trained = running.train_and_sweep(every, harness, given)
    return measure.result(every, trained, given.data_set, scale, harness)


def render(output: Path) -> list[Path]:
    """Write figures and page anew from all results in a folder."""
    results = folds.results(output, "eyes_parseval")
    written = []
    for result in results:
        print(f"{result['source']}, {result['scale']}: {page.verdicts(result)}")
        written += figures.draw(result, commands.pages(output) / "figures")
    return [*written, commands.write_page("eyes-parseval.md", page.MODULE, page.body(results), output)]


def _parser() -> argparse.ArgumentParser:
    parser = commands.parser(page.MODULE, __doc__, protocol.SOURCES, protocol.SCALES, ("eyes", "short"))
    parser.add_argument("--folds", type=int, metavar="N", help="only the first so many")
    parser.add_argument("--grid", action="store_true", help="the whole grid of approach 1: twenty cells of two kinds")
    return parser


if __name__ == "__main__":
    sys.exit(output.run(main))
