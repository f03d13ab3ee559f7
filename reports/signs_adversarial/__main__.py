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

from reports import running
from reports.signs_adversarial import measure, page
from reports.writing import dumped, inserted
from robustness import cards
from robustness.errors import RobustnessError

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "reports" / "measured"
DOCS = ROOT / "docs" / "papers" / "signs-adversarial.md"
MODELS = ROOT / "models"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    given = _parser().parse_args(arguments)
    output = given.output or OUTPUT
    file = output / "signs_adversarial.json"
    try:
        if not given.render:
            pair = {measure.BEFORE: cards.load(given.before), measure.AFTER: cards.load(given.after)}
            result = measure.result(pair, given.few, running.harness_for(given), given.workers)
            output.mkdir(parents=True, exist_ok=True)
            file.write_text(dumped(result), encoding="utf-8")
        body = page.body(json.loads(file.read_text(encoding="utf-8")))
        docs = DOCS if output.resolve() == OUTPUT else output / "signs-adversarial.md"
        text = inserted(DOCS.read_text(encoding="utf-8"), page.MODULE, body) if docs == DOCS else body
        docs.write_text(text, encoding="utf-8")
    except (RobustnessError, OSError) as error:
        running.say(f"error: {error}")
        return 2
    print(f"written: {file}\nwritten: {docs}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {page.MODULE}", description=(__doc__ or "").split("\n")[1])
    parser.add_argument("--before", metavar="FILE", type=Path, default=MODELS / "gtsrb-signs.toml", help="its card")
    parser.add_argument("--after", metavar="FILE", type=Path, default=MODELS / "gtsrb-signs-adv.toml", help="its card")
    parser.add_argument("--few", type=int, metavar="N", default=2000, help="images attacked by many steps (2000)")
    running.add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
