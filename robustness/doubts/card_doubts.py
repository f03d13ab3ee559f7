"""The doubts of a card: what its attacks, their budgets and the sources of its transfers make of a look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robustness.errors import RobustnessError
from robustness.metrics.evidence import OK
from robustness.perturbations import FGSM
from robustness.perturbations.pgd import IterativeAttack

if TYPE_CHECKING:
    from torch import nn

    from robustness.cards import Card
    from robustness.cards.schema import SweepTable
    from robustness.data.images import Images
    from robustness.doubts.trial import Answers
    from robustness.workspace.workspace import Workspace

EPSILON = 0.1
"""The largest budget that is tried if the card attacks with none."""


def about(harness: Workspace, card: Card) -> dict[str, Any]:
    """Return what the answers depend on beside the model and its images."""
    source = _source(harness, card)
    return {
        "epsilon": _epsilon(card),
        "attacks": {name: table.perturbation.model_dump() for name, table in _iterated(card).items()},
        "source": None if source is None else harness.model_key_fields(source),
        "seed": harness.seed,
    }


def look(harness: Workspace, card: Card, module: nn.Module, images: Images) -> Answers:
    """Look for every doubt on a card's module, beside what its clean sweep has said."""
    from robustness.doubts import data
    from robustness.doubts import look as looking

    source, clean = _source(harness, card), None
    try:
        if (evidence := harness.evidence(card)).status[0] == OK:
            clean = evidence.predictions[0].astype("int64")
    except RobustnessError:  # the tests of its sweeps say so; the doubts may say why
        pass
    return looking.look(
        module,
        images,
        epsilon=_epsilon(card),
        attacks={name: table.perturbation for name, table in _iterated(card).items()},
        decision=card.file.model.decision,
        source=None if source is None else harness.classifier(source).module,
        source_decision=None if source is None else source.file.model.decision,
        seed=harness.seed,
        device=harness.device,
        predictions=clean,
        training=lambda: data.training_part(harness, card),
    )


def standing(harness: Workspace, card: Card) -> list[str]:
    """Return the doubts that stand against a card's numbers: raised or broken, and not known to the card."""
    from robustness.workspace.cached_results import cached_document

    def make(module: nn.Module, images: Images) -> Answers:
        return look(harness, card, module, images)

    answers = cached_document(harness, card, "doubts", about(harness, card), make)
    return [
        name for name, answer in answers.items()
        if (answer["doubted"] or answer.get("broken")) and name not in card.file.doubts
    ]  # fmt: skip


def _bounded(card: Card) -> Mapping[str, SweepTable]:
    """Return the card's own attacks by gradient, within an L∞ budget, on the model itself."""
    return {
        name: table for name, table in card.file.sweeps.items()
        if isinstance(p := table.perturbation, FGSM | IterativeAttack)
        and table.unit == "native" and p.norm == "linf" and p.made_on is None
    }  # fmt: skip


def _iterated(card: Card) -> Mapping[str, SweepTable]:
    return {name: table for name, table in _bounded(card).items() if isinstance(table.perturbation, IterativeAttack)}


def _epsilon(card: Card) -> float:
    """Return the largest of these budgets."""
    sizes = [size for table in _bounded(card).values() for size in table.strengths if isinstance(size, int | float)]
    return float(max(sizes, default=0) or EPSILON)


def _source(harness: Workspace, card: Card) -> Card | None:
    """Return the card of the model that transferred examples are made on: the first, if any is named."""
    named = next((name for name, table in card.file.sweeps.items() if table.perturbation.made_on is not None), None)
    return None if named is None else harness.source(card, named)
