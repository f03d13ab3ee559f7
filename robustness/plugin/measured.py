"""Sweeps without claims, and their outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from robustness.cards import Card
from robustness.cards import profiles as sweep_profiles
from robustness.cards.schema import Name, SweepTable
from robustness.errors import CardError
from robustness.util.project import profiles
from robustness.util.validation_messages import format_problem

_SWEEPS: TypeAdapter[dict[str, SweepTable]] = TypeAdapter(dict[Name, SweepTable])

MEASURED, NOT_RUN = "measured", "not run"

PROBLEMS = (
    (NOT_RUN, NOT_RUN, "did not run"),
    ("skipped", "skipped", "were skipped"),
    ("error", "no numbers", "have no numbers"),
)
"""What makes a run fail: the outcome of a sweep, the cause for advice, and the words."""


@dataclass(frozen=True)
class UnclaimedSweep:
    """One sweep of a card that is measured without claims."""

    model: str
    sweep: str

    @property
    def id(self) -> str:
        """Its name in test ids."""
        return f"{self.model}:{self.sweep}"


@dataclass
class UnclaimedSweeps:
    """Sweeps without claims by test id, and their outcomes: "measured", "error" or "skipped", and why."""

    planned: dict[str, UnclaimedSweep] = field(default_factory=dict)
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)

    def record(self, nodeid: str, outcome: str, message: str) -> None:
        """Record an outcome; a failure is never overwritten."""
        if self.outcomes.get(nodeid, ("", ""))[0] != "error":
            self.outcomes[nodeid] = (outcome, message)

    def of(self, model: str) -> dict[str, tuple[str, str]]:
        """Return the outcomes of a model's sweeps, by name."""
        sweeps = {
            m.sweep: self.outcomes.get(node, (NOT_RUN, "no worker reported it"))
            for node, m in self.planned.items()
            if m.model == model
        }
        return sweeps

    def problems(self) -> Iterator[tuple[str, str]]:
        """Return why the run does not count as measured: cause and message."""
        every = {m.id: self.outcomes.get(node, (NOT_RUN, ""))[0] for node, m in self.planned.items()}
        for fate, cause, message in PROBLEMS:
            if named := [name for name, outcome in every.items() if outcome == fate]:
                yield cause, f"{len(named)} of {len(every)} sweeps {message}, for instance {named[0]}"


def without_claims(card: Card, profile: str | None, shape: sweep_profiles.Shape) -> Card:
    """Return a copy of a card without claims, and with the sweeps of a profile for its images."""
    changes: dict[str, Any] = {"claims": {}, "search": None}
    if profile is not None:
        sweeps = sweep_profiles.sweeps(profile, shape, profiles(card.project))
        try:
            changes["sweeps"] = _SWEEPS.validate_python(sweeps)
        except ValidationError as error:
            problems = [format_problem(dict(e), sweeps, SweepTable) for e in error.errors()]
            raise CardError(
                "\n  ".join([f"{len(problems)} problem(s) in the profile {profile!r}", *problems])
            ) from error
    return replace(card, file=card.file.model_copy(update=changes)).override(claimless=True)


def unclaimed_sweeps(cards: Iterable[Card]) -> list[UnclaimedSweep]:
    """Return every sweep without claims of the cards, the clean pass first."""
    return [UnclaimedSweep(card.name, sweep) for card in cards for sweep in sweeps_without_claims(card)]


def sweeps_without_claims(card: Card) -> list[str]:
    """
    Return the sweeps of a card that are measured without claims.

    All of them if the card, or a profile, has no claims; otherwise those for which the card says that no claim is
    possible. A card with neither sweeps nor claims has none: its run fails.
    """
    claimed, file = {claim.sweep for claim in card.claims()}, card.file
    if card.overrides.claimless or (not claimed and (file.sweeps or file.claims)):
        return ["clean", *file.sweeps]
    return [sweep for sweep in file.claims if sweep not in claimed]
