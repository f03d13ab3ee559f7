"""The run itself in a report, key by key: counts, shards, dates, machine and options."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from robustness.reporting.report_types import GATE_FATES, ReportPart, Text, Time


class _Named(ReportPart):
    name: Text = Field(description="The model's name.")


class Tally(ReportPart):
    """Claims by outcome."""

    claims: int = Field(description="Claims on the cards: the sum of the numbers below, without `measured`.")
    passed: int = Field(0, description="Measured, and met.")
    failed: int = Field(0, description="Measured, and not met.")
    error: int = Field(0, description="Without numbers, or the test raised.")
    vacuous: int = Field(0, description="Claims that cannot fail.")
    waived: int = Field(0, description="Failed, and waived by the card until a date.")
    skipped: int = Field(0, description="Data or weights are missing.")
    not_run: int = Field(0, alias="not run", description="Planned, but no result arrived.")
    not_selected: int = Field(0, alias="not selected", description="Not requested.")
    measured: int = Field(0, description="Not claims: sweeps that were requested without claims.")

    def of(self, outcome: str) -> int:
        """Return the number of claims with an outcome."""
        return int(getattr(self, outcome.replace(" ", "_")))


class ModelTally(Tally, _Named):
    """The claims of one model, by outcome."""


class GateTally(ReportPart):
    """Gates by outcome."""

    passed: int = Field(0, description="Gates that the model passed.")
    failed: int = Field(0, description="Gates that it failed.")
    inconclusive: int = Field(0, description="Inconclusive gates.")
    error: int = Field(0, description="Gates without a usable baseline or without numbers.")
    skipped: int = Field(0, description="Data or weights are missing.")
    not_run: int = Field(0, alias="not run", description="Planned, but no result arrived.")

    def by_fate(self) -> dict[str, int]:
        """Return the counts that are not 0."""
        every = {fate: int(getattr(self, fate.replace(" ", "_"))) for fate in GATE_FATES}
        return {fate: n for fate, n in every.items() if n}


class Skip(ReportPart):
    """The reason why claims of a model were skipped."""

    model: Text = Field(description="The model's name.")
    reason: Text = Field(description="The reason, and the command that gets what is missing.")
    claims: int = Field(description="Number of its claims.")


class Counts(Tally):
    """The claims by outcome, of all models and of each."""

    gates: GateTally = Field(GateTally(), description="Gates by outcome.")
    models: list[ModelTally] = Field(description="The same per model.")
    skips: list[Skip] = Field(description="What was skipped, and why.")


class ShardModel(ReportPart):
    """A model in a sharded run."""

    name: Text = Field(description="The model's name.")
    card: Text = Field(description="SHA-256 of its card's content.")
    cost: int = Field(description="Estimated cost of its sweeps, in forward passes.")
    shard: int = Field(description="The shard that runs it.")


class ShardPlan(ReportPart):
    """The division into shards, and which shard this is."""

    number: int = Field(description="Which shard this is, from 1.")
    of: int = Field(description="Number of shards.")
    asked: dict[Text, Any] = Field(description="Options that must be equal in all shards.")
    models: list[ShardModel] = Field(description="Every model of the complete run.")
    plan: Text = Field(description="SHA-256 of `of`, `asked` and `models`: equal for all shards of a run.")


class ShardRun(ReportPart):
    """A shard of a merged report, with the fields of the run."""

    number: int = Field(description="The shard's number, from 1.")
    started: Time = Field(description="Date and time, UTC.")
    seconds: float = Field(description="Its duration, in seconds.")
    device: Text = Field(description="The requested device.")
    workers: int = Field(description="Number of test processes.")
    complete: bool = Field(description="False if it was interrupted.")
    exit: int | None = Field(description="Its exit code.")


class RunInfo(ReportPart):
    """The run itself: date, machine, versions and problems."""

    causes: list[Text] = Field([], description="Kinds of problems, which determine the next step.")
    started: Time = Field(description="Date and time, UTC.")
    commit: Text | None = Field(None, description="The tested commit; it ends in `-dirty` if files were changed.")
    ci: Text | None = Field(None, description="Address of the CI job.")
    seconds: float = Field(description="Duration of the whole run, in seconds.")
    versions: dict[Text, Text] = Field({}, description="The version of each distribution that numbers depend on.")
    device: Text = Field(description="The requested device.")
    seed: int = Field(description="The seed of all random numbers.")
    workers: int = Field(description="Number of test processes.")
    shard: ShardPlan | None = Field(None, description="Which shard this is; null for a complete run.")
    shards: list[ShardRun] = Field([], description="Each shard of a merged report; absent in others.")
    complete: bool = Field(description="False for a run that was interrupted.")
    exit: int | None = Field(None, description="The exit code.")
    problems: list[Text] = Field(description="Why the run failed, apart from claims.")
