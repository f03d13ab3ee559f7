"""Which sweeps the selected cards need, those of the sources of transfer among them, and which of them are there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustness.metrics.evidence import Evidence
from robustness.workspace import training

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.workspace.workspace import Workspace


@dataclass(frozen=True)
class Item:
    """One sweep of one model, and the evidence of it that the store has, if it has any."""

    card: Card
    sweep: str
    key: str
    """What it is by content, as far as that is known: the same for two items that are the same evidence."""
    stored: Evidence | None = None

    @property
    def label(self) -> str:
        """What it is called."""
        return f"{self.card.name}:{self.sweep}"


def needed(harness: Workspace, card: Card) -> Iterator[Item]:
    """Return all that `robustness sweep` makes for a card, in its order; sources of transfer are swept first."""
    for sweep in ("clean", *card.file.sweeps):
        yield from _with_source(harness, card, sweep)


def _with_source(harness: Workspace, card: Card, sweep: str) -> Iterator[Item]:
    source = harness.source(card, sweep)
    if source is not None:
        yield from (_item(harness, source, each) for each in ("clean", sweep))
    yield _item(harness, card, sweep)


def _item(harness: Workspace, card: Card, sweep: str) -> Item:
    source = harness.source(card, sweep)
    if all(is_trained(harness, one) for one in (card, source) if one is not None):
        key = harness.key(card, sweep)
        return Item(card, sweep, key, harness.store.evidence(key, card.project)[0])
    # Without weights there is no key, nor anything in the store.
    data, table = card.tested_on or card.file.data, card.file.sweeps.get(sweep)
    model = card.file.model_dump_json(include={"model", "recipe"})
    return Item(card, sweep, f"{card.path.resolve()}\n{model}\n{data.model_dump_json()}\n{table and table!r}")


def is_trained(harness: Workspace, card: Card) -> bool:
    """Return whether a card's weights are there, or need no training; nothing is trained."""
    own = card.weights
    if (own is not None and own.is_file()) or card.file.model.seed is not None or card.file.recipe is None:
        return True
    return training.stored_weights(harness, card) is not None
