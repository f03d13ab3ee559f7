"""What came of cards, claims and gates in a run: what a report is built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robustness.cards import Card, Claim
from robustness.reporting.report_types import GateFate, Outcome

if TYPE_CHECKING:
    from robustness.metrics.evidence import Evidence
    from robustness.reporting.report import CaughtReport


@dataclass(frozen=True)
class ClaimOutcome:
    """
    What came of one claim in a run, in the words and numbers of its test.

    ``numbers`` holds value, low, high, method, n, successes and note, or nothing where nothing was measured;
    where evidence is not kept, its data, seed and device serve too.
    """

    claim: Claim
    outcome: Outcome
    message: str
    numbers: Mapping[str, float | int | str | None]
    nodeid: str


@dataclass(frozen=True)
class GateOutcome:
    """What came of one model's gate: the sentence of its test, and its table (docs/gate.md)."""

    model: str
    outcome: GateFate
    message: str
    table: Mapping[str, Any]


@dataclass(frozen=True)
class ModelResult:
    """What came of a card: ``evidence`` by sweep ("clean" too; None where it was not kept), its claims, its gate."""

    card: Card
    evidence: Mapping[str, Evidence | None]
    outcomes: Sequence[ClaimOutcome]
    gate: GateOutcome | None = None
    measured: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What came of sweeps that were asked for without claims, by name: "measured", or what else and why."""
    suggested: str = ""
    """Claims that these would suggest, as TOML."""
    caught: CaughtReport | None = None
    """From which level on damage to it is caught (docs/mutation.md), where that was kept beside its card."""
    doubted: Sequence[str] = ()
    """The doubts that were raised, or could not be looked for."""
