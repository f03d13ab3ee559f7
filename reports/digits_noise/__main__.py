"""
The paper digits-noise rebuilt: train, sweep, and write its tables with the published numbers beside the measured.

    python -m reports.digits_noise

trains the paper's classifier for seeds 0 to 9, two kinds of initial weights, and 1, 5 and 10 epochs (what the store
holds is not trained again), sweeps each over the noise amplitudes, and writes ``digits_noise.json``, the Markdown made
from it alone, and the tables and figures of ``docs/papers/digits-noise.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from reports.digits_noise import figures, page
from reports.digits_noise.run import CARD, EPOCHS, SEEDS, measure, scale
from reports.writing import dumped, inserted
from robustness import cards
from robustness.errors import CardError, RobustnessError
from robustness.util import hardware, output
from robustness.workspace.context import data_root, store_root
from robustness.workspace.store import Store

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "reports" / "measured"
DOCS = ROOT / "docs" / "papers" / "digits-noise.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    given = _parser().parse_args(arguments)
    output = given.output or OUTPUT
    try:
        if not given.render:
            card, store, data = cards.load(given.card), Store(store_root(given.store)), data_root(given.data)
            if scale(card, data, given.seeds, given.epochs) != "full" and output.resolve() == OUTPUT:
                raise CardError(
                    f"`--output` must name another folder than {OUTPUT} for a run of other data, seeds or epochs "
                    "than the paper's: the result that is kept there is not overwritten by a smaller one"
                )
            result = measure(card, store, data, given.seeds, given.epochs, given.workers, _say)
            output.mkdir(parents=True, exist_ok=True)
            (output / "digits_noise.json").write_text(dumped(result), encoding="utf-8")
        result = json.loads((output / "digits_noise.json").read_text(encoding="utf-8"))
        (output / "digits_noise.md").write_text(page.report(result), encoding="utf-8")
        if output.resolve() == OUTPUT:
            figures.draw(result, DOCS.parent / "figures")
            body = page.body(result, "figures")
            DOCS.write_text(inserted(DOCS.read_text(encoding="utf-8"), page.MODULE, body), encoding="utf-8")
    except (RobustnessError, OSError) as error:
        _say(f"error: {error}")
        return 2
    print(f"{page.verdict(result)}\nwritten: {output / 'digits_noise.json'} and .md")
    return 0


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    def integer(text: str, least: int = 1) -> int:
        if (number := int(text)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        return number

    def integers(text: str, least: int = 1) -> tuple[int, ...]:
        return tuple(sorted({integer(part, least) for part in text.split(",")}))

    parser = argparse.ArgumentParser(prog="python -m reports.digits_noise", description=(__doc__ or "").split("\n")[1])
    parser.add_argument("--data", metavar="DIR", help="data root (ROBUSTNESS_DATA, else the user's cache)")
    parser.add_argument("--store", metavar="DIR", help="weights and evidence (ROBUSTNESS_STORE, else the user's cache)")
    parser.add_argument("--seeds", type=lambda text: integers(text, 0), default=SEEDS, help="default 0 to 9")
    parser.add_argument(
        "--epochs", type=integers, default=EPOCHS, help="default 1,5,10; the last is swept in every reading"
    )
    parser.add_argument(
        "--workers", type=integer, default=hardware.cpu_count(), help="trainings at once (default: the cores)"
    )
    parser.add_argument("--output", metavar="DIR", type=Path, help="where the result goes (default reports/measured)")
    parser.add_argument("--card", metavar="FILE", type=Path, default=CARD, help="default models/mnist-mlp.toml")
    parser.add_argument("--render", action="store_true", help="run nothing, make the Markdown anew from the JSON")
    return parser


if __name__ == "__main__":
    sys.exit(output.run(main))
