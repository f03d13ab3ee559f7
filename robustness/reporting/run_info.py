"""What a report says of the run itself, key by key: counts, shards, and when, where and how it ran."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from robustness.reporting.report_types import GATE_FATES, ReportPart, Text, Time


class _Named(ReportPart):
    name: Text = Field(description="The model's name.")


class Tally(ReportPart):
    """Claims by what came of them."""

    claims: int = Field(description="Claims on the cards: the sum of those below, without `measured`.")
    passed: int = Field(0, description="Measured, and the threshold is met.")
    failed: int = Field(0, description="Measured, and the threshold is not met.")
    error: int = Field(0, description="Without numbers, or the test raised.")
    vacuous: int = Field(0, description="Claims that cannot fail.")
    waived: int = Field(0, description="Failed, and waived by the card until a day.")
    skipped: int = Field(0, description="Without data or weights.")
    not_run: int = Field(0, alias="not run", description="Planned, and nothing was heard of them.")
    not_selected: int = Field(0, alias="not selected", description="Not asked for.")
    measured: int = Field(0, description="Not claims, but sweeps that were asked for without claims.")

    def of(self, outcome: str) -> int:
        """Return how many claims ended so."""
        return int(getattr(self, outcome.replace(" ", "_")))


class ModelTally(Tally, _Named):
    """The claims of one model, by what came of them."""


class GateTally(ReportPart):
    """Gates by what came of them."""

    passed: int = Field(0, description="Gates that the model passed.")
    failed: int = Field(0, description="Gates that it did not.")
    inconclusive: int = Field(0, description="Gates that decided nothing.")
    error: int = Field(0, description="Gates that had nothing to compare with, or no numbers.")
    skipped: int = Field(0, description="Without data or weights.")
    not_run: int = Field(0, alias="not run", description="Planned, and nothing was heard of them.")

    def by_fate(self) -> dict[str, int]:
        """Return the counts that are not 0."""
        every = {fate: int(getattr(self, fate.replace(" ", "_"))) for fate in GATE_FATES}
        return {fate: n for fate, n in every.items() if n}


class Skip(ReportPart):
    """Why claims of a model were skipped."""

    model: Text = Field(description="The model's name.")
    reason: Text = Field(description="Why, and the command that gets what is missing.")
    claims: int = Field(description="How many of its claims.")


class Counts(Tally):
    """The claims of all models by what came of them, and of each."""

    gates: GateTally = Field(GateTally(), description="Gates by what came of them.")
    models: list[ModelTally] = Field(description="The same of each model.")
    skips: list[Skip] = Field(description="What was skipped, and why.")


class ShardModel(ReportPart):
    """A model of a run that is divided into shards."""

    name: Text = Field(description="The model's name.")
    card: Text = Field(description="SHA-256 of what its card holds.")
    cost: int = Field(description="What its sweeps cost, in forward passes, estimated.")
    shard: int = Field(description="The shard that runs it.")


class ShardPlan(ReportPart):
    """How the run is divided, and which part this is."""

    number: int = Field(description="Which shard this is, from 1.")
    of: int = Field(description="How many there are.")
    asked: dict[Text, Any] = Field(description="What all shards must have been asked alike.")
    models: list[ShardModel] = Field(description="Every model of the whole run.")
    plan: Text = Field(description="SHA-256 of `of`, `asked` and `models`: shards of one run have the same.")


class ShardRun(ReportPart):
    """A shard of a merged report: when, where and how it ran, as in the run."""

    number: int = Field(description="The shard's number, from 1.")
    started: Time = Field(description="Date and time, UTC.")
    seconds: float = Field(description="Its duration, in seconds.")
    device: Text = Field(description="The device that was asked for.")
    workers: int = Field(description="Processes that tested.")
    complete: bool = Field(description="False if it was interrupted.")
    exit: int | None = Field(description="Its exit code.")


class RunInfo(ReportPart):
    """The run itself: when, where, with which versions, and what is wrong with it."""

    causes: list[Text] = Field([], description="Kinds of problems, from which follows what to do next.")
    started: Time = Field(description="Date and time, UTC.")
    seconds: float = Field(description="Duration of the whole run, in seconds.")
    versions: dict[Text, Text] = Field({}, description="The version of each distribution that numbers depend on.")
    device: Text = Field(description="The device that was asked for.")
    seed: int = Field(description="The seed of all draws.")
    workers: int = Field(description="Processes that tested.")
    shard: ShardPlan | None = Field(None, description="Which shard this is; null for a run that is whole.")
    shards: list[ShardRun] = Field([], description="Each shard of a merged report; absent in others.")
    complete: bool = Field(description="False for a run that was interrupted.")
    exit: int | None = Field(None, description="The exit code.")
    problems: list[Text] = Field(description="Why the run is red although no claim failed.")
