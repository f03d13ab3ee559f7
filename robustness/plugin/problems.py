"""Why a run fails although no test failed: nothing passes by absence."""

from __future__ import annotations

from collections.abc import Iterator

from robustness.cards.doubts import doubt_of
from robustness.plugin.state import RunState
from robustness.reporting.report_types import SKIPPED
from robustness.util.text import one_line, pluralize


def messages(run: RunState) -> list[str]:
    """Return why the run fails although no test failed: nothing passes by absence."""
    return [message for _, message in causes(run)]


def causes(run: RunState) -> list[tuple[str, str]]:
    """Return each problem with its cause, which determines the next step (`robustness.reporting.advice`)."""
    if not run.requested:
        return []
    if not run.cards:
        message = "no card is selected; name models with --robustness-model or cards with --robustness-card"
        return [("no card", message)]
    if "claim" in run.requested and not (run.planned or run.measuring.planned or run.gates):
        return [_nothing_ran(run)]
    if not run.gates and run.requested == {"gate"}:
        message = "no gate ran. No selected card has a [gate] table; docs/gate.md describes it"
        return [("no gate", message)]
    return [*run.measuring.problems(), *_unclaimed(run), *_absences(run)]


def _nothing_ran(run: RunState) -> tuple[str, str]:
    """Return why no claim ran."""
    if any(card.overrides.claimless or list(card.claims()) for card in run.cards):
        return (
            "no test selected",
            "no claim ran. None of the selected tests checks a claim of the selected cards",
        )
    names = one_line(", ".join(card.name for card in run.cards), 60)
    message = f"no claim ran. The cards of {names} have no claims"
    if run.measurable:
        return "nothing claimed", f"{message}, and no selected test measures their sweeps"
    return "nothing swept", f"{message} and no sweeps"


def _unclaimed(run: RunState) -> Iterator[tuple[str, str]]:
    """Return the cards with neither claims nor a gate, which --robustness-strict fails."""
    expected = run.options.strict and "claim" in run.requested
    for card in run.cards if expected else ():
        if not card.overrides.claimless and not list(card.claims()) and card.file.gate is None:
            yield "nothing claimed", f"{card.name} has neither claims nor a gate: --robustness-strict fails it"


def _absences(run: RunState) -> Iterator[tuple[str, str]]:
    outcomes = run.all_outcomes()
    for card in run.cards:
        for waiver in card.file.waivers:
            if waiver.expired:
                yield "waiver expired", f"{card.name}: the {waiver.place} is no longer {waiver}"
    if unheard := [gate.model for gate in run.gates.values() if gate.outcome == "not run"]:
        yield "gate not run", f"the gate of {', '.join(unheard)} did not run"
    for nodeid, message in run.others.items():
        doubted = doubt_of(nodeid, [card.name for card in run.cards])
        yield ("doubt" if doubted else "other test"), f"{nodeid} failed: {message}"
    if run.gates and all(gate.outcome == "skipped" for gate in run.gates.values()) and not outcomes:
        yield "gate skipped", "all gates were skipped"
    if never := [o for o in outcomes if o.outcome == "not run"]:
        yield "not run", f"{len(never)} of {len(outcomes)} claims did not run, for instance {never[0].claim.id}"
    if outcomes and all(outcome.outcome == "skipped" for outcome in outcomes):
        yield "skipped", f"all {len(outcomes)} claims were skipped"


def undecided(run: RunState) -> list[str]:
    """Return the gates that were inconclusive, if that fails the run."""
    gates = [gate.model for gate in run.gates.values() if gate.outcome == "inconclusive"]
    return [f"the gate of {name} is inconclusive" for name in gates if run.options.undecided_is_red]


def skipped(run: RunState) -> str:
    """Return what was skipped of what was requested, "" if nothing: a run that did not try it does not end with 0."""
    claims = sum(outcome.outcome == "skipped" for outcome in run.all_outcomes())
    gates = sum(gate.outcome == "skipped" for gate in run.gates.values())
    counts = [pluralize(n, noun) for n, noun in ((claims, "claim"), (gates, "gate")) if n]
    return f"exit code {SKIPPED}: nothing failed, but {' and '.join(counts)} skipped" if counts else ""
