"""What a library's classifiers expect of images: read from the library, nothing downloaded; no torch of our own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag, model_validator

from robustness.classifiers import libraries
from robustness.errors import ModelError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


Channels = Annotated[tuple[float, ...], BeforeValidator(_listed)]


class Normalisation(BaseModel):
    """
    Mean and standard deviation of every channel, in fractions of the pixel range; one number serves all channels.

    >>> Normalisation(mean=0.5, std=0.25).said
    'mean 0.5, std 0.25'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Channels
    """Of every channel, in fractions of the pixel range; one number serves all."""
    std: Channels
    """The standard deviation, the same way."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        mean, std = self.mean, self.std
        # In this form NaN fails too.
        if not mean or len(mean) != len(std) or not all(0 <= m <= 1 for m in mean) or not all(0 < s < 1e3 for s in std):
            raise ValueError(
                f"`mean` and `std` must be as many numbers each, mean in [0, 1] and std above 0, got {list(mean)} and "
                f"{list(std)}; they are fractions of the pixel range: divide those of bytes by 255"
            )
        return self

    @property
    def said(self) -> str:
        """What a report says."""
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean}, std {std}"


Choice = Annotated[
    Annotated[Literal["library", "none"], Tag("word")] | Annotated[Normalisation, Tag("table")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "table"),
]
"""``[model] preprocessing``: what the library does, nothing, or a mean and a standard deviation."""


class Preprocessing(BaseModel):
    """
    What is done to images before a classifier: resizing is for the data, mean and std for the model's first layer.

    ``resize`` is the shorter side; ``size`` (height, width) what is cropped from the centre then, or what the image is
    squashed to where ``crop`` is "none".

    >>> images_table(Preprocessing(resize=256, size=(224, 224), source="by hand"))
    {'resize': 256, 'size': [224, 224], 'crop': 'center', 'interpolation': 'bilinear'}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: int | None = None
    size: tuple[int, int] | None = None
    crop: Literal["center", "none"] = "center"
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    source: str

    @property
    def normalisation(self) -> Normalisation | None:
        """Mean and std, where there are any."""
        return None if self.mean is None or self.std is None else Normalisation(mean=self.mean, std=self.std)


def images_table(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return what concerns pixels, as the card's table ``[data.images]`` has it."""
    table = preprocessing.model_dump(mode="json", include={"resize", "size", "crop", "interpolation"})
    if preprocessing.size is None:
        del table["crop"]
    return {key: value for key, value in table.items() if value is not None}


def of_library(
    factory: str, arguments: Mapping[str, Any] | None = None, *, folder: Path = Path()
) -> Preprocessing | None:
    """
    Return what the library of a factory (``timm:NAME``, ``torchvision:NAME``, ``hf:FOLDER``) does to images.

    None for other factories, and where the library says nothing: a Hugging Face folder without an image processor.
    ``folder`` is what ``hf:FOLDER`` is relative to. ModelError where there is no such model, MissingLibrary where the
    library is not installed.

    >>> of_library("torchvision:resnet18").size
    (224, 224)
    """
    kind, name = libraries.factory_library(factory), factory.partition(":")[2]
    if kind == "timm":
        return _timm(name, arguments or {})
    if kind == "torchvision":
        return _torchvision(name)
    if kind == "hf":
        from robustness.classifiers import image_processors

        return image_processors.read(folder / name)
    return None


def _timm(name: str, arguments: Mapping[str, Any]) -> Preprocessing:
    """Read timm's data config: its evaluation resizes so that the crop is ``crop_pct`` of the shorter side."""
    timm = libraries.import_library("timm")
    libraries.check_model_name("timm", name)
    found = timm.get_pretrained_cfg(name)
    config = timm.data.resolve_data_config(
        {key: arguments[key] for key in ("img_size",) if key in arguments},
        pretrained_cfg={} if found is None else found.to_dict(),
    )
    (_, height, width), share, mode = config["input_size"], config["crop_pct"], config["crop_mode"]
    squashed, source = mode == "squash", f"timm's data config of {name}"
    if mode == "border" or (squashed and share < 1):
        source += f" (its crop mode {mode!r} with crop_pct {share:g} is more than a card can say)"
    return Preprocessing(
        resize=None if squashed else math.floor(min(height, width) / share),
        size=(height, width),
        crop="none" if squashed else "center",
        interpolation=interpolation(config["interpolation"], source),
        mean=config["mean"],
        std=config["std"],
        source=source,
    )


def _torchvision(name: str) -> Preprocessing:
    """Read the transforms that belong to a builder's default weights."""
    libraries.check_model_name("torchvision", name)
    weights = libraries.import_library("torchvision").get_model_weights(name).DEFAULT
    found, source = weights.transforms(), f"the transforms of torchvision's {weights}"
    size = (found.crop_size * 2)[:2]
    return Preprocessing(
        resize=found.resize_size[0],
        size=(size[0], size[1]),
        interpolation=interpolation(found.interpolation.value, source),
        mean=tuple(found.mean),
        std=tuple(found.std),
        source=source,
    )


def interpolation(name: str, source: str) -> Interpolation:
    """Return an interpolation by its name; ModelError where a card cannot name it."""
    if name not in get_args(Interpolation):
        raise ModelError(
            f"{source}: its interpolation must be one of {', '.join(get_args(Interpolation))}, got {name!r}; "
            "resize the images beforehand, and write [model] preprocessing = { mean = [...], std = [...] }"
        )
    return name  # type: ignore[return-value]
