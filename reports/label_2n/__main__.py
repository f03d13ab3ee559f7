"""
The paper label-2n rebuilt: train, sweep, and write its tables, figures and what came of its claims.

    python -m reports.label_2n --data-set gtsrb --scale short

trains the substitute and every defence of every fold, first what others need, and sweeps each system. All of it is
kept in the store: interrupted anywhere, the same command goes on from where it was. ``label_2n_gtsrb_short.json`` is
the result; ``docs/papers/label-2n.md`` and the figures are made from all results alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import running
from reports.label_2n import figures, measure, page, protocol
from reports.writing import dumped, inserted
from robustness import cards
from robustness.errors import RobustnessError

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
        if not given.render and not _measured(given, output):
            return 0
        written = render(output, DOCS if output.resolve() == OUTPUT else output)
    except (RobustnessError, OSError) as error:
        running.say(f"error: {error}")
        return 2
    print("\n".join(f"written: {file}" for file in written))
    return 0


def _measured(given: argparse.Namespace, output: Path) -> bool:
    """Train, and sweep unless only training was asked for; say whether there is a result."""
    scale = protocol.SCALES[given.scale]
    folder = RUNS / f"label_2n-{scale.name}"
    tables = protocol.cards(given.data_set, scale, range(given.folds or scale.folds))
    harness = running.harness_for(given)
    every = {name: cards.load(path) for name, path in running.write(tables, folder).items()}
    trained = running.train(every, harness, given.workers)
    if given.only == "train":
        return False
    result = measure.result(tables, trained, given.data_set, scale, folder, harness)
    output.mkdir(parents=True, exist_ok=True)
    (output / f"label_2n_{given.data_set}_{scale.name}.json").write_text(dumped(result), encoding="utf-8")
    print(f"{given.data_set}, {scale.name}: {page.verdicts(result)}")
    return True


def render(output: Path, docs: Path) -> list[Path]:
    """Write figures and page anew from all results in a folder."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(output.glob("label_2n_*.json"))]
    written = []
    for result in results:
        written += figures.draw(page.measured(result), result["scale"], docs / "figures")
    file = docs / "label-2n.md"
    causes = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(output.glob("causes_label_2n_*.json"))]
    text = page.body(results, causes=causes)
    if docs == DOCS:
        text = inserted(file.read_text(encoding="utf-8"), page.MODULE, text)
    file.write_text(text, encoding="utf-8")
    return [*written, file]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reports.label_2n", description=(__doc__ or "").split("\n")[1])
    parser.add_argument("--data-set", choices=sorted(protocol.SOURCES), default="gtsrb")
    parser.add_argument("--scale", choices=sorted(protocol.SCALES), default="short")
    parser.add_argument("--folds", type=int, metavar="N", help="only the first so many")
    parser.add_argument("--only", choices=["train"], help="stop after this step")
    running.add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
