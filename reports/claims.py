"""
What the shipped cards claim, by paper, perturbation and metric, made from the cards alone.

    python -m reports.claims

writes ``docs/papers/claims.md``: how many strengths of each sweep have a threshold, and why the others have none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from reports import commands
from reports.writing import table
from robustness import cards, output
from robustness.cards import Card
from robustness.schema import NO_CLAIM

MODULE, PAGE = "reports.claims", "claims.md"
FAMILIES = {
    "clean": "none", "noise": "noise", "fgsm": "FGSM", "attack": "other attacks", "gan": "GAN", "transfer": "transfer",
    "natural": "natural changes",
}  # fmt: skip
"""Families of perturbations and their names on the page."""
EXPECTED = ("noise", "fgsm", "attack", "gan", "transfer")
"""Every classifier is to be swept over these."""
METRICS = ("accuracy", "precision", "recall", "transferability")


def cell(card: Card, sweep: str, metric: str) -> str:
    """Return how many of a sweep's strengths have a threshold for a metric, or why none has."""
    if metric == "transferability" and card.perturbation(sweep).made_on is None:
        return "no source"
    table_ = card.file.claims.get(sweep)
    if table_ is None or metric not in table_.thresholds:
        return "not claimed"
    row = table_.thresholds[metric]
    possible = sum(threshold != NO_CLAIM for threshold in row)
    return f"{possible} of {len(row)}" if possible else f"none possible at {len(row)}"


def other(card: Card, sweep: str) -> str:
    """Return the further metrics that a sweep's table claims, with how many strengths have a threshold."""
    table_ = card.file.claims.get(sweep)
    names = [] if table_ is None else [name for name in table_.thresholds if name not in METRICS]
    return ", ".join(f"`{name}` {cell(card, sweep, name)}" for name in names)


def rows(card: Card) -> Iterator[list[str]]:
    """Yield a row per sweep of a card, and one per family that it is not swept over."""
    swept = {sweep: card.family(sweep) for sweep in ("clean", *card.file.sweeps)}
    for name, shown in FAMILIES.items():
        for sweep in (sweep for sweep, of in swept.items() if of == name):
            yield [shown, f"`{sweep}`", *(cell(card, sweep, metric) for metric in METRICS), other(card, sweep)]
        if name in EXPECTED and name not in swept.values():
            yield [shown, "not swept", *[""] * len(METRICS), ""]


def body(folder: Path) -> str:
    """Return the page's tables, papers in alphabetical order and the cards of no paper last."""
    every = [cards.load(path) for path in sorted(folder.glob("*.toml"))]
    parts = []
    for card in sorted(every, key=lambda card: (card.file.paper is None, card.file.paper or "", card.name)):
        search = "searched by Hypothesis" if card.file.search else "not searched by Hypothesis"
        heading = f"## {card.name}\n\nPaper: {card.file.paper or 'none'}. Scale {card.file.scale}, {search}."
        parts.append(f"{heading}\n\n{table(['perturbation', 'sweep', *METRICS, 'further metrics'], rows(card))}")
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 if it cannot, with the reason."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[1])
    parser.parse_args(arguments)
    folder = commands.ROOT / "models"
    return commands.answered(lambda: [commands.write_page(PAGE, MODULE, body(folder), commands.OUTPUT)])


if __name__ == "__main__":
    sys.exit(output.run(main))
