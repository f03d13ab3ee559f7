"""The mutations of a model: kinds, levels, and what is not applicable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from robustness.cards import Card
from robustness.gate import baseline
from robustness.mutations import operators
from robustness.mutations.kinds import ALL, KINDS, Mutation, MutationError, MutationOperator
from robustness.workspace.workspace import Workspace

RETRAININGS, FIRST = 10, 2000
"""Default number of undamaged retrainings, and their first seed: no threshold was derived from these."""


@dataclass(frozen=True)
class MutationOptions:
    """Options: the damage (None: every kind at its default levels) and the number of undamaged retrainings."""

    damage: Mapping[str, tuple[float, ...]] | None = None
    retrainings: int | None = None
    every: bool = False
    """All levels, not only from the worst down to the first that nothing detects."""
    workers: int | None = None


@dataclass(frozen=True)
class MutationPlan:
    """The kinds with their levels, the worst first; the undamaged retrainings; what is left out, and why."""

    damage: Mapping[str, tuple[Mutation, ...]]
    retrainings: tuple[Card, ...]
    left_out: Mapping[str, str]

    def __len__(self) -> int:
        return sum(map(len, self.damage.values())) + len(self.retrainings)

    def trainings(self, card: Card) -> list[Card]:
        """Return everything that is to be trained."""
        every = (damage for damages in self.damage.values() for damage in damages)
        return [*self.retrainings, *(card.mutated(damage) for damage in every if damage.operator.target == "training")]


def plan(workspace: Workspace, card: Card, options: MutationOptions) -> MutationPlan:
    """Return the mutations of a card's model; MutationError if a level does not fit its data."""
    module, classes = workspace.classifier(card).module, len(workspace.images(card).classes)
    chosen: dict[str, tuple[Mutation, ...]] = {}
    left_out: dict[str, str] = {}
    for kind in (KINDS[name] for name in options.damage or KINDS):
        untrained = kind.target == "training" and _untrained(card, options.damage is not None)
        if reason := untrained or operators.not_applicable(module, kind):
            left_out[kind.title] = reason
        else:
            levels = _levels(kind, (options.damage or {}).get(kind.name, kind.levels), classes)
            chosen[kind.name] = tuple(Mutation(kind.name, level) for level in levels)
    count = RETRAININGS if options.retrainings is None else options.retrainings
    if count and (reason := _untrained(card, options.retrainings is not None)):
        left_out["undamaged retrainings"], count = reason, 0
    return MutationPlan(chosen, _retrainings(card, count), left_out)


def _levels(kind: MutationOperator, levels: tuple[float, ...], classes: int) -> tuple[float, ...]:
    """Return the levels of a kind, the worst first; a level of all classes is always written as such."""
    if kind.name == "classes":
        if over := [level for level in levels if classes < level < ALL and levels != kind.levels]:
            raise MutationError(f"a level of classes must be at most {classes}, the number of classes, got {over[0]:g}")
        levels = tuple(ALL if level >= classes else level for level in levels)
    return kind.most_severe_first(levels)


def _untrained(card: Card, named: bool) -> str:
    """Explain why nothing is trained; ``named`` is whether training was requested by name."""
    if card.file.recipe is None:
        return "the card has no [recipe]"
    manual = card.file.recipe.start == "manual" and not named
    return 'its recipe has start = "manual"; request this damage by name (--damage)' if manual else ""


def _retrainings(card: Card, count: int) -> tuple[Card, ...]:
    """Return the card with as many seeds that no accepted model has."""
    accepted = [one.get("seed") for one in baseline.read(card.baseline).accepted] if card.file.gate else []
    seeds = (seed for seed in range(FIRST, FIRST + count + len(accepted)) if seed not in accepted)
    return tuple(card.reseeded(seed) for seed in islice(seeds, count))
