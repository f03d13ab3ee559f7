"""The report of a run, as typed values, key by key as the JSON holds them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from robustness.reporting.gate_report import GateReport
from robustness.reporting.report_types import DECISIONS, NOT_DECIDED, RED, Outcome, ReportPart, Text, Verdict
from robustness.reporting.run_info import Counts, RunInfo
from robustness.reporting.sweep_report import Bound, NumberReport, SweepReport, WorstCaseReport

FORMAT: Literal["pytest-robustness/report/2"] = "pytest-robustness/report/2"
"""Raised when a key is removed or changes its meaning; keys may be added without."""


class DataReport(ReportPart):
    """What was tested on."""

    name: Text = Field(description="The data set and the part used.")
    n: int | None = Field(description="Number of test images; null if nothing was measured.")
    fingerprint: Text | None = Field(description="SHA-256 of the test images, labels and class names.")


class KnownDoubt(ReportPart):
    """A doubt that the card names itself."""

    doubt: Text = Field(description="The doubt.")
    reason: Text = Field(description="Why the numbers are trusted anyway, as in the card.")


class ClaimReport(ReportPart):
    """A requested claim and its outcome."""

    id: Text = Field(description="`model:sweep:strength:metric`.")
    sweep: Text = Field(description="The sweep.")
    strength: Text = Field(description="The strength.")
    metric: Text = Field(description="The metric.")
    bound: Bound = Field(description="Whether the threshold is a lower or an upper bound.")
    threshold: float = Field(description="As in the card.")
    outcome: Outcome = Field(description="The outcome.")
    message: Text = Field(description="The test's message.")
    prerequisite: Text | None = Field(None, description="The failed claim on clean images that this one depends on.")
    numbers: NumberReport = Field(description="What the test measured; empty if nothing.")
    nodeid: Text = Field(description="The test's pytest node id in this run; not used as a key.")


class CaughtDamage(ReportPart):
    """A kind of damage, and the level from which it is detected."""

    kind: Text = Field(description="The kind.")
    title: Text = Field(description="Its name on pages.")
    claims: Text | None = Field(description="The mildest level from which the claims detect it; null if none.")
    gate: Text | None = Field(description="The mildest level from which the gate detects it; null if none.")


class FalseAlarms(ReportPart):
    """How many undamaged retrainings fail."""

    claims: int = Field(description="By claims.")
    gate: int = Field(description="By the gate.")
    either: int = Field(description="By either.")


class CaughtReport(ReportPart):
    """The stored results of `robustness mutate --keep`."""

    damage: list[CaughtDamage] = Field(description="The kinds of damage tested.")
    retrainings: int = Field(description="Number of undamaged retrainings.")
    false_alarms: FalseAlarms = Field(description="How many of them fail.")


class WaiverReport(ReportPart):
    """A waiver of the card."""

    claim: Text | None = Field(description="The waived claim, as SWEEP:STRENGTH:METRIC.")
    cell: Text | None = Field(description="Or the waived cell of the gate, as SWEEP:STRENGTH:METRIC.")
    owner: Text = Field(description="Who is responsible.")
    reason: Text = Field(description="Why.")
    expires: Text = Field(description="Its last day.")
    expired: bool = Field(description="Whether that date has passed.")


class ModelReport(ReportPart):
    """A model: its data, sweeps, claims and their outcomes."""

    name: Text = Field(description="As in the card.")
    description: Text = Field(description="As in the card.")
    paper: Text | None = Field(description="Key of its paper.")
    factory: Text | None = Field(None, description="What returns the module, as in the card.")
    scale: Text = Field(description="`smoke`, `short` or `full`: how close to the paper's training and data.")
    candidate: Text | None = Field(None, description="The file of `--robustness-weights` that was tested.")
    suggested: Text = Field("", description="Suggested claims for a measured model, as TOML; else empty.")
    data: DataReport = Field(description="What was tested on.")
    weights: Text | None = Field(description="SHA-256 of the weights' file.")
    device: Text | None = Field(description="Device type of the evidence, and the precision if it is not float32.")
    seed: int | None = Field(description="Seed of the evidence's random numbers.")
    doubts: list[Text] = Field([], description="Reasons to distrust its numbers.")
    open_doubts: list[Text] = Field([], description="Doubts raised in this run, or that could not be checked.")
    known_doubts: list[KnownDoubt] = Field([], description="Doubts that the card lists.")
    not_run: list[Text] = Field([], description="Sweeps of the card that this run did not use.")
    sweeps: list[SweepReport] = Field(description="The clean pass, then the sweeps in the card's order.")
    worst_cases: list[WorstCaseReport] = Field([], description="By norm, the worst case over at least two attacks.")
    claims: list[ClaimReport] = Field(description="The claims that the run requested.")
    gate: GateReport | None = Field(None, description="The result of its gate; null without one.")
    caught: CaughtReport | None = Field(None, description="Which damage is detected; null if unknown.")
    waivers: list[WaiverReport] = Field([], description="The card's waivers.")


class RunReport(ReportPart):
    """The report of a run, in the order of the cards, not of the tests."""

    format: Literal["pytest-robustness/report/2"] = Field(FORMAT, description="Name and version of this format.")
    verdict: Verdict = Field(description="The verdict of the run.")
    counts: Counts = Field(description="Claims and gates by outcome.")
    run: RunInfo = Field(description="The run itself.")
    notices: list[Text] = Field(description="What a reader must know and no test reports.")
    models: list[ModelReport] = Field(description="The models, in the order of their cards.")
    checksum: Text | None = Field(None, description="SHA-256 of everything else; an edited file is rejected.")

    @property
    def decision(self) -> str:
        """GO, NO-GO or NOT DECIDED: the verdict in words of a release."""
        return DECISIONS.get(self.verdict, NOT_DECIDED)


def verdict(counts: Counts, run: RunInfo) -> Verdict:
    """
    Return "failed" for any failure, "partial" if not everything was tried or a gate is open, else "passed".

    "measured" if nothing was claimed, and sweeps were requested without claims.

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
