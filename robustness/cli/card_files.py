"""`robustness check-cards`: problems of cards, read as files; fast enough for every commit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from robustness import cards
from robustness.errors import CardError, RobustnessError


def problems(path: Path) -> Iterator[str]:
    """Return what would fail a card's run, as far as its files show; load no model, import nothing."""
    try:
        card = cards.load(path)
    except CardError as error:
        yield str(error)
        return
    if not card.file.claims and card.file.gate is None:
        yield (
            f"{path}: has neither claims nor a gate, so its run checks nothing and fails under --robustness-strict; "
            "write claims (robustness init)"
        )
    yield from (f"{path}: the {waiver.place} is no longer {waiver}" for waiver in card.file.waivers if waiver.expired)
    if card.weights is not None and not card.weights.is_file() and card.file.recipe is None:
        yield f"{path}: model.weights: there is no file {card.weights}; commit it, or write a [recipe]"
    if card.file.gate is not None and not card.baseline.is_file():
        yield (
            f"{path}: has a gate, but the baseline {card.baseline} is missing; create it: robustness baseline accept "
            f"run.json --model {card.name}"
        )
    elif card.file.gate is not None:
        from robustness.gate import baseline

        try:
            baseline.read(card.baseline)
        except RobustnessError as error:
            yield f"{path}: {error}"
