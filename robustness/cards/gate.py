"""The tables of a card that ask for a gate, and that waive what it or a claim finds."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

Share = Annotated[float, Strict(), Field(gt=0, lt=1)]


def _said(value: str) -> str:
    if not value.strip():
        raise ValueError("must say something, got nothing")
    return value


Said = Annotated[str, AfterValidator(_said)]


class GateTable(BaseModel):
    """
    ``[gate]``: against which baseline a retrained model is held, and what counts as worse.

    A gate of ``weights`` compares two models image by image and needs a `margin`: the drop that is accepted. A gate of
    ``recipe`` takes its measure from the accepted retrainings themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["weights", "recipe"]
    """``weights``: these weights against those; ``recipe``: is this retraining within what retraining explains?"""
    baseline: str | None = None
    """The file of accepted models, from the card's folder; else in ``baselines/`` beside it."""
    alpha: Annotated[float, Strict(), Field(gt=0, lt=0.5)] = 0.05
    """The rate of error that is bounded."""
    margin: Share | None = None
    """Of a gate of weights: the drop that is accepted in every cell."""
    margins: dict[str, tuple[Share, ...]] = {}
    """For single sweeps: one margin a strength."""
    metrics: tuple[str, ...] = ("accuracy",)
    """What is compared."""
    sweeps: tuple[str, ...] | None = None
    """Which sweeps count; all if not given."""

    @model_validator(mode="after")
    def _fitting(self) -> GateTable:
        if self.kind == "weights" and self.margin is None:
            raise ValueError("a gate of weights needs `margin`, the drop that is accepted, as 0.02 for two points")
        if self.kind == "recipe" and (self.margin is not None or self.margins):
            raise ValueError("a gate of a recipe takes no `margin`: the accepted retrainings say what is usual")
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise ValueError("`metrics` must name metrics, each once")
        if self.sweeps is not None and (not self.sweeps or len(set(self.sweeps)) < len(self.sweeps)):
            raise ValueError("`sweeps` must name sweeps, each once; leave it out for all")
        return self


class WaiverTable(BaseModel):
    """``[[waivers]]``: a claim, or a cell of the gate, that may fail until a day, by whose word, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str | None = None
    """The claim, as SWEEP:STRENGTH:METRIC."""
    cell: str | None = None
    """Or the gate's cell, as SWEEP:STRENGTH:METRIC."""
    owner: Said
    """By whose word."""
    reason: Said
    """Why it is shipped all the same."""
    expires: datetime.date
    """The last day."""

    @model_validator(mode="after")
    def _one(self) -> WaiverTable:
        if (self.claim is None) == (self.cell is None):
            raise ValueError("a waiver names either a `claim` or a `cell` of the gate, as SWEEP:STRENGTH:METRIC")
        return self

    @property
    def place(self) -> str:
        """What is waived."""
        return f"claim {self.claim}" if self.cell is None else f"gate's cell {self.cell}"

    @property
    def expired(self) -> bool:
        """Whether its last day is over, anywhere on earth."""
        return datetime.datetime.now(datetime.UTC).date() > self.expires + datetime.timedelta(days=1)

    def __str__(self) -> str:
        return f"waived by {self.owner} until {self.expires}: {self.reason}"
