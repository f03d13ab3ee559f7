"""Results of cards, claims and gates in a run, from which a report is built."""

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
    The outcome of one claim in a run, with the message and numbers of its test.

    ``numbers`` holds value, low, high, method, n, successes and note, or nothing if nothing was measured; if evidence
    is not stored, also its data, seed and device.
    """

    claim: Claim
    outcome: Outcome
    message: str
    numbers: Mapping[str, float | int | str | None]
    nodeid: str


@dataclass(frozen=True)
class GateOutcome:
    """The outcome of one model's gate, its message, and its table (docs/gate.md)."""

    model: str
    outcome: GateFate
    message: str
    table: Mapping[str, Any]


@dataclass(frozen=True)
class ModelResult:
    """Results of a card: ``evidence`` by sweep (including "clean"; None if it was not stored), its claims, its gate."""

    card: Card
    evidence: Mapping[str, Evidence | None]
    outcomes: Sequence[ClaimOutcome]
    gate: GateOutcome | None = None
    measured: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Outcomes of sweeps without claims, by name: "measured", or another outcome and why."""
    suggested: str = ""
    """The claims that these sweeps suggest, as TOML."""
    caught: CaughtReport | None = None
    """The level from which damage is detected (docs/mutation.md), if stored beside its card."""
    doubted: Sequence[str] = ()
    """The doubts that were raised or could not be checked."""
