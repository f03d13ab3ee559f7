"""The tables of a model card: every key and its allowed values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializeAsAny,
    Strict,
    field_validator,
    model_validator,
)

from robustness.cards.doubts import DOUBTS
from robustness.cards.gate import GateTable, WaiverTable, check_gate, check_waivers
from robustness.classifiers import libraries
from robustness.classifiers.spec import Arguments, CallableName, ModelTable
from robustness.data.spec import DataSpec
from robustness.decisions import Filtering
from robustness.errors import nearest
from robustness.metrics import registry
from robustness.perturbations import PERTURBATIONS, Perturbation
from robustness.perturbations import strength as strengths
from robustness.perturbations.norms import Budget
from robustness.perturbations.strength import Strength, Unit
from robustness.util import paths

NO_CLAIM = "no claim possible"
"""In place of a threshold that would not exceed the chance level."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _name(value: str) -> str:
    if not value or set(value) & set(":[]/\\") or not value.isprintable() or value != value.strip():
        raise ValueError("must be printable text without any of : [ ] / \\")
    if len(value) > paths.LONGEST:
        raise ValueError(f"must have at most {paths.LONGEST} characters, got {len(value):,}")
    return value


Name = Annotated[str, AfterValidator(_name)]
ModelName = Annotated[str, AfterValidator(paths.check_name)]
"""Used in paths: of baselines, of a search's pictures, of mutation results."""


class RecipeTable(_Table):
    """``[recipe]``: an importable callable that trains the factory's model, and all that its outcome depends on."""

    callable: CallableName
    """``module:callable``, called as ``callable(module, images, job, **arguments)``; returns the trained module."""
    arguments: Arguments = {}
    """Keyword arguments of the callable."""
    seed: Annotated[int, Strict(), Field(ge=0, lt=2**32)] = 0
    """Of all that is random in the training."""
    threads: PositiveInt = 1
    """Torch's threads during training: another number may give other weights."""
    needs: dict[Name, str] = {}
    """Cards whose trained models the recipe is given as ``job.needs``, by name; part of the weights' hash."""
    start: Literal["automatic", "manual"] = "automatic"
    """Whether a run may start the training, or ``robustness train NAME`` alone."""


class SweepTable(_Table):
    """``[sweeps.NAME]``: a perturbation with its parameters, and the strengths it is swept over."""

    perturbation: SerializeAsAny[Perturbation]
    """``kind`` and the parameters of a perturbation, beside the strengths in the same table."""
    strengths: tuple[Strength, ...]
    """Numbers, or tables that draw one for each image."""
    unit: Unit = "default"
    """
    Of the strengths: ``default`` (V, ε, …), ``snr`` for ratios in dB that are reached after clipping, ``snr-std`` for
    the same without each image's mean, ``image-std`` for standard deviations of each image's pixels.
    """
    early_stop: bool = False
    """
    Whether the sweep stops once all its claims are decided, whatever the model does on the remaining images. Reports
    then have bounds in place of numbers.
    """

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, table: Any) -> Any:
        """In a card, the perturbation's parameters are in the same table as the strengths."""
        if not isinstance(table, Mapping):
            return table
        own = {key: value for key, value in table.items() if key in ("strengths", "unit", "early_stop")}
        parameters = {key: value for key, value in table.items() if key not in own}
        kind = parameters.get("kind")
        if not isinstance(kind, str) or kind == "clean" or kind not in PERTURBATIONS:
            kinds = [each for each in PERTURBATIONS if each != "clean"]
            raise ValueError(f"`kind` must be one of {', '.join(kinds)}, got {kind!r}{nearest(kind, kinds)}")
        allowed = list(PERTURBATIONS[kind].model_fields)
        for key in parameters:
            if key not in allowed:
                known = [*allowed, "strengths", "unit", "early_stop"]
                raise ValueError(f"unknown key {key!r}; allowed: {', '.join(known)}{nearest(key, known)}")
        return own | {"perturbation": PERTURBATIONS[kind].model_validate(parameters)}

    @model_validator(mode="after")
    def _possible(self) -> SweepTable:
        strengths.check(self.strengths, self.perturbation, self.unit)
        return self


