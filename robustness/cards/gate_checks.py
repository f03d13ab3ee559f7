"""What a card's gate and waivers must fit in the rest of the card; ValueErrors, which become the card's problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from robustness.decisions import Filtering
from robustness.errors import nearest
from robustness.metrics import registry
from robustness.perturbations import strength as strengths

if TYPE_CHECKING:
    from robustness.cards.gate import GateTable
    from robustness.cards.schema import CardFile


def check(card: CardFile) -> None:
    """Refuse a gate of what is not swept or cannot be gated, and waivers of what is not claimed."""
    if card.gate is not None:
        _check_gate(card, card.gate)
    seen = set()
    for waiver in card.waivers:
        known = list(_cells(card) if waiver.claim is None else _claims(card))
        named = waiver.claim or waiver.cell
        if named not in known:
            what = "cell of a gate" if waiver.claim is None else "claim"
            raise ValueError(
                f"waivers: the card has no {what} {named!r}; write SWEEP:STRENGTH:METRIC{nearest(named, known)}"
            )
        if waiver.place in seen:
            raise ValueError(f"waivers: {waiver.place} is waived more than once; keep one of them")
        seen.add(waiver.place)


def _check_gate(card: CardFile, gate: GateTable) -> None:
    known = ["clean", *card.sweeps]
    for name in (*(gate.sweeps or ()), *gate.margins):
        if name not in known:
            raise ValueError(f"gate: no such sweep: {name}; allowed: {', '.join(known)}{nearest(name, known)}")
    for name, row in gate.margins.items():
        if len(row) != (due := len(card.strengths_of(name))):
            raise ValueError(f"gate.margins.{name}: must hold one margin a strength ({due}), got {len(row)}")
    for metric in gate.metrics:
        if not registry.gateable(metric):
            allowed = [name for name, each in registry.METRICS.items() if each.influence]
            raise ValueError(
                f"gate.metrics: must be among {', '.join(allowed)}; got {metric!r}{nearest(metric, allowed)}"
            )
        asked = registry.get(metric)
        if asked.needs_detector and not isinstance(card.model.decision, Filtering):
            raise ValueError(
                f"gate.metrics: {metric} needs a decision that can tell an attack, got {card.model.decision.kind}"
            )
        if asked.needs_probabilities and not card.probabilities:
            raise ValueError(f"gate.metrics: {metric} needs every class's; write probabilities = true in the card")


def _claims(card: CardFile) -> Iterator[str]:
    for sweep, table in card.claims.items():
        for row, strength in enumerate(table.strengths or card.strengths_of(sweep)):
            for metric, thresholds in table.thresholds.items():
                if row < len(thresholds) and not isinstance(thresholds[row], str):
                    yield f"{sweep}:{strengths.name(strength)}:{metric}"


def _cells(card: CardFile) -> Iterator[str]:
    gate = card.gate
    if gate is None:
        return
    for sweep in gate.sweeps or ("clean", *card.sweeps):
        of = [strengths.name(strength) for strength in card.strengths_of(sweep)]
        for strength in ["mean"] if gate.kind == "recipe" and sweep != "clean" else of:
            yield from (f"{sweep}:{strength}:{metric}" for metric in gate.metrics)
