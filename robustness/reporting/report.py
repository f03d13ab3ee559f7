"""The report of a run, as typed values, key by key as the JSON holds them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from robustness.reporting.gate_report import GateReport
from robustness.reporting.report_types import RED, Outcome, ReportPart, Text, Verdict
from robustness.reporting.run_info import Counts, RunInfo
from robustness.reporting.sweep_report import Bound, NumberReport, SweepReport

FORMAT: Literal["pytest-robustness/report/2"] = "pytest-robustness/report/2"
"""Raised whenever a key changes its meaning or goes; keys may be added without."""


class DataReport(ReportPart):
    """What was tested on."""

    name: Text = Field(description="The data set and its part.")
    n: int | None = Field(description="Test images; null where nothing was measured.")
    fingerprint: Text | None = Field(description="SHA-256 of the test images, labels and class names.")


class KnownDoubt(ReportPart):
    """A doubt that the card names itself."""

    doubt: Text = Field(description="The doubt.")
    reason: Text = Field(description="Why the numbers are believed all the same, as in the card.")


class ClaimReport(ReportPart):
    """A claim that the run was asked for, and what came of it."""

    id: Text = Field(description="`model:sweep:strength:metric`.")
    sweep: Text = Field(description="The sweep.")
    strength: Text = Field(description="The strength.")
    metric: Text = Field(description="The metric.")
    bound: Bound = Field(description="Whether the threshold is a lower or an upper bound.")
    threshold: float = Field(description="As in the card.")
    outcome: Outcome = Field(description="What came of it.")
    message: Text = Field(description="The sentence that the test said.")
    prerequisite: Text | None = Field(None, description="The claim of the clean images that this one fell with.")
    numbers: NumberReport = Field(description="What the test measured; empty where it measured nothing.")
    nodeid: Text = Field(description="The test, as pytest names it where this run was made: nothing is keyed by it.")


class CaughtDamage(ReportPart):
    """A kind of damage, and what catches it."""

    kind: Text = Field(description="The kind.")
    title: Text = Field(description="Its name on pages.")
    claims: Text | None = Field(description="The level from which on the claims catch it; null where they do not.")
    gate: Text | None = Field(description="The level from which on the gate catches it; null where it does not.")


class FalseAlarms(ReportPart):
    """How many undamaged retrainings are red."""

    claims: int = Field(description="By claims.")
    gate: int = Field(description="By the gate.")
    either: int = Field(description="By either.")


class CaughtReport(ReportPart):
    """What `robustness mutate --keep` has found out of the model."""

    damage: list[CaughtDamage] = Field(description="The kinds of damage that were tried.")
    retrainings: int = Field(description="How many undamaged retrainings were tried.")
    false_alarms: FalseAlarms = Field(description="How many of them are red.")


class WaiverReport(ReportPart):
    """A waiver of the card."""

    claim: Text | None = Field(description="The claim that the card waives, as SWEEP:STRENGTH:METRIC.")
    cell: Text | None = Field(description="Or the gate's cell, as SWEEP:STRENGTH:METRIC.")
    owner: Text = Field(description="By whose word.")
    reason: Text = Field(description="Why.")
    expires: Text = Field(description="Its last day.")
    expired: bool = Field(description="Whether that is over.")


class ModelReport(ReportPart):
    """A model: what it was measured on, what was swept and claimed, and what came of it."""

    name: Text = Field(description="As in the card.")
    description: Text = Field(description="As in the card.")
    paper: Text | None = Field(description="Key of the paper that it belongs to.")
    factory: Text | None = Field(None, description="What makes the module, as in the card.")
    scale: Text = Field(description="`smoke`, `short` or `full`: how much of the real training and data.")
    candidate: Text | None = Field(None, description="The file of `--robustness-weights` that it was judged with.")
    suggested: Text = Field("", description="The claims that a measured model may make, as TOML; else empty.")
    data: DataReport = Field(description="What was tested on.")
    weights: Text | None = Field(description="SHA-256 of the weights' file.")
    device: Text | None = Field(description="Kind of device of the evidence; precisions but float32 too.")
    seed: int | None = Field(description="Seed of the draws that the evidence is from.")
    doubts: list[Text] = Field([], description="Reasons not to believe its numbers.")
    open_doubts: list[Text] = Field([], description="Doubts raised in this run, or not to be looked for.")
    known_doubts: list[KnownDoubt] = Field([], description="Doubts that the card names itself.")
    not_run: list[Text] = Field([], description="Sweeps of the card of which nothing was tried.")
    sweeps: list[SweepReport] = Field(description="The clean pass, then the sweeps in the card's order.")
    claims: list[ClaimReport] = Field(description="The claims that the run was asked for.")
    gate: GateReport | None = Field(None, description="What came of its gate; null without one.")
    caught: CaughtReport | None = Field(None, description="Which damage is caught; null where that is not known.")
    waivers: list[WaiverReport] = Field([], description="The card's waivers.")


class RunReport(ReportPart):
    """The report of a run. Order is that of the cards, never that in which tests ended."""

    format: Literal["pytest-robustness/report/2"] = Field(FORMAT, description="Name and version of this layout.")
    verdict: Verdict = Field(description="What came of the run.")
    counts: Counts = Field(description="Claims and gates by what came of them.")
    run: RunInfo = Field(description="The run itself.")
    notices: list[Text] = Field(description="What a reader must know and no test says.")
    models: list[ModelReport] = Field(description="The models, in the order of their cards.")
    checksum: Text | None = Field(None, description="SHA-256 of all else: an edited file is rejected.")


def verdict(counts: Counts, run: RunInfo) -> Verdict:
    """
    Return "failed" for anything red, "partial" if what ran passed but not all ran or a gate is open, else "passed".

    "measured" where nothing was claimed, and sweeps were asked for without claims.

    >>> run = RunInfo.model_construct(complete=True, problems=[])
    >>> counts = Counts(claims=4, passed=3, skipped=1, models=[], skips=[])
    >>> verdict(counts, run), verdict(counts.model_copy(update={"vacuous": 1}), run)
    ('partial', 'failed')
    """
    gates = counts.gates.by_fate()
    if run.problems or any(counts.of(outcome) for outcome in RED) or gates.keys() & set(RED):
        return "failed"
    if not run.complete or counts.skipped or counts.not_selected or gates.keys() & {"inconclusive", "skipped"}:
        return "partial"
    return "measured" if counts.measured and not counts.claims else "passed"
