"""The tables of a card for its gate and its waivers."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

from robustness.decisions import Decision, Filtering
from robustness.errors import nearest
from robustness.metrics import registry

Share = Annotated[float, Strict(), Field(gt=0, lt=1)]


def _not_empty(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


Sentence = Annotated[str, AfterValidator(_not_empty)]


class GateTable(BaseModel):
    """
    ``[gate]``: the baseline of a retrained model, and what counts as worse.

    A ``paired`` gate compares two models image by image and needs a `margin`: the acceptable drop. A ``retraining``
    gate derives its tolerance from the accepted retrainings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["paired", "retraining"]
    """``paired``: one weights file against another; ``retraining``: is the drop larger than retraining explains?"""
    baseline: str | None = None
    """The file of accepted models, relative to the card's folder; default: in ``baselines/`` beside it."""
    accepted_model: str | None = None
    """Of a paired gate: the accepted model's name, if it is another card's: the original of a converted file."""
    alpha: Annotated[float, Strict(), Field(gt=0, lt=0.5)] = 0.05
    """The rate of error that is bounded."""
    margin: Share | None = None
    """Of a paired gate: the drop that is accepted in every cell."""
    margins: dict[str, tuple[Share, ...]] = {}
    """For single sweeps: one margin a strength."""
    metrics: tuple[str, ...] = ("accuracy",)
    """What is compared."""
    statistic: Literal["cell", "critical-strength"] = "cell"
    """
    Of a paired gate: a test per strength, or ``critical-strength``: one test per sweep, of the strength at which each
    image is first misled.
    """
    sweeps: tuple[str, ...] | None = None
    """Which sweeps count; all if not given."""
    max_disagreement: Share | None = None
    """Of a paired gate: the share of images in each cell whose decision may differ from the accepted model's."""
    looks: Literal["unlimited"] | None = None
    """``unlimited``: α bounds the errors of a paired gate over all models that it judges; default: of each alone."""

    @model_validator(mode="after")
    def _fitting(self) -> GateTable:
        if self.kind == "paired" and self.margin is None:
            raise ValueError("a paired gate needs `margin`, the acceptable drop, such as 0.02 for two points")
        if self.kind == "retraining" and (self.margin is not None or self.margins):
            raise ValueError(
                "a retraining gate takes no `margin`: the accepted retrainings define the tolerance; remove it"
            )
        paired = {name for name in ("looks", "accepted_model", "max_disagreement") if getattr(self, name) is not None}
        if self.kind == "retraining" and paired:
            raise ValueError(
                f'`{min(paired)}` belongs to a paired gate; remove it, or write kind = "paired" with a margin'
            )
        if self.accepted_model is not None and self.baseline is None:
            raise ValueError(
                f'`accepted_model` needs its `baseline`; write baseline = "baselines/{self.accepted_model}.json"'
            )
        if self.statistic != "cell" and (self.kind != "paired" or self.metrics != ("accuracy",)):
            raise ValueError(
                f"`statistic` {self.statistic!r} needs a paired gate of accuracy alone, got kind {self.kind!r} and "
                f"metrics {list(self.metrics)}; leave out `statistic`, or `metrics`"
            )
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
    owner: Sentence
    """By whose word."""
    reason: Sentence
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


def check_gate(gate: GateTable, swept: Mapping[str, Sequence[str]], decision: Decision, *, probabilities: bool) -> None:
    """
    Raise ValueError for a gate on sweeps or metrics that it cannot test.

    ``swept`` has the names of the strengths of every sweep, "clean" among them.
    """
    for name in (*(gate.sweeps or ()), *gate.margins):
        if name not in swept:
            raise ValueError(f"gate: no such sweep: {name}; allowed: {', '.join(swept)}{nearest(name, swept)}")
    _check_ladders(gate, swept)
    for name, row in gate.margins.items():
        if len(row) != len(swept[name]):
            raise ValueError(
                f"gate.margins.{name}: must have one margin per strength ({len(swept[name])}), got {len(row)}"
            )
    for metric in gate.metrics:
        if not registry.gateable(metric):
            allowed = [name for name, each in registry.METRICS.items() if each.influence]
            raise ValueError(
                f"gate.metrics: must be among {', '.join(allowed)}; got {metric!r}{nearest(metric, allowed)}"
            )
        known = registry.get(metric)
        if known.needs_detector and not isinstance(decision, Filtering):
            raise ValueError(f"gate.metrics: {metric} needs a decision that detects attacks, got {decision.kind}")
        if known.needs_probabilities and not probabilities:
            raise ValueError(
                f"gate.metrics: {metric} needs the probability of every class; write store_probabilities = true in the "
                "card"
            )


def _check_ladders(gate: GateTable, swept: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError for critical strengths on a sweep whose strengths have no order."""
    for name in (gate.sweeps or swept) if gate.statistic == "critical-strength" else ():
        if not all(map(_is_number, swept[name])):
            raise ValueError(
                f"gate.statistic: a critical strength needs strengths that are numbers, {name} has "
                f"{', '.join(swept[name])}; name other sweeps in gate.sweeps"
            )


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def check_waivers(
    waivers: Sequence[WaiverTable], claims: Sequence[str], gate: GateTable | None, swept: Mapping[str, Sequence[str]]
) -> None:
    """Raise ValueError for a waiver of an unknown claim or cell, and for duplicate waivers."""
    seen = set()
    for waiver in waivers:
        known = _cells(gate, swept) if waiver.claim is None else claims
        name = waiver.claim or waiver.cell
        if name not in known:
            what = "cell of a gate" if waiver.claim is None else "claim"
            raise ValueError(
                f"waivers: the card has no {what} {name!r}; write SWEEP:STRENGTH:METRIC{nearest(name, known)}"
            )
        if waiver.place in seen:
            raise ValueError(f"waivers: {waiver.place} is waived more than once; keep one of them")
        seen.add(waiver.place)


def _cells(gate: GateTable | None, swept: Mapping[str, Sequence[str]]) -> list[str]:
    """
    Return the names of a gate's cells; a retraining gate has one per sweep, the mean over its strengths, and so has a
    paired one of critical strengths.
    """
    if gate is None:
        return []
    differing = [
        f"{sweep}:{strength}:disagreement"
        for sweep in gate.sweeps or swept
        for strength in swept[sweep]
        if gate.max_disagreement is not None
    ]
    if gate.statistic == "critical-strength":
        return [
            "clean:0:accuracy" if sweep == "clean" else f"{sweep}:all:critical_strength"
            for sweep in gate.sweeps or swept
        ] + differing
    return [
        f"{sweep}:{strength}:{metric}"
        for sweep in gate.sweeps or swept
        for strength in (["mean"] if gate.kind == "retraining" and sweep != "clean" else swept[sweep])
        for metric in gate.metrics
    ] + differing
