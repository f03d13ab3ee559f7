"""Which cards a run takes: those it is handed, and of these the ones whose data are at hand, or named; and how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from robustness import cards
from robustness.cards.card import Card
from robustness.errors import CardError, nearest
from robustness.util import paths


def card_files(files_or_folders: Iterable[Path]) -> list[Path]:
    """Return the card files among files and folders, each once, in a stable order."""
    files: list[Path] = []
    for path in files_or_folders:
        if not paths.exists(path):
            raise CardError(f"{path}: there is no such card; name a .toml file, or a folder with cards")
        listed = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        files += [file for file in listed if file not in files]
    return files


def select(handed: Sequence[Path], named: Sequence[Path], models: Sequence[str]) -> list[Card]:
    """
    Return the cards that a run takes.

    ``handed`` by hooks: a plain run takes those on embedded data, or on data beside the card. ``named`` by option, ini
    file or project: all. ``models``: exactly these, by name. CardError if a name is unknown or ambiguous.
    """
    always = [cards.load(file) for file in card_files(named)]
    taken = {card.path.resolve() for card in always}
    offered = [cards.load(file) for file in card_files(handed) if file.resolve() not in taken]
    known: dict[str, Card] = {}
    folded: dict[str, Card] = {}
    for card in (*always, *offered):
        other = folded.setdefault(card.name.casefold(), card)
        if other is not card:  # also where only capitals differ: some file systems keep both in one file
            also = "is also the name" if other.name == card.name else f"differs by capitals alone from {other.name!r}"
            raise CardError(f"{card.path}: name = {card.name!r} {also} of {other.path}; rename one")
        known[card.name] = card
    if unknown := [name for name in models if name not in known]:
        raise CardError(
            f"no model is called {', '.join(unknown)}; known: {', '.join(known) or 'none'}{nearest(unknown[0], known)}"
        )
    if models:
        return [known[name] for name in dict.fromkeys(models)]
    return [*always, *(card for card in offered if card.file.data.embedded or card.file.data.beside_card)]


def with_weights(chosen: Sequence[Card], options: Sequence[str], folder: Path) -> list[Card]:
    """
    Return the cards with other weights than their own: ``NAME=FILE`` each, or ``FILE`` where one card is chosen.

    Files start from ``folder``. CardError if a file is not there, no chosen card is called NAME, or FILE alone could
    be meant for several.
    """
    by_name, taken = {card.name: card for card in chosen}, set()
    for each in options:
        name, file = _named(each, list(by_name), folder)
        path = folder / paths.expanded(file)
        cards.require_file(path, file, f"`weights` of {name}")
        if name in taken:
            raise CardError(f"`weights` of {name} are given twice, the second time as {file!r}; test one at a time")
        taken.add(name)
        # Without its recipe: what is judged is this file, which no recipe of the card has to have made.
        model = by_name[name].file.model.model_copy(update={"weights": str(path.resolve())})
        table = by_name[name].file.model_copy(update={"model": model, "recipe": None})
        by_name[name] = replace(by_name[name], file=table).override(weights=path)
    return list(by_name.values())


def _named(option: str, names: Sequence[str], folder: Path) -> tuple[str, str]:
    """Distinguish NAME=FILE from FILE: names and files may both contain "="."""
    named = max((name for name in names if option.startswith(f"{name}=")), key=len, default=None)
    if named is not None:
        return named, option.removeprefix(f"{named}=")
    listed = ", ".join(names) or "none"
    if "=" in option and not (folder / option).is_file():
        raise CardError(f"`weights`: no selected model is called {option.partition('=')[0]!r}; selected: {listed}")
    if len(names) != 1:
        raise CardError(f"`weights` must be NAME=FILE unless one model is selected ({listed}), got {option!r}")
    return names[0], option


def limit_test_images(card: Card, count: int | None) -> Card:
    """Return a card that is tested on this many of its test images, stratified by class (None: all)."""
    data = card.file.data.model_copy(update={"num_test_images": count})
    return replace(card, file=card.file.model_copy(update={"data": data}))
