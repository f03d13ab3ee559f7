"""
What the shipped cards claim, by paper, perturbation and metric, from the cards alone.

    python -m reports.claims

writes ``docs/papers/claims.md``: how many thresholds each paper's cards have under each perturbation, then how many
strengths of each sweep have one, and why the others have none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from reports import paper, writing
from reports.writing import table
from robustness import cards
from robustness.cards import Card
from robustness.cards.schema import NO_CLAIM
from robustness.util import output

MODULE, PAGE = "reports.claims", "claims.md"
METRICS = ("accuracy", "precision", "recall", "transferability")
# Families under which every card must claim all metrics, whatever model the images are made on.
PERTURBATIONS = {"noise": "noise", "fgsm": "FGSM", "attack": "PGD and other attacks", "gan": "GAN"}
# All families, and their names on the page.
FAMILIES = {"clean": "none", **PERTURBATIONS, "natural": "natural changes", "corruption": "common corruptions"}
ON_ITSELF = "attacks of several steps are made on the model itself"
# Why a card has no thresholds under some perturbation or for some metric, by its name.
REASONS = dict.fromkeys(
    ("gtsrb-signs", "gtsrb-signs-adv"), "ten healthy trainings on GTSRB take hours and are still to come"
)


def perturbation(card: Card, sweep: str) -> str:
    """Return the family of what a sweep does to images, whatever model they are made on."""
    return card.perturbation(sweep).family


def count(card: Card, family: str, metric: str) -> int:
    """Return how many thresholds a card has for a metric under all of its sweeps of a family."""
    return sum(claim.metric == metric and perturbation(card, claim.sweep) == family for claim in card.claims())


def reason(card: Card, family: str, metric: str) -> str:
    """Return why a card has no threshold; empty if nothing explains it."""
    if (family, metric) == ("attack", "transferability"):
        return ON_ITSELF
    sweeps = [sweep for sweep in card.file.sweeps if perturbation(card, sweep) == family]
    rows = [
        table_.thresholds[metric]
        for sweep in sweeps
        if (table_ := card.file.claims.get(sweep)) and metric in table_.thresholds
    ]
    if rows and all(threshold == NO_CLAIM for row in rows for threshold in row):
        return "no claim possible"
    return REASONS.get(card.name, "")


def summary(every: Sequence[Card]) -> str:
    """Return the table of papers and perturbations: thresholds for each metric, and below it why cards have none."""
    rows, papers, notes = [], sorted({card.file.paper or "none" for card in every}), dict[str, int]()
    for name in papers:
        cards_ = [card for card in every if (card.file.paper or "none") == name]
        for family, title in PERTURBATIONS.items():
            counts = [_count_all(cards_, family, metric, notes) for metric in METRICS]
            rows.append([name, len(cards_), title, *counts])
    numbered = "\n".join(f"{number}. {note}" for note, number in notes.items())
    return f"{table(['paper', 'cards', 'perturbation', *METRICS], rows)}\n\nWithout a threshold:\n\n{numbered}"


def _count_all(cards_: Sequence[Card], family: str, metric: str, notes: dict[str, int]) -> str:
    """Return how many thresholds some cards have, and the numbers of the notes on those that have none."""
    total, missing = 0, dict[str, list[str]]()
    for card in cards_:
        total += (thresholds := count(card, family, metric))
        if not thresholds:
            missing.setdefault(reason(card, family, metric) or "not claimed", []).append(f"`{card.name}`")
    texts = [why if why == ON_ITSELF else f"{', '.join(names)}: {why}" for why, names in missing.items()]
    numbers = [str(notes.setdefault(text, len(notes) + 1)) for text in texts]
    return f"{total} (note {', '.join(numbers)})" if numbers else str(total)


def cell(card: Card, sweep: str, metric: str) -> str:
    """Return how many of a sweep's strengths have a threshold for a metric, or why none has."""
    if metric == "transferability" and card.perturbation(sweep).source_card is None:
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
    """Yield a row per sweep of a card, and one per perturbation that it is not swept over."""
    swept = {sweep: perturbation(card, sweep) for sweep in ("clean", *card.file.sweeps)}
    for family, title in FAMILIES.items():
        for sweep in (sweep for sweep, name in swept.items() if name == family):
            yield [title, f"`{sweep}`", *(cell(card, sweep, metric) for metric in METRICS), other(card, sweep)]
        if family in PERTURBATIONS and family not in swept.values():
            yield [title, "not swept", *[""] * len(METRICS), ""]


def body(folder: Path) -> str:
    """Return the page's tables, papers in alphabetical order and the cards of no paper last."""
    every = [cards.load(path) for path in sorted(folder.glob("*.toml"))]
    parts = [f"## Papers, perturbations, metrics\n\n{summary(every)}"]
    for card in sorted(every, key=lambda card: (card.file.paper is None, card.file.paper or "", card.name)):
        search = "searched by Hypothesis" if card.file.search else "not searched by Hypothesis"
        heading = f"## {card.name}\n\nPaper: {card.file.paper or 'none'}. Scale {card.file.scale}, {search}."
        parts.append(f"{heading}\n\n{table(['perturbation', 'sweep', *METRICS, 'further metrics'], rows(card))}")
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 if it cannot, with the reason."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[1])
    parser.parse_args(arguments)
    folder = writing.ROOT / "models"
    return paper.answer(lambda: [paper.write_page(PAGE, MODULE, body(folder), paper.MEASURED)])


if __name__ == "__main__":
    sys.exit(output.run(main))