Threshold = Annotated[float, Strict()] | Literal["no claim possible"]


class ClaimTable(_Table):
    """``[claims.NAME]``: for each metric one threshold a strength; ``strengths`` if not all of the sweep's."""

    strengths: tuple[Strength, ...] | None = None
    """If not all of the sweep's strengths are claimed."""
    thresholds: dict[str, tuple[Threshold, ...]]
    """``METRIC = [threshold, …]``, one per strength, or "no claim possible"."""

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, table: Any) -> Any:
        if not isinstance(table, Mapping):
            return table
        rows = {key: value for key, value in table.items() if key != "strengths"}
        rows = {key: value if isinstance(value, list) else [value] for key, value in rows.items()}
        return {"thresholds": rows} | ({"strengths": table["strengths"]} if "strengths" in table else {})

    @field_validator("thresholds")
    @classmethod
    def _metrics(cls, thresholds: dict[str, tuple[Threshold, ...]]) -> dict[str, tuple[Threshold, ...]]:
        for metric, row in thresholds.items():
            # A class is looked up when the data are there; its name may hold anything.
            bare, bracket, label = metric.partition("[")
            known = registry.parse(bare if metric.endswith("]") else metric, 1).metric
            if not known.claimable:
                raise ValueError(f"`{metric}` cannot be claimed")
            if bracket and (label == "]" or not known.takes_class):
                raise ValueError(f"`{metric}` names no class, or takes none; write {known.name}, or precision[CLASS]")
            least, most = known.limits
            open_end = known.better == "lower"
            for threshold in row:
                if not isinstance(threshold, str) and not (
                    least < threshold < most or (threshold == most and not open_end)
                ):
                    end = "∞" if most == math.inf else f"{most:g}"
                    raise ValueError(
                        f"thresholds of `{metric}` must lie in ({least:g}, {end}{')' if open_end else ']'}, got "
                        f"{threshold:g}: a claim that always or never holds is rejected"
                    )
        return thresholds


class SearchTable(_Table):
    """``[search]``: within which budget perturbations are looked for, on what, and how many images may be flipped."""

    budget: Budget = Budget()
    """How far a perturbation may go."""
    images: PositiveInt = 20
    """The maximum number of confident, correct images to search."""
    min_confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """The confidence that counts as sure."""
    max_examples: PositiveInt = 60
    """Perturbations drawn for each image that is searched around."""
    max_flip_rate: Annotated[float, Strict(), Field(gt=0, lt=1)]
    """The largest share of the images that may be flipped."""


