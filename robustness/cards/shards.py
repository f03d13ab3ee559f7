"""Which part of a run's models one of several machines takes: planned alike on each, from the cards alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustness.cards.card import Card
from robustness.errors import RobustnessError
from robustness.util.hashing import sha256_json
from robustness.util.source_files import sha256_file

IMAGES = 10_000
"""Taken for the test images of a card that does not tell how many: as many as MNIST and CIFAR-10 have."""
KNOWN = {"digits": 1_797}
GRADIENT = 3
"""What a gradient costs, in forward passes."""


@dataclass(frozen=True)
class Shard:
    """One of the parts that a run is divided into, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse(text: str) -> Shard:
    """
    Read which shard is meant.

    >>> parse("2/4")
    Shard(number=2, of=4)
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip(), re.ASCII)
    shard = Shard(*map(int, match.groups())) if match else None
    if shard is None or not 1 <= shard.number <= shard.of:
        raise RobustnessError(f"`shard` must be I/N with 1 ≤ I ≤ N, such as 1/4 for the first of four, got {text!r}")
    return shard


def estimate_passes(card: Card) -> int:
    """
    Estimate the forward passes of a card's sweeps from the card alone: different machines must plan alike.

    How long a pass takes is not known; `passes.per_image` counts exactly, and needs torch and the model.
    """
    passes = 1
    for name, table in card.file.sweeps.items():
        perturbation, strengths = table.perturbation, card.file.strengths_of(name)
        passes += len(strengths) + GRADIENT * perturbation.gradients(strengths) + perturbation.forward_passes(strengths)
    return passes * (card.file.data.num_test_images or KNOWN.get(card.file.data.name, IMAGES))


def assign_shards(costs: Mapping[str, int], of: int) -> dict[str, int]:
    """
    Return each model, by name, the number of its shard: the most expensive first, each to the shard with the least so
    far.

    No shard then has more than 4/3 of what the best division would give the fullest (Graham 1969).

    >>> assign_shards({"small": 1, "large": 5, "middle": 3, "other": 3}, 2)
    {'large': 1, 'middle': 2, 'other': 2, 'small': 1}
    """
    loads, assigned = [0] * of, {}
    for name in sorted(costs, key=lambda name: (-costs[name], name)):
        least = loads.index(min(loads))
        loads[least] += costs[name]
        assigned[name] = least + 1
    return assigned


def plan(chosen: Sequence[Card], shard: Shard, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    Describe how a run is divided, for every shard's report; `merge` rejects shards whose plans differ.

    A model is never split: its gate reads all its evidence, and its weights and clean pass are computed once. ``asked``
    has the other options that all shards must have in common. RobustnessError if there are more shards than models.
    """
    if shard.of > len(chosen):
        raise RobustnessError(
            f"`shard` {shard}: a run of {len(chosen)} model(s) has at most that many shards, because a model is never "
            "split (its gate reads all its evidence); use "
            f"{shard.number if shard.number <= len(chosen) else 1}/{max(1, len(chosen))}, and workers (-n) for more"
        )
    costs = {card.name: estimate_passes(card) for card in chosen}
    taken = assign_shards(costs, shard.of)
    models = [
        {"name": card.name, "card": _content(card), "cost": costs[card.name], "shard": taken[card.name]}
        for card in chosen
    ]
    common = {"of": shard.of, "asked": dict(options), "models": models}
    return {"number": shard.number, **common, "plan": sha256_json(common)}


def _content(card: Card) -> str:
    """Hash what a card holds, and other weights that it is judged with, whatever their files are called."""
    table = card.file.model_dump(mode="json")
    if card.overrides.weights is not None:
        table["model"]["weights"] = sha256_file(card.overrides.weights)
    return sha256_json(table)
