"""A model's gate in a report, key by key, in alphabetical order, as in the JSON."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from robustness.reporting.report_types import Finite, GateFate, ReportPart, Text


class PairedCell(ReportPart):
    """A cell of a paired gate: one metric at one strength, image by image."""

    baseline: Finite = Field(None, description="The metric of the accepted model.")
    baseline_interval: list[float] | None = Field(None, description="Its 95 % Wilson interval, of counted images.")
    candidate: Finite = Field(None, description="The metric now.")
    candidate_interval: list[float] | None = Field(None, description="Its 95 % Wilson interval, of counted images.")
    cell: Text = Field(description="`SWEEP:STRENGTH:METRIC`.")
    drop: float = Field(description="The drop of the metric; positive if the model is worse.")
    gained: list[int] | None = Field(
        None, description="The first twenty images that only the new model classifies correctly."
    )
    gains: int | None = Field(None, description="Number of such images.")
    high: Finite = Field(None, description="Upper bound of the drop, with error α.")
    images_needed: int | None = Field(None, description="Images that would decide the cell in 80 of 100 cases.")
    losses: int | None = Field(None, description="Number of images that only the accepted model classifies correctly.")
    lost: list[int] | None = Field(None, description="The first twenty of them, counted from 0 in the split.")
    low: Finite = Field(None, description="Lower bound of the drop, with error α.")
    margin: float = Field(description="The drop that is accepted.")
    mcnemar: Finite = Field(None, description="The exact p-value of 'no drop'.")
    method: Text = Field("", description="`paired score`, `paired ladder`, `delta`, `delong` or `identity`.")
    metric: Text = Field("", description="The metric of the cell.")
    n: int | None = Field(None, description="Images that the metric counts.")
    p_fail: Finite = Field(None, description="The p-value of 'no more than the margin', after Holm's procedure.")
    smallest_drop: Finite = Field(
        None, description="The drop that would have been detected in at least 80 of 100 cases."
    )
    strength: Text = Field("", description="The strength of the cell.")
    sweep: Text = Field("", description="The sweep of the cell.")
    verdict: Text = Field(description="`passed`, `failed`, `inconclusive` or `waived`.")
    waiver: Text | None = Field(None, description="Why the cell is waived.")


class RetrainingCell(ReportPart):
    """A row of a retraining gate: the clean value, or the mean over a sweep's strengths, of one metric."""

    bound: Finite = Field(None, description="The t bound; null if there are too few accepted models.")
    candidate: Finite = Field(None, description="The value now.")
    caught_from: Finite = Field(None, description="The drop from which this row alone fails.")
    cell: Text = Field(description="`SWEEP:STRENGTH:METRIC`, or `SWEEP:mean:METRIC`.")
    least: Finite = Field(None, description="The smallest of the accepted models' values.")
    mean: float = Field(description="The mean of the accepted models' values.")
    most: Finite = Field(None, description="The largest of the accepted models' values.")
    sign: int | None = Field(None, description="−1 if less is better, else 1.")
    spread: Finite = Field(None, description="The standard deviation of the accepted models' values.")
    verdict: Text = Field(description="`within`, `below`, `inconclusive` or `waived`.")
    waiver: Text | None = Field(None, description="Why the row is waived.")


class AcceptedStrength(ReportPart):
    """The accepted retrainings' values at one strength."""

    least: Finite = Field(None, description="The smallest of their values.")
    mean: float = Field(description="The mean of their values.")
    metric: Text = Field(description="The metric.")
    most: Finite = Field(None, description="The largest of their values.")
    strength: Text = Field(description="The strength.")
    sweep: Text = Field(description="The sweep.")


class LookNumbers(ReportPart):
    """A look of a gate with `looks = "unlimited"`."""

    failing_level: float = Field(description="The level at which it fails, for all cells together.")
    number: int = Field(description="Its number among the looks at this baseline, from 1.")
    passing_level: float = Field(description="The level at which each of its cells passes.")


class GateNumbers(ReportPart):
    """The numbers of a gate; one that ended in an error has no cells."""

    alpha: Finite = Field(None, description="The bounded error rate.")
    baseline: dict[Text, Any] = Field({}, description="The number `accepted`, and the `models`.")
    cells: list[PairedCell | RetrainingCell] = Field([], description="The rows.")
    decided_by: Text | None = Field(None, description="Retraining: `rank`, `t bound` or `identity`.")
    evidence: dict[Text, Text | None] = Field({}, description="By sweep, the key of its evidence in the store.")
    k: int | None = Field(None, description="Retraining: accepted retrainings.")
    kind: Text | None = Field(None, description="`paired` or `retraining`.")
    look: LookNumbers | None = Field(None, description="Paired, with `looks`: which look it is.")
    notes: list[Text] = Field([], description="Notes for the reader.")
    passes_if_equal: Finite = Field(None, description="Paired: how often an equal model passes, from 0 to 1.")
    rank_p: Finite = Field(None, description="Retraining: the p-value by rank.")
    strengths: list[AcceptedStrength] = Field([], description="Retraining: the accepted models at each strength.")

    @property
    def paired(self) -> list[PairedCell]:
        """The cells of a paired gate."""
        return [cell for cell in self.cells if isinstance(cell, PairedCell)]

    @property
    def retraining(self) -> list[RetrainingCell]:
        """The rows of a retraining gate."""
        return [cell for cell in self.cells if isinstance(cell, RetrainingCell)]


class GateReport(ReportPart):
    """The outcome of a model's gate."""

    outcome: GateFate = Field(description="The gate's outcome.")
    message: Text = Field(description="Its test's message.")
    table: GateNumbers = Field(description="Its numbers.")
