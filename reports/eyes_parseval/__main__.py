"""
The report eyes-parseval rebuilt: train, sweep, and write its tables, figures and what came of its claims.

    python -m reports.eyes_parseval --data-set eyes --scale short

trains eight networks a fold and those of approach 1, and sweeps each. All of it is kept in the store: interrupted
anywhere, the same command goes on from where it was. ``eyes_parseval_eyes_short.json`` is the result;
``docs/papers/eyes-parseval.md`` and the figures are made from all results alone. ``--grid`` trains approach 1's whole
grid.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import running
from reports.eyes_parseval import figures, measure, page, protocol
from reports.writing import dumped, inserted
from robustness import cards
from robustness.errors import CardError, RobustnessError

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "reports" / "runs"
"""Where the cards of a run are written: below the checkout, so that they can import its models."""
OUTPUT = ROOT / "reports" / "measured"
DOCS = ROOT / "docs" / "papers"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    given = _parser().parse_args(arguments)
    output = given.output or OUTPUT
    try:
        if not given.render:
            _measure(given, output)
        written = render(output, DOCS if output.resolve() == OUTPUT else output)
    except (RobustnessError, OSError) as error:
        running.say(f"error: {error}")
        return 2
    print("\n".join(f"written: {file}" for file in written))
    return 0


def _measure(given: argparse.Namespace, output: Path) -> None:
    scale = protocol.SCALES[given.scale]
    target = output / f"eyes_parseval_{given.data_set}_{scale.name}.json"
    folds = given.folds or scale.folds
    if target.is_file() and (held := json.loads(target.read_text(encoding="utf-8"))["folds"]) > folds:
        raise CardError(f"{target} holds {held} folds; `--folds {folds}` needs an `--output` of its own")
    tables = protocol.cards(given.data_set, protocol.whole(scale) if given.grid else scale, range(folds))
    harness = running.harness_for(given)
    files = running.write(tables, RUNS / f"eyes_parseval-{scale.name}")
    every = {name: cards.load(path) for name, path in files.items()}
    trained = running.train(every, harness, given.workers)
    result = measure.result(every, trained, given.data_set, scale, harness)
    output.mkdir(parents=True, exist_ok=True)
    target.write_text(dumped(result), encoding="utf-8")
    print(f"{given.data_set}, {scale.name}: {page.verdicts(result)}")


def render(output: Path, docs: Path) -> list[Path]:
    """Write figures and page anew from all results in a folder."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(output.glob("eyes_parseval_*.json"))]
    written = [file for result in results for file in figures.draw(result, docs / "figures")]
    file = docs / "eyes-parseval.md"
    text = page.body(results)
    if docs == DOCS:
        text = inserted(file.read_text(encoding="utf-8"), page.MODULE, text)
    file.write_text(text, encoding="utf-8")
    return [*written, file]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {page.MODULE}", description=(__doc__ or "").split("\n")[1])
    parser.add_argument("--data-set", choices=sorted(protocol.SOURCES), default="eyes")
    parser.add_argument("--scale", choices=sorted(protocol.SCALES), default="short")
    parser.add_argument("--folds", type=int, metavar="N", help="only the first so many")
    parser.add_argument("--grid", action="store_true", help="the whole grid of approach 1: twenty cells of two kinds")
    running.add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
