"""Run the checks for a card: its attacks, their budgets, and the source of its transfer attacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robustness.errors import RobustnessError
from robustness.metrics.evidence import OK
from robustness.perturbations import FGSM, AutoAttack, Perturbation
from robustness.perturbations.pgd import IterativeAttack

if TYPE_CHECKING:
    from torch import nn

    from robustness.cards import Card
    from robustness.cards.schema import SweepTable
    from robustness.data.images import Images
    from robustness.doubts.probe import CheckResults
    from robustness.workspace.workspace import Workspace

# The largest budget if the card has no attack with one.
EPSILON = 0.1


def check_parameters(workspace: Workspace, card: Card) -> dict[str, Any]:
    """Return the parameters of the checks other than the model and its images."""
    source = _transfer_source(workspace, card)
    return {
        "epsilon": _max_budget(card),
        "attacks": {name: attack.model_dump() for name, attack in iterative_attacks(card.file.sweeps).items()},
        "source": None if source is None else workspace.model_key_fields(source),
        "seed": workspace.seed,
    }


def run_checks(workspace: Workspace, card: Card, module: nn.Module, images: Images) -> CheckResults:
    """Run every check on a card's module; predictions come from its clean sweep if that has run."""
    from robustness.doubts import checks, data

    source, clean = _transfer_source(workspace, card), None
    try:
        if (evidence := workspace.evidence(card)).status[0] == OK:
            clean = evidence.predictions[0].astype("int64")
    except RobustnessError:  # the tests of its sweeps report it; the checks may show why
        pass
    return checks.run_checks(
        module,
        images,
        epsilon=_max_budget(card),
        attacks=iterative_attacks(card.file.sweeps),
        decision=card.file.model.decision,
        source=None if source is None else workspace.classifier(source).module,
        source_decision=None if source is None else source.file.model.decision,
        seed=workspace.seed,
        device=workspace.device,
        predictions=clean,
        training=lambda: data.training_part(workspace, card),
    )


def unresolved_doubts(workspace: Workspace, card: Card) -> list[str]:
    """Return the doubts about a card's numbers that are raised or broken, and not acknowledged in the card."""
    from robustness.workspace.cached_results import cached_document

    def compute(module: nn.Module, images: Images) -> CheckResults:
        return run_checks(workspace, card, module, images)

    results = cached_document(workspace, card, "doubts", check_parameters(workspace, card), compute)
    return [
        name for name, result in results.items()
        if (result["doubted"] or result.get("broken")) and name not in card.file.doubts
    ]  # fmt: skip


def linf_attacks(sweeps: Mapping[str, SweepTable]) -> dict[str, tuple[Perturbation, list[float]]]:
    """
    Return the gradient attacks within an L∞ budget on the model itself, with their budgets.

    AutoAttack is represented by its first iterative member, because the checks ask what gradients find.
    """
    attacks = {
        name: (first_member(table.perturbation), [s for s in table.strengths if isinstance(s, int | float)])
        for name, table in sweeps.items() if table.unit == "default" and table.perturbation.source_card is None
    }  # fmt: skip
    return {
        name: (attack, budgets) for name, (attack, budgets) in attacks.items()
        if isinstance(attack, FGSM | IterativeAttack) and attack.norm == "linf"
    }  # fmt: skip


def first_member(perturbation: Perturbation) -> Perturbation:
    """Return the first iterative attack of an ensemble; any other perturbation itself."""
    members = perturbation.members(10) if isinstance(perturbation, AutoAttack) else []
    return next((member for member in members if isinstance(member, IterativeAttack)), perturbation)


def iterative_attacks(sweeps: Mapping[str, SweepTable]) -> dict[str, Perturbation]:
    """Return those of these attacks that take several steps."""
    return {name: attack for name, (attack, _) in linf_attacks(sweeps).items() if isinstance(attack, IterativeAttack)}


def _max_budget(card: Card) -> float:
    """Return the largest budget of these attacks."""
    sizes = [budget for _, budgets in linf_attacks(card.file.sweeps).values() for budget in budgets]
    return float(max(sizes, default=0) or EPSILON)


def _transfer_source(workspace: Workspace, card: Card) -> Card | None:
    """Return the card of the first source model of a transfer attack, or None."""
    named = next((name for name, table in card.file.sweeps.items() if table.perturbation.source_card is not None), None)
    return None if named is None else workspace.source(card, named)
