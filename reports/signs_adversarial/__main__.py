"""
The document signs-adversarial rebuilt: train, sweep, and write its table.

    python -m reports.signs_adversarial

trains `models/gtsrb-signs.toml` and its adversarially trained twin, sweeps both with FGSM and PGD, and writes
``signs_adversarial.json`` and, from it alone, the tables in ``docs/papers/signs-adversarial.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import commands, running
from reports.signs_adversarial import measure, page
from robustness import cards, output

MODELS = commands.ROOT / "models"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    given = _parser().parse_args(arguments)
    return commands.answered(lambda: _made(given))


def _made(given: argparse.Namespace) -> list[Path]:
    output = given.output or commands.OUTPUT
    file = output / "signs_adversarial.json"
    if not given.render:
        pair = {measure.BEFORE: cards.load(given.before), measure.AFTER: cards.load(given.after)}
        commands.keep(file, measure.result(pair, given.few, running.harness_for(given), running.work(given)))
    body = page.body(json.loads(file.read_text(encoding="utf-8")))
    return [file, commands.write_page("signs-adversarial.md", page.MODULE, body, output)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {page.MODULE}", description=(__doc__ or "").split("\n")[1])
    parser.add_argument("--before", metavar="FILE", type=Path, default=MODELS / "gtsrb-signs.toml", help="its card")
    parser.add_argument("--after", metavar="FILE", type=Path, default=MODELS / "gtsrb-signs-adv.toml", help="its card")
    parser.add_argument("--few", type=int, metavar="N", default=2000, help="images attacked by many steps (2000)")
    running.add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(output.run(main))
