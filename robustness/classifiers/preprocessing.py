"""What a library's classifiers expect of images: read from the library, nothing downloaded; no torch of our own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag, model_validator

from robustness.classifiers import libraries
from robustness.errors import ModelError
from robustness.util import paths

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
PILLOW: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""How Hugging Face writes interpolations: as Pillow's numbers."""


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
        return _huggingface(folder / name)
    return None


def _huggingface(folder: Path) -> Preprocessing | None:
    """
    Read the image processor of a Hugging Face folder; None where it has none, ModelError where it cannot be read.

    What it rescales by is part of mean and std, for images lie in [0, 1].
    """
    file = folder / "preprocessor_config.json"
    if not file.exists():
        return None
    libraries.import_library("transformers")
    from transformers import AutoImageProcessor

    try:
        written = paths.parse_json(paths.read_bytes(file))
        found = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        about = {**found.to_dict(), **written}
        mean, std = _normalised(about)
        resize, size, crop, beyond = _resized(about)
        source = f"{file.name} of {folder.name}" + (f" ({beyond})" if beyond else "")
        pillow = PILLOW.get(int(2 if (given := about.get("resample")) is None else given), "another one")
        return Preprocessing(
            resize=resize, size=size, crop=crop, interpolation=interpolation(pillow, source),
            mean=mean, std=std, source=source,
        )  # fmt: skip
    except ModelError:
        raise
    except Exception as error:  # the file is the user's, and the library raises many kinds
        raise ModelError(f"{file}: not an image processor that can be read: {type(error).__name__}: {error}") from error


def _normalised(about: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std for images in [0, 1] of a processor that rescales bytes by a factor, and may shift them."""
    factor = 255 * (float(about.get("rescale_factor") or 1 / 255) if about.get("do_rescale", True) else 1.0)
    shift = 1.0 if about.get("do_rescale", True) and about.get("rescale_offset") else 0.0
    plain = not about.get("do_normalize", True)
    mean = [0.0] if plain else _each(about["image_mean"])
    std = [1.0] if plain else _each(about["image_std"])
    if about.get("include_top") and not plain:  # EfficientNet's processor divides by the std a second time
        mean, std = mean, [s * s for s in std]
    return tuple((m + shift) / factor for m in mean), tuple(s / factor for s in std)


def _each(value: Any) -> list[float]:
    return [float(each) for each in value] if isinstance(value, list | tuple) else [float(value)]


def _resized(
    about: Mapping[str, Any],
) -> tuple[int | None, tuple[int, int] | None, Literal["center", "none"], str]:
    """Return shorter side, size, crop, and what of it cannot be said in these words."""
    size = dict(about.get("size") or {}) if about.get("do_resize", True) else {}
    crop = dict(about.get("crop_size") or {}) if about.get("do_center_crop") else {}
    cropped = (int(crop["height"]), int(crop["width"])) if crop else None
    if (shorter := size.get("shortest_edge")) is not None:
        if (share := about.get("crop_pct")) is not None:  # ConvNeXT's: squashed from 384 on, cropped below
            square = (int(shorter), int(shorter))
            return (None, square, "none", "") if shorter >= 384 else (int(shorter / share), square, "center", "")
        return int(shorter), cropped, "center", ""
    if "height" in size:
        squashed = (int(size["height"]), int(size["width"]))
        if cropped is None or cropped == squashed:
            return None, squashed, "none", ""
        return None, squashed, "none", f"it then crops {cropped[0]}×{cropped[1]}, which is more than a card can say"
    return None, cropped, "center", f"resizes to {size}, which is more than a card can say" if size else ""


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
