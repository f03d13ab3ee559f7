"""What a report says of one sweep, key by key: its cells, with numbers and claims, and where mistakes go."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from robustness.reporting.report_types import Finite, Outcome, ReportPart, Text

Bound = Literal["at least", "at most"]
CellFate = Literal[Outcome, "not selected", "no claim possible"]
NOT_KEPT = "evidence not kept"
"""Status of a cell that knows no more than its claims were told."""


class NumberReport(ReportPart):
    """A metric as it was measured; empty where nothing was."""

    value: Finite = Field(None, description="Rates from 0 to 1, `loss` in nats, `snr` in dB; null where there is none.")
    low: Finite = Field(None, description="Lower end of the 95 % interval.")
    high: Finite = Field(None, description="Upper end of the 95 % interval.")
    method: Text | None = Field(
        None, description="Of the interval: `wilson`, `delta`, `normal`, `delong`, `influence`."
    )
    n: int | None = Field(None, description="Denominator, in images.")
    successes: int | None = Field(None, description="Numerator, where images are counted.")
    note: Text | None = Field(None, description="What the number must not be read without, or why it is null.")


class CellClaim(ReportPart):
    """What the card claims of one metric of a cell, and what came of it."""

    bound: Bound = Field(description="Whether the threshold is a lower or an upper bound.")
    threshold: Finite = Field(description="As in the card; null where no claim is possible.")
    outcome: CellFate = Field(description="What came of the claim.")


class Attractor(ReportPart):
    """A class that wrong predictions fall on."""

    label: Text = Field(alias="class", description="The class.")
    images: int = Field(description="How many images are wrongly taken for it.")


NOTHING = NumberReport()


class CellReport(ReportPart):
    """
    One strength of a sweep.

    Where the status is neither `ok` nor `evidence not kept`, there are no metrics: a cell that failed has no numbers.
    """

    strength: Text = Field(description="Its name, as in test ids.")
    status: Text = Field(description="`ok`, why the cell has no numbers, or `evidence not kept`.")
    note: Text = Field(description="What is to be known of the cell, such as images whose ratio could not be reached.")
    metrics: dict[Text, NumberReport] = Field(description="By name, what was measured, claimed or not.")
    claims: dict[Text, CellClaim] = Field(description="By metric, what the card claims here.")
    attractors: list[Attractor] | None = Field(None, description="The strongest first, at most twenty.")
    deviation: Finite = Field(None, description="Of the noise, where the strength does not say it.")

    def number(self, metric: str) -> NumberReport:
        """Return what was measured of a metric; an empty one where nothing was."""
        return self.metrics.get(metric, NOTHING)


class Confusion(ReportPart):
    """The confusion matrix at the strength where it is most telling."""

    strength: Text = Field(description="The weakest strength by which half of the whole fall of accuracy has happened.")
    classes: list[Text] = Field(description="Of rows and columns, at most twenty; the last may be `other classes`.")
    matrix: list[list[int]] = Field(description="Images, by true class (row) and predicted class (column).")

    @model_validator(mode="after")
    def _square(self) -> Confusion:
        if {len(self.matrix), *map(len, self.matrix)} != {len(self.classes)}:
            raise ValueError("matrix must have a row and a column per class")
        return self


class Prediction(ReportPart):
    """What the model takes an image for."""

    label: Text = Field(alias="class", description="The predicted class.")
    probability: Finite = Field(description="The probability that the model gives to it, from 0 to 1.")


class Pictures(ReportPart):
    """The pictures of an image, as data URIs."""

    clean: Text = Field(description="The image as it is.")
    perturbation: Text = Field(description="The perturbation around grey, magnified.")
    perturbed: Text = Field(description="The image as it was swept.")
    magnified: int = Field(description="By how much the perturbation is magnified.")


class GalleryEntry(ReportPart):
    """An image that the perturbation misleads, at the weakest strength that does."""

    image: int = Field(description="The number of the test image, from 0.")
    strength: Text = Field(description="The weakest strength that misleads the model on it; where none does, the last.")
    true: Text = Field(description="Its true class.")
    clean: Prediction = Field(description="What it is taken for as it is.")
    perturbed: Prediction = Field(description="What it is taken for at that strength.")
    pictures: Pictures | None = Field(None, description="Null unless the run also wrote a page.")


class EvidenceReference(ReportPart):
    """Where the evidence of a sweep is, and how it was made."""

    key: Text | None = Field(None, description="Its key in the store.")
    started: Text | None = Field(None, description="When it was swept, UTC.")
    seconds: Finite = Field(None, description="How long that took, in seconds.")
    images_per_second: Finite = Field(None, description="Images, times strengths, by seconds.")
    digest: Text = Field(description="SHA-256 of all decisions in it: equal evidence has equal digests.")


class SweepReport(ReportPart):
    """A sweep: what was done to the images, and a cell a strength, in the card's order."""

    name: Text = Field(description="As in the card; `clean` is the pass over images as they are.")
    kind: Text = Field(description="The perturbation.")
    family: Text = Field(description="The suite that it belongs to.")
    parameters: dict[Text, Any] = Field(description="The perturbation's parameters, by name.")
    unit: Text = Field(
        description="Of strengths: `default`; `image-std`, each image's standard deviations; `snr`, signal-to-noise in "
        "dB; `snr-std`, the same without each image's mean."
    )
    strength_name: Text = Field(description="What the perturbation calls its strength.")
    source: Text | None = Field(None, description="The model that its examples are made on; null for the swept one.")
    evidence: EvidenceReference | None = Field(description="Where its evidence is; null where it was not kept.")
    cells: list[CellReport] = Field(description="Its strengths.")
    confusion: Confusion | None = Field(None, description="Which class is taken for which; null without numbers.")
    gallery: list[GalleryEntry] = Field([], description="Images that the perturbation misleads, at most four.")
