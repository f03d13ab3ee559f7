"""
The paper label-2n rebuilt: train, sweep, and write its tables, figures and what came of its claims.

    python -m reports.label_2n --data-set gtsrb --scale short

trains, fold by fold, the substitute and every defence, first what others need, and sweeps each system. All of it is
kept in the store: interrupted anywhere, the same command goes on from where it was. ``label_2n_gtsrb_short_0.json`` is
the result of the first fold; a fold whose file stands is not measured again, also where the store is another.
``docs/papers/label-2n.md`` and the figures are made from all results alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reports import commands, folds, running
from reports.label_2n import figures, measure, page, protocol
from robustness.cards import Card
from robustness.util import output
from robustness.workspace.workspace import Workspace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    return commands.run(_parser().parse_args(arguments), _measure, render)


def _measure(given: argparse.Namespace, output: Path) -> bool:
    """Train fold by fold, and sweep unless only training was asked for."""
    scale, harness = protocol.scale(given.scale, given.data_set), running.harness_for(given)
    folder = commands.RUNS / f"label_2n-{scale.name}"
    for number in range(len(scale.runs))[: given.folds]:
        tables = protocol.cards(given.data_set, scale, range(number, number + 1))
        every = commands.loaded(tables, folder)
        swept = commands.loaded(protocol.evaluated(tables, given.data_set, scale), folder)
        target = folds.path(output, "label_2n", given.data_set, scale.name, number)
        folds.measure(target, number, harness, swept, partial(_result, given, number, every, swept, harness))
    return not given.only


def _result(
    given: argparse.Namespace, number: int, every: Mapping[str, Card], swept: Mapping[str, Card], harness: Workspace
) -> dict[str, Any] | None:
    work = running.work(given)
    trained = running.train(every, harness, work)
    if given.only == "train":
        return None
    running.sweep(swept, harness, work)
    return measure.result(swept, trained, given.data_set, protocol.scale(given.scale, given.data_set), number, harness)


def render(output: Path) -> list[Path]:
    """Write figures and pages anew from all results in a folder."""
    results = folds.results(output, "label_2n")
    causes = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(output.glob("causes_label_2n_*.json"))]
    written = []
    for result in results:
        print(f"{result['source']}, {result['scale']}: {page.verdicts(result)}")
        written += figures.draw(page.measured(result), result["scale"], commands.pages(output) / "figures")
    made = page.bodies(results, causes)
    return [*written, *(commands.write_page(name, page.MODULE, body, output) for name, body in made.items())]


def _parser() -> argparse.ArgumentParser:
    parser = commands.parser(page.MODULE, __doc__, protocol.SOURCES, protocol.SCALES, ("gtsrb", "short"))
    parser.add_argument("--folds", type=int, metavar="N", help="only the first so many")
    parser.add_argument("--only", choices=["train"], help="stop after this step")
    return parser


if __name__ == "__main__":
    sys.exit(output.run(main))
