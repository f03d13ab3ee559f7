"""Train, sweep and report: `python -m reports.label_2n --data-set cifar10 --scale short`; interrupted, it goes on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.label_2n import protocol
from robustness import cards, listing
from robustness.cards import Card
from robustness.harness import Harness, data_root, store_root
from robustness.parallel import train_many
from robustness.progress import bar
from robustness.store import Store

RUNS = Path(__file__).parents[1] / "runs"
"""Where the cards of a run are written: below the checkout, so that they can import its models."""


def main() -> int:
    """Run the protocol."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-set", choices=sorted(protocol.SOURCES), required=True)
    parser.add_argument("--scale", choices=sorted(protocol.SCALES), default="short")
    parser.add_argument("--folds", type=int, help="only the first so many")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--only", choices=["train"], help="stop after this step")
    options = parser.parse_args()
    scale = protocol.SCALES[options.scale]
    tables = protocol.cards(options.data_set, scale, range(options.folds or scale.folds))
    paths = protocol.write(tables, RUNS / f"label_2n-{options.scale}")
    every = {name: cards.load(path) for name, path in paths.items()}
    for level in levels(every):
        train_many(
            [every[name] for name in level], store_root(), data_root(), options.workers, say=_say, progress=bar,
            what=f"training {options.data_set}, {len(level)} of {len(every)} models",
        )  # fmt: skip
    if options.only == "train":
        return 0
    judged = protocol.write(protocol.evaluated(tables, options.data_set), RUNS / f"label_2n-{options.scale}")
    harness = Harness(Store(store_root(), say=_say), data_root(), progress=bar)
    for path in judged.values():
        card = cards.load(path)
        for sweep in ("clean", *card.file.sweeps):
            for line in listing.swept(f"{card.name}:{sweep}", harness.evidence(card, sweep), harness.store.run):
                _say(line)
    return 0


def levels(every: dict[str, Card]) -> list[list[str]]:
    """Give the names in the order of what they need: each level needs earlier ones alone."""
    left, found = dict(every), []
    done: set[str] = set()
    while left:
        ready = [name for name, card in left.items() if _needed(card) <= done]
        found.append(ready)
        done |= set(ready)
        left = {name: card for name, card in left.items() if name not in done}
    return found


def _needed(card: Card) -> set[str]:
    return {Path(path).stem for path in card.file.recipe.needs.values()} if card.file.recipe else set()


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
