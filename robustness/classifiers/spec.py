"""The table ``[model]`` of a card: factory, weights, and the conventions of the model's inputs and outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

from robustness.classifiers import libraries
from robustness.classifiers.class_mapping import Classes
from robustness.classifiers.preprocessing import PreprocessingChoice
from robustness.decisions import AnyDecision, Argmax


def _check_callable_name(value: str) -> str:
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", value):
        raise ValueError("must be 'module:callable'")
    return value


CallableName = Annotated[str, AfterValidator(_check_callable_name)]


def _check_factory_name(value: str) -> str:
    if libraries.factory_library(value) is None:
        return _check_callable_name(value)
    if not value.partition(":")[2] or not value.isprintable() or "\\" in value:
        raise ValueError("must name a model after the colon, as timm:resnet18, hf:FOLDER or onnx:FILE")
    return value


FactoryName = Annotated[str, AfterValidator(_check_factory_name)]


def _check_hashable(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"must hold text, finite numbers, truth values, lists and tables only: {error}") from None
    return value


# Keyword arguments; they are part of the hashed keys of the store.
Arguments = Annotated[dict[str, Any], AfterValidator(_check_hashable)]


class ModelTable(BaseModel):
    """
    ``[model]``: an importable factory or a library's model, its arguments, and its weights file.

    ``checkpoint_key`` selects the weights in a nested checkpoint; ``seed`` requests random weights.

    >>> ModelTable(factory="timm:resnet18", seed=0).factory_library
    'timm'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    factory: FactoryName
    """
    ``module:callable`` that gives a ``torch.nn.Module`` from images in [0, 1], (N, C, H, W), to logits; or one by name:
    ``timm:``, ``torchvision:``, ``hf:``, ``torchscript:``, ``torchexport:``, ``onnx:``.
    """
    arguments: Arguments = {}
    """Keyword arguments of the factory."""
    weights: str | None = None
    """By the card: ``.safetensors``, the ``.index.json`` of shards, or what ``torch.load(weights_only=True)`` reads."""
    checkpoint_key: str | None = None
    """Which entry of a nested checkpoint."""
    seed: Annotated[int, Strict(), Field(ge=0, lt=2**32)] | None = None
    """Random weights, from this seed, instead of a file."""
    decision: AnyDecision = Argmax()
    """How logits are read."""
    preprocessing: PreprocessingChoice | None = None
    """What it was trained to be given, made its first layer: ``library``, ``none``, or a table of mean and std."""
    channels: Literal[1, 3] | None = None
    """What the model takes: grey images are repeated, colour becomes its luminance."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    """``NHWC`` for a model that takes channels last."""
    logits_key: Annotated[str, Strict()] | Annotated[int, Strict(), Field(ge=0)] | None = None
    """Which entry of a dictionary, attribute of an object or place in a tuple holds the logits."""
    classes: Classes | None = None
    """Which output is which class of the data: ``index``, the names of all outputs, or a table of classes."""

    @model_validator(mode="after")
    def _fits_together(self) -> ModelTable:
        if self.seed is not None and self.weights is not None:
            raise ValueError("seed: requests random weights, but model.weights names a file; remove one of them")
        if self.checkpoint_key is not None and self.weights is None:
            raise ValueError(
                "checkpoint_key: selects an entry of the file in model.weights, which is missing; name the file"
            )
        if self.preprocessing == "library" and self.factory_library not in libraries.PREPROCESSING:
            raise ValueError(
                f"preprocessing: only {', '.join(libraries.PREPROCESSING)} define theirs, got the factory "
                f"{self.factory!r}; write {{ mean = [...], std = [...] }}, or none"
            )
        if self.classes is not None and not isinstance(self.decision, Argmax):
            raise ValueError(
                f"classes: outputs are matched to classes only under the decision argmax, got {self.decision.kind}; "
                "remove classes"
            )
        return self

    @property
    def factory_library(self) -> str | None:
        """The library that the factory's prefix names, or None."""
        return libraries.factory_library(self.factory)

    @property
    def adaptation(self) -> dict[str, Any]:
        """The conventions of inputs and outputs that differ from the defaults; empty for most cards."""
        fields = {"preprocessing", "channels", "layout", "logits_key", "classes", "checkpoint_key"}
        return self.model_dump(mode="json", include=fields, exclude_defaults=True)


class ImagesTable(Protocol):
    """The part of a card's ``[data]`` that is needed here."""

    @property
    def images(self) -> BaseModel | None:
        """How pictures are decoded, if the data are pictures."""


class CardTables(Protocol):
    """The tables of a card's file that are needed here."""

    @property
    def model(self) -> ModelTable:
        """``[model]``."""

    @property
    def recipe(self) -> object | None:
        """``[recipe]``, or None."""

    @property
    def data(self) -> ImagesTable:
        """``[data]``."""


class ModelCard(Protocol):
    """The part of a card that is needed to build its model."""

    @property
    def file(self) -> CardTables:
        """Its tables."""

    @property
    def path(self) -> Path:
        """The path that errors name."""

    @property
    def project(self) -> Path:
        """The folder that its modules are imported from."""

    @property
    def weights(self) -> Path | None:
        """The weights file that it names."""

    def data(self, part: Literal["train", "test"]) -> tuple[ImagesTable, Path]:
        """Return the images that it is trained or tested on, and the folder that their paths are relative to."""
