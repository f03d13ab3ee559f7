"""The search of a card: what its `[search]` table asks for, and the share of images that were flipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from robustness.cards import Card
    from robustness.data.images import Images
    from robustness.workspace.workspace import Workspace


def about(card: Card, seed: int, scale: float = 1.0) -> dict[str, Any]:
    """Return what a card's search depends on beside its model and images; ``scale`` multiplies its examples."""
    table = card.file.search
    assert table is not None
    return table.model_dump(exclude={"flip_rate"}) | {"examples": max(1, round(table.examples * scale)), "seed": seed}


def look(card: Card, module: nn.Module, images: Images, parameters: dict[str, Any]) -> dict[str, Any]:
    """Search with the parameters that `about` returns."""
    from robustness.search.search import search

    table = card.file.search
    assert table is not None
    return search(
        module,
        images,
        table.budget,
        count=table.images,
        sure=table.sure,
        examples=parameters["examples"],
        seed=parameters["seed"],
        decision=card.file.model.decision,
    )


def flip_rate(harness: Workspace, card: Card) -> float:
    """Return the share of the images that the search flips, from the store or searched now; NaN if it tries none."""
    from robustness.workspace.cached_results import cached_document

    parameters = about(card, harness.seed)
    result = cached_document(
        harness, card, "search", parameters, lambda module, images: look(card, module, images, parameters), sweeps=()
    )
    rate = result["flip_rate"]
    return float("nan") if rate is None else float(rate)
