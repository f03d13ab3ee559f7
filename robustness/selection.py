"""Which cards a run takes: those it is handed, and of these the ones on embedded data or named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from robustness import cards
from robustness.cards import Card
from robustness.errors import CardError


def card_files(given: Iterable[Path]) -> list[Path]:
    """Give the card files among files and folders, each once, in a stable order."""
    found: list[Path] = []
    for path in given:
        if not path.exists():
            raise CardError(f"{path}: there is no such card; name a .toml file, or a folder that holds some")
        files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        found += [file for file in files if file not in found]
    return found


def select(handed: Sequence[Path], named: Sequence[Path], models: Sequence[str]) -> list[Card]:
    """
    Give the cards that a run takes.

    ``handed`` by hooks: of them a plain run takes those on embedded data. ``named`` by option or ini file: all.
    ``models``: exactly these, by name. CardError where a name is unknown or borne by two cards.
    """
    always = [cards.load(file) for file in card_files(named)]
    taken = {card.path.resolve() for card in always}
    offered = [cards.load(file) for file in card_files(handed) if file.resolve() not in taken]
    known: dict[str, Card] = {}
    for card in (*always, *offered):
        if card.name in known:
            other = known[card.name].path
            raise CardError(f"{card.path}: name = {card.name!r} is also the name of {other}; rename one")
        known[card.name] = card
    if unknown := [name for name in models if name not in known]:
        raise CardError(f"no model is called {', '.join(unknown)}; known: {', '.join(known) or 'none'}")
    if models:
        return [known[name] for name in dict.fromkeys(models)]
    return [*always, *(card for card in offered if card.file.data.embedded)]
