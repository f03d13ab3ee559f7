"""Run the search of a card's `[search]` table and return the fraction of flipped images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from robustness.cards import Card
    from robustness.data.images import Images
    from robustness.workspace.workspace import Workspace


def search_parameters(card: Card, seed: int, scale: float = 1.0) -> dict[str, Any]:
    """Return the parameters of a card's search without model and images; ``scale`` multiplies its ``max_examples``."""
    table = card.file.search
    assert table is not None
    return table.model_dump(exclude={"max_flip_rate"}) | {
        "max_examples": max(1, round(table.max_examples * scale)),
        "seed": seed,
    }


def run_search(card: Card, module: nn.Module, images: Images, parameters: dict[str, Any]) -> dict[str, Any]:
    """Search with the parameters of `search_parameters`."""
    from robustness.search.search import search

    table = card.file.search
    assert table is not None
    return search(
        module,
        images,
        table.budget,
        count=table.images,
        min_confidence=table.min_confidence,
        max_examples=parameters["max_examples"],
        seed=parameters["seed"],
        decision=card.file.model.decision,
    )


def flip_rate(workspace: Workspace, card: Card) -> float:
    """Return the fraction of images that the search flips, cached in the store; NaN if it tries none."""
    from robustness.workspace.cached_results import cached_document

    parameters = search_parameters(card, workspace.seed)
    result = cached_document(
        workspace,
        card,
        "search",
        parameters,
        lambda module, images: run_search(card, module, images, parameters),
        sweeps=(),
    )
    rate = result["flip_rate"]
    return float("nan") if rate is None else float(rate)
