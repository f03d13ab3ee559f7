"""One sweep in a report, key by key: its cells with numbers and claims, and its misclassifications."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from robustness.reporting.report_types import Finite, Outcome, ReportPart, Text

Bound = Literal["at least", "at most"]
CellFate = Literal[Outcome, "not selected", "no claim possible"]
NOT_KEPT = "evidence not kept"
"""Status of a cell whose only numbers are those of its claims."""


BOUNDS = "bounds"
"""Method of a number of a sweep that stopped early: no value, but the ends between which it lies."""


class NumberReport(ReportPart):
    """A measured metric; empty if nothing was measured."""

    value: Finite = Field(None, description="Rates from 0 to 1, `loss` in nats, `snr` in dB; null if there is none.")
    low: Finite = Field(None, description="Lower end of the 95 % interval, or of the bounds.")
    high: Finite = Field(None, description="Upper end of the 95 % interval, or of the bounds.")
    method: Text | None = Field(
        None,
        description="Of the interval: `wilson`, `delta`, `normal`, `delong`, `influence`; `bounds` if the sweep "
        "stopped early, so that there is no value.",
    )
    n: int | None = Field(None, description="Denominator, in images.")
    successes: int | None = Field(None, description="Numerator, if images are counted.")
    note: Text | None = Field(None, description="A caveat of the number, or why it is null.")


class CellClaim(ReportPart):
    """A claim on one metric of a cell, and its outcome."""

    bound: Bound = Field(description="Whether the threshold is a lower or an upper bound.")
    threshold: Finite = Field(description="As in the card; null if no claim is possible.")
    outcome: CellFate = Field(description="The claim's outcome.")


class Attractor(ReportPart):
    """A class that attracts wrong predictions."""

    label: Text = Field(alias="class", description="The class.")
    images: int = Field(description="Number of images misclassified as this class.")


NOTHING = NumberReport()


class CellReport(ReportPart):
    """
    One strength of a sweep.

    If the status is neither `ok` nor `evidence not kept`, there are no metrics: a failed cell has no numbers. If the
    sweep stopped early, the status is `decided after …`, and only claimed metrics are there, as bounds.
    """

    strength: Text = Field(description="Its name, as in test ids.")
    status: Text = Field(description="`ok`, why the cell has no numbers, `decided after …`, or `evidence not kept`.")
    note: Text = Field(description="A note on the cell, such as images whose ratio could not be reached.")
    metrics: dict[Text, NumberReport] = Field(description="Everything measured, by metric, claimed or not.")
    claims: dict[Text, CellClaim] = Field(description="What the card claims here, by metric.")
    attractors: list[Attractor] | None = Field(None, description="At most twenty, the most frequent first.")
    deviation: Finite = Field(None, description="Standard deviation of the noise, if it differs from the strength.")

    def number(self, metric: str) -> NumberReport:
        """Return the measurement of a metric; an empty one if there is none."""
        return self.metrics.get(metric, NOTHING)


class Confusion(ReportPart):
    """The confusion matrix at its most informative strength."""

    strength: Text = Field(
        description="The weakest strength at which at least half of the total drop in accuracy has occurred."
    )
    classes: list[Text] = Field(description="Of rows and columns, at most twenty; the last may be `other classes`.")
    matrix: list[list[int]] = Field(description="Images, by true class (row) and predicted class (column).")

    @model_validator(mode="after")
    def _square(self) -> Confusion:
        if {len(self.matrix), *map(len, self.matrix)} != {len(self.classes)}:
            raise ValueError("matrix must have a row and a column per class")
        return self


class Prediction(ReportPart):
    """The model's prediction for an image."""

    label: Text = Field(alias="class", description="The predicted class.")
    probability: Finite = Field(description="The model's probability for it, from 0 to 1.")


class Pictures(ReportPart):
    """The pictures of an image, as data URIs."""

    clean: Text = Field(description="The unperturbed image.")
    perturbation: Text = Field(description="The perturbation around grey, magnified.")
    perturbed: Text = Field(description="The perturbed image, as in the sweep.")
    magnified: int = Field(description="The factor by which the perturbation is magnified.")


class GalleryEntry(ReportPart):
    """An image that the perturbation misleads, at the weakest strength that does."""

    image: int = Field(description="Index of the test image, from 0.")
    strength: Text = Field(description="The weakest strength that misleads the model on it; if none does, the last.")
    true: Text = Field(description="Its true class.")
    clean: Prediction = Field(description="The prediction without perturbation.")
    perturbed: Prediction = Field(description="The prediction at that strength.")
    pictures: Pictures | None = Field(None, description="Null unless the run also wrote an HTML page.")


class EvidenceReference(ReportPart):
    """Reference to the evidence of a sweep, with date and duration."""

    key: Text | None = Field(None, description="Its key in the store.")
    started: Text | None = Field(None, description="When it was swept, UTC.")
    seconds: Finite = Field(None, description="How long that took, in seconds.")
    images_per_second: Finite = Field(None, description="Images times strengths per second.")
    digest: Text = Field(description="SHA-256 of all its decisions: equal evidence has equal digests.")


class SweepReport(ReportPart):
    """A sweep: its perturbation, and one cell per strength, in the card's order."""

    name: Text = Field(description="As in the card; `clean` is the pass without perturbation.")
    kind: Text = Field(description="The perturbation.")
    family: Text = Field(description="The suite that it belongs to.")
    parameters: dict[Text, Any] = Field(description="The perturbation's parameters, by name.")
    unit: Text = Field(
        description="Unit of the strengths: `default`; `image-std`, in standard deviations of each image; `snr`, "
        "signal-to-noise in dB; `snr-std`, the same with each image's mean removed."
    )
    strength_name: Text = Field(description="The perturbation's name for its strength.")
    source: Text | None = Field(
        None, description="The model on which its examples are computed; null for the swept model."
    )
    evidence: EvidenceReference | None = Field(description="Where its evidence is; null if it was not stored.")
    cells: list[CellReport] = Field(description="Its strengths.")
    confusion: Confusion | None = Field(None, description="True and predicted classes; null without numbers.")
    gallery: list[GalleryEntry] = Field([], description="At most four images that the perturbation misleads.")


class WorstCaseCell(ReportPart):
    """The worst case at one strength."""

    strength: float = Field(description="The radius of the ball.")
    accuracy: NumberReport = Field(description="The share of images that no attack misleads at this strength or below.")


class WorstCaseReport(ReportPart):
    """Each image's worst case over all attacks of a model in one norm."""

    norm: Literal["linf", "l2"] = Field(description="The norm of the ball.")
    attacks: list[Text] = Field(description="The sweeps of these attacks, transferred ones among them.")
    cells: list[WorstCaseCell] = Field(description="All their strengths, in rising order.")
