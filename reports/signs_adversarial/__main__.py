"""
The document signs-adversarial rebuilt: train, sweep, and write its tables and its figure.

    python -m reports.signs_adversarial

trains, seed by seed, an undefended network and its twins by FGSM and by PGD training, and attacks each. All of it is
kept in the store: interrupted anywhere, the same command goes on from where it was.
``signs_adversarial_gtsrb_full_0.json`` is the result of seed 0; a seed whose file stands is not measured again, also
where the store is another. ``docs/papers/signs-adversarial.md`` and the figure are made from all results alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reports import commands, folds, running
from reports.signs_adversarial import figures, measure, page, protocol
from robustness.cards import Card
from robustness.util import output
from robustness.workspace.workspace import Workspace

PAPER = "signs_adversarial"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    return commands.run(_parser().parse_args(arguments), _measure, render)


def _measure(options: argparse.Namespace, output: Path) -> bool:
    scale, harness = protocol.SCALES[options.scale], running.harness_for(options)
    for seed in options.seeds:
        tables = protocol.cards(options.data_set, scale, seed)
        every = commands.loaded(tables, commands.RUNS / f"{PAPER}-{scale.name}")
        target = folds.path(output, PAPER, options.data_set, scale.name, seed)
        folds.measure(target, seed, harness, every, partial(_result, options, every, scale, harness))
    return True


def _result(options: argparse.Namespace, every: Mapping[str, Card], scale: protocol.Scale, harness: Workspace) -> Any:
    trained = running.train_and_sweep(every, harness, options)
    return measure.result(every, trained, options.data_set, scale, harness)


def render(output: Path) -> list[Path]:
    """Write figure and page anew from all results in a folder."""
    results = folds.results(output, PAPER)
    drawn = [figures.draw(result, commands.pages(output) / "figures") for result in results]
    return [*drawn, commands.write_page("signs-adversarial.md", page.MODULE, page.body(results), output)]


def _parser() -> argparse.ArgumentParser:
    parser = commands.parser(page.MODULE, __doc__, protocol.SOURCES, protocol.SCALES, ("gtsrb", "full"))
    parser.add_argument("--seeds", type=_seeds, default=protocol.SEEDS, help="of the trainings (default 0,1,2)")
    return parser


def _seeds(text: str) -> tuple[int, ...]:
    seeds = sorted({int(part) for part in text.split(",")})
    if seeds[0] < 0:
        raise argparse.ArgumentTypeError(f"seeds must be at least 0, got {seeds[0]}")
    return tuple(seeds)


if __name__ == "__main__":
    sys.exit(output.run(main))