class CardFile(_Table):
    """The whole file."""

    name: ModelName
    """How ids, reports and files call the model: letters, digits, ``.``, ``_`` and ``-``."""
    description: str = ""
    """Shown in reports."""
    paper: str | None = None
    """The paper that the model belongs to; shown in reports."""
    scale: Literal["smoke", "short", "full"] = "full"
    """How close training and data are to the paper's; a label of every number."""
    model: ModelTable
    """What the model is."""
    recipe: RecipeTable | None = None
    """What trains it."""
    data: DataSpec
    """The images, and which of them are for testing."""
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """``[channels, height, width]`` of its images, which must match."""
    profile: str | None = None
    """The name of a profile with further sweeps."""
    store_probabilities: bool = False
    """Whether evidence keeps the probability of every class of every image, 4 bytes each; ``roc_auc`` needs them."""
    sweeps: dict[Name, SweepTable] = {}
    """``[sweeps.NAME]``: the sweeps."""
    claims: dict[str, ClaimTable] = {}
    """``[claims.NAME]``: thresholds under the sweep NAME, or on ``clean`` images."""
    search: SearchTable | None = None
    """The search for perturbations that flip an image."""
    doubts: dict[str, str] = {}
    """Doubts that are known and lived with, each with the reason."""
    thresholds: dict[str, Any] = {}
    """Where generated thresholds come from; written by ``robustness update-thresholds``."""
    gate: GateTable | None = None
    """How a retrained model is tested against accepted ones."""
    waivers: tuple[WaiverTable, ...] = ()
    """``[[waivers]]``: claims, or cells of the gate, that may fail until a day."""

    @model_validator(mode="after")
    def _fitting(self) -> CardFile:
        if "clean" in self.sweeps:
            raise ValueError("sweeps.clean: every card has the clean pass; remove the table")
        for name, table in self.claims.items():
            known = ["clean", *self.sweeps]
            if name not in known:
                raise ValueError(f"claims.{name}: no such sweep; allowed: {', '.join(known)}{nearest(name, known)}")
            expected = [strengths.name(s) for s in self.strengths_of(name)]
            got = expected if table.strengths is None else [strengths.name(s) for s in table.strengths]
            if repeated := sorted({s for s in got if got.count(s) > 1}):
                raise ValueError(f"claims.{name}.strengths: {', '.join(repeated)} appears more than once")
            if other := [s for s in got if s not in expected]:
                raise ValueError(
                    f"claims.{name}.strengths: {', '.join(other)} not swept; allowed: {', '.join(expected)}"
                )
            if not table.thresholds:
                raise ValueError(f"claims.{name}: has no metric; name one, or remove the table")
            if all("[" in metric and registry.get(metric).perfect_by_constant for metric in table.thresholds):
                raise ValueError(
                    f"claims.{name}: {min(table.thresholds).partition('[')[0]} of single classes alone is met by a "
                    "constant classifier; also claim accuracy or a macro average"
                )
            self._check_compared(name, table)
            for metric, row in table.thresholds.items():
                if len(row) != len(got):
                    raise ValueError(
                        f"claims.{name}.{metric}: must have one threshold per strength ({len(got)}), got {len(row)}"
                    )
        return self

    @model_validator(mode="after")
    def _weighted(self) -> CardFile:
        if (of := self.model.factory_library) in libraries.WITH_WEIGHTS:
            if self.recipe is not None:
                raise ValueError(
                    f"recipe: {of}: has its own weights; to train, use a factory that returns an untrained module"
                )
        elif of is not None and self.model.weights is None and self.recipe is None and self.model.seed is None:
            raise ValueError(
                f"{of}: builds a model without weights, so the card needs model.weights or a [recipe]; got neither "
                "(model.seed requests random weights)"
            )
        if self.model.seed is not None and self.recipe is not None:
            raise ValueError("model.seed: requests random weights, but a [recipe] trains them; remove one")
        return self

    @model_validator(mode="after")
    def _conditional(self) -> CardFile:
        if self.search is not None and self.clean_accuracy is None:
            raise ValueError(
                "search.max_flip_rate: an upper bound counts only together with clean accuracy, because a constant "
                "classifier never flips; claim accuracy under claims.clean"
            )
        claimed = {metric for table in self.claims.values() for metric in table.thresholds}
        of_detector = [known for metric in sorted(claimed) if (known := registry.get(metric)).needs_detector]
        if of_detector and all(known.requires_detection_claim for known in of_detector):
            raise ValueError(
                f"claims.clean.{of_detector[0].name}: alone, a decision that never discards meets it; also claim "
                "rejection_rate or detection_auc under a perturbation"
            )
        for name, reason in self.doubts.items():
            if name not in DOUBTS:
                raise ValueError(
                    f"doubts: no such doubt: {name}; known: {', '.join(DOUBTS)}{nearest(name, list(DOUBTS))}"
                )
            if not reason.strip():
                raise ValueError(f"doubts.{name}: must say why the card's numbers are trusted anyway, got nothing")
        return self

    @model_validator(mode="after")
    def _gated(self) -> CardFile:
        if self.gate is None and not self.waivers:
            return self
        swept = {
            sweep: [strengths.name(strength) for strength in self.strengths_of(sweep)]
            for sweep in ("clean", *self.sweeps)
        }
        if self.gate is not None:
            check_gate(self.gate, swept, self.model.decision, probabilities=self.store_probabilities)
        check_waivers(self.waivers, self._claim_names(), self.gate, swept)
        return self

    @model_validator(mode="after")
    def _stopping(self) -> CardFile:
        gated = () if self.gate is None else (tuple(self.sweeps) if self.gate.sweeps is None else self.gate.sweeps)
        for name in (name for name, table in self.sweeps.items() if table.early_stop):
            where = f"sweeps.{name}.early_stop"
            rows = self.claims[name].thresholds if name in self.claims else {}
            claimed = [metric for metric, row in rows.items() if any(not isinstance(each, str) for each in row)]
            if not claimed:
                raise ValueError(f"{where}: claims decide when to stop, and claims.{name} has none; remove the key")
            if other := [metric for metric in claimed if not registry.get(metric).monotone]:
                possible = ", ".join(name for name in registry.METRICS if registry.get(name).monotone)
                raise ValueError(
                    f"{where}: {other[0]} is known only after the last image; remove the key or the claim "
                    f"(possible: {possible})"
                )
            if name in gated:
                raise ValueError(
                    f"{where}: the gate compares every image of this sweep; remove the key, or name other sweeps in "
                    "gate.sweeps"
                )
        return self

    def _claim_names(self) -> list[str]:
        """Return the claims as waivers name them: SWEEP:STRENGTH:METRIC."""
        return [
            f"{sweep}:{strengths.name(strength)}:{metric}"
            for sweep, table in self.claims.items()
            for row, strength in enumerate(table.strengths or self.strengths_of(sweep))
            for metric, thresholds in table.thresholds.items()
            if row < len(thresholds) and not isinstance(thresholds[row], str)
        ]

    def _check_compared(self, sweep: str, table: ClaimTable) -> None:
        """Reject claims that a constant classifier meets, filtering without a filter, and transfer without a source."""
        for metric in table.thresholds:
            known = registry.get(metric)
            for required in known.requires_claims:
                if required not in self.clean and (sweep, metric) != ("clean", required):
                    because = registry.get(required).required_because
                    raise ValueError(
                        f"claims.{sweep}.{metric}: counts only together with a claim of clean "
                        f"{required}{f', for {because}' if because else ''}; claim {required} under claims.clean"
                    )
            if known.needs_detector and not isinstance(self.model.decision, Filtering):
                raise ValueError(
                    f"claims.{sweep}.{metric}: needs a decision that detects attacks, got {self.model.decision.kind}; "
                    "name null, 2n or bin in model.decision"
                )
            if known.needs_probabilities and not self.store_probabilities:
                raise ValueError(
                    f"claims.{sweep}.{metric}: needs the probability of every class in the evidence; "
                    "write store_probabilities = true at the top of the card"
                )
        transfer = [metric for metric in table.thresholds if registry.get(metric).needs_source]
        if transfer and (sweep == "clean" or self.sweeps[sweep].perturbation.source_card is None):
            raise ValueError(
                f"claims.{sweep}.{transfer[0]}: needs examples from another model; name its card in "
                f"sweeps.{sweep}.source"
            )

    @property
    def clean_accuracy(self) -> float | None:
        """The clean accuracy that the card claims, if it does."""
        return self.clean.get("accuracy")

    @property
    def clean(self) -> dict[str, float]:
        """What the card claims of the clean images, by metric."""
        rows = self.claims["clean"].thresholds if "clean" in self.claims else {}
        return {metric: row[0] for metric, row in rows.items() if row and not isinstance(row[0], str)}

    def strengths_of(self, sweep: str) -> tuple[Strength, ...]:
        """Return the strengths of a sweep by its name; "clean" has strength 0 alone."""
        return (0.0,) if sweep == "clean" else self.sweeps[sweep].strengths
