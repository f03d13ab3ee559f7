"""The table ``[model]`` of a card: a factory, its weights, and how the model takes images and gives logits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

from robustness.classifiers import libraries
from robustness.classifiers.class_mapping import Classes
from robustness.classifiers.preprocessing import Choice
from robustness.decisions import AnyDecision, Argmax


def _callable(value: str) -> str:
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", value):
        raise ValueError("must be 'module:callable'")
    return value


CallableName = Annotated[str, AfterValidator(_callable)]


def _factory(value: str) -> str:
    if libraries.factory_library(value) is None:
        return _callable(value)
    if not value.partition(":")[2] or not value.isprintable() or "\\" in value:
        raise ValueError("must name a model after the colon, as timm:resnet18, hf:FOLDER or onnx:FILE")
    return value


FactoryName = Annotated[str, AfterValidator(_factory)]


def _hashable(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"must hold text, finite numbers, truth values, lists and tables only: {error}") from None
    return value


Arguments = Annotated[dict[str, Any], AfterValidator(_hashable)]
"""Keyword arguments; part of what keys are hashes of."""


class ModelTable(BaseModel):
    """
    ``[model]``: an importable factory or one by name, its arguments, and the file of its weights.

    ``entry`` names what is taken of a nested checkpoint; ``seed`` asks for random weights.

    >>> ModelTable(factory="timm:resnet18", seed=0).by_name
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
    entry: str | None = None
    """Which entry of a nested checkpoint."""
    seed: Annotated[int, Strict(), Field(ge=0, lt=2**32)] | None = None
    """Random weights, from this seed, instead of a file."""
    decision: AnyDecision = Argmax()
    """How logits are read."""
    preprocessing: Choice | None = None
    """What it was trained to be given, made its first layer: ``library``, ``none``, or a table of mean and std."""
    channels: Literal[1, 3] | None = None
    """What the model takes: grey images are repeated, colour becomes its luminance."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    """``NHWC`` for a model that takes channels last."""
    output: Annotated[str, Strict()] | Annotated[int, Strict(), Field(ge=0)] | None = None
    """Which entry of a dictionary, attribute of an object or place in a tuple holds the logits."""
    classes: Classes | None = None
    """Which output is which class of the data: ``index``, the names of all outputs, or a table of classes."""

    @model_validator(mode="after")
    def _fits_together(self) -> ModelTable:
        if self.seed is not None and self.weights is not None:
            raise ValueError("seed: asks for random weights, and model.weights names a file; leave one of them out")
        if self.entry is not None and self.weights is None:
            raise ValueError("entry: names what is taken of the file in model.weights, which is missing")
        if self.preprocessing == "library" and self.by_name not in libraries.PREPROCESSING:
            raise ValueError(
                f"preprocessing: only {', '.join(libraries.PREPROCESSING)} say what theirs is, got the factory "
                f"{self.factory!r}; write {{ mean = [...], std = [...] }}, or none"
            )
        if self.classes is not None and not isinstance(self.decision, Argmax):
            raise ValueError(
                f"classes: outputs are matched to classes under the decision argmax alone, got {self.decision.kind}"
            )
        return self

    @property
    def by_name(self) -> str | None:
        """What stands before the colon where it is a library's name."""
        return libraries.factory_library(self.factory)

    @property
    def adaptation(self) -> dict[str, Any]:
        """How the model takes images and gives logits, beyond what every module does; nothing for most cards."""
        told = {"preprocessing", "channels", "layout", "output", "classes", "entry"}
        return self.model_dump(mode="json", include=told, exclude_defaults=True)


class ImagesTable(Protocol):
    """What is read of a card's ``[data]``."""

    @property
    def images(self) -> BaseModel | None:
        """How pictures are decoded, if they are."""


class CardTables(Protocol):
    """What is read of a card's file."""

    @property
    def model(self) -> ModelTable:
        """``[model]``."""

    @property
    def recipe(self) -> object | None:
        """``[recipe]``, if there is one."""

    @property
    def data(self) -> ImagesTable:
        """``[data]``."""


class ModelCard(Protocol):
    """What is read of a card to build its model."""

    @property
    def file(self) -> CardTables:
        """Its tables."""

    @property
    def path(self) -> Path:
        """Its file, by which errors name it."""

    @property
    def project(self) -> Path:
        """The folder from which its modules are imported."""

    @property
    def weights(self) -> Path | None:
        """The file of weights that it names."""

    @property
    def tested_on(self) -> ImagesTable | None:
        """Other data than its own to test on."""
