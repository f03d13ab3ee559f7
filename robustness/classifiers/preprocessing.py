"""The preprocessing that a library's classifiers expect, read from the library; nothing is downloaded."""

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
# Hugging Face stores interpolations as Pillow's numbers.
PILLOW_INTERPOLATIONS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


Channels = Annotated[tuple[float, ...], BeforeValidator(_as_tuple)]


class Normalisation(BaseModel):
    """
    Mean and standard deviation of every channel, in fractions of the pixel range; one number serves all channels.

    >>> Normalisation(mean=0.5, std=0.25).description
    'mean 0.5, std 0.25'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Channels
    """Per channel, in fractions of the pixel range; one number serves all."""
    std: Channels
    """The standard deviation, likewise."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        mean, std = self.mean, self.std
        # Written so that NaN fails too.
        if not mean or len(mean) != len(std) or not all(0 <= m <= 1 for m in mean) or not all(0 < s < 1e3 for s in std):
            raise ValueError(
                f"`mean` and `std` must have the same length, mean in [0, 1] and std above 0, got {list(mean)} and "
                f"{list(std)}; they are fractions of the pixel range: divide those of bytes by 255"
            )
        return self

    @property
    def description(self) -> str:
        """Text for reports."""
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean}, std {std}"


# ``[model] preprocessing``: the library's, none, or a mean and a standard deviation.
PreprocessingChoice = Annotated[
    Annotated[Literal["library", "none"], Tag("word")] | Annotated[Normalisation, Tag("table")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "table"),
]


class Preprocessing(BaseModel):
    """
    Preprocessing of a classifier's images: resizing belongs to the data, mean and std to the model's first layer.

    ``resize`` is the shorter side; ``size`` (height, width) is then cropped from the centre, or, if ``crop`` is
    "none", the size that the image is squashed to.

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
        """Mean and std, or None."""
        return None if self.mean is None or self.std is None else Normalisation(mean=self.mean, std=self.std)


def images_table(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the resizing part, as the card's table ``[data.images]`` writes it."""
    table = preprocessing.model_dump(mode="json", include={"resize", "size", "crop", "interpolation"})
    if preprocessing.size is None:
        del table["crop"]
    return {key: value for key, value in table.items() if value is not None}


def expected_preprocessing(
    factory: str, arguments: Mapping[str, Any] | None = None, *, folder: Path = Path()
) -> Preprocessing | None:
    """
    Return the preprocessing of a library's model (``timm:NAME``, ``torchvision:NAME``, ``hf:FOLDER``).

    None for other factories, and for a Hugging Face folder without an image processor. ``hf:FOLDER`` is relative to
    ``folder``. ModelError if there is no such model, MissingLibrary if the library is not installed.

    >>> expected_preprocessing("torchvision:resnet18").size
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
    Read the image processor of a Hugging Face folder; None if there is none, ModelError if it is unreadable.

    Its rescaling becomes part of mean and std, because images are in [0, 1].
    """
    file = folder / "preprocessor_config.json"
    if not file.exists():
        return None
    libraries.import_library("transformers")
    from transformers import AutoImageProcessor

    try:
        stored = paths.parse_json(paths.read_bytes(file))
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = {**processor.to_dict(), **stored}
        mean, std = _mean_and_std(config)
        resize, size, crop, unsupported = _resizing(config)
        source = f"{file.name} of {folder.name}" + (f" ({unsupported})" if unsupported else "")
        resample = config.get("resample")
        name = PILLOW_INTERPOLATIONS.get(2 if resample is None else int(resample), "another one")
        return Preprocessing(
            resize=resize,
            size=size,
            crop=crop,
            interpolation=check_interpolation(name, source),
            mean=mean,
            std=std,
            source=source,
        )
    except ModelError:
        raise
    except Exception as error:  # the file is the user's, and the library raises many kinds
        raise ModelError(f"{file}: not a readable image processor: {type(error).__name__}: {error}") from error


def _mean_and_std(config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std for images in [0, 1] from a processor that scales bytes by a factor and may shift them."""
    rescales, normalizes = config.get("do_rescale", True), config.get("do_normalize", True)
    factor = 255 * (float(config.get("rescale_factor") or 1 / 255) if rescales else 1.0)
    shift = 1.0 if rescales and config.get("rescale_offset") else 0.0
    mean = _floats(config["image_mean"]) if normalizes else [0.0]
    std = _floats(config["image_std"]) if normalizes else [1.0]
    if config.get("include_top") and normalizes:  # EfficientNet's processor divides by the std a second time
        mean, std = mean, [s * s for s in std]
    return tuple((m + shift) / factor for m in mean), tuple(s / factor for s in std)


def _floats(value: Any) -> list[float]:
    return [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)]


def _resizing(
    config: Mapping[str, Any],
) -> tuple[int | None, tuple[int, int] | None, Literal["center", "none"], str]:
    """Return shorter side, size, crop, and a note on resizing that a card cannot express."""
    size = dict(config.get("size") or {}) if config.get("do_resize", True) else {}
    crop = dict(config.get("crop_size") or {}) if config.get("do_center_crop") else {}
    cropped = (int(crop["height"]), int(crop["width"])) if crop else None
    if (shorter_side := size.get("shortest_edge")) is not None:
        if (fraction := config.get("crop_pct")) is not None:  # ConvNeXT: squashed from 384 on, cropped below
            square = (int(shorter_side), int(shorter_side))
            return (
                (None, square, "none", "")
                if shorter_side >= 384
                else (int(shorter_side / fraction), square, "center", "")
            )
        return int(shorter_side), cropped, "center", ""
    if "height" in size:
        squashed = (int(size["height"]), int(size["width"]))
        if cropped is None or cropped == squashed:
            return None, squashed, "none", ""
        return None, squashed, "none", f"it then crops {cropped[0]}×{cropped[1]}, which a card cannot express"
    return None, cropped, "center", f"resizes to {size}, which a card cannot express" if size else ""


def _timm(name: str, arguments: Mapping[str, Any]) -> Preprocessing:
    """Read timm's data config; in evaluation, the crop is ``crop_pct`` of the resized shorter side."""
    timm = libraries.import_library("timm")
    libraries.check_model_name("timm", name)
    pretrained = timm.get_pretrained_cfg(name)
    config = timm.data.resolve_data_config(
        {key: arguments[key] for key in ("img_size",) if key in arguments},
        pretrained_cfg={} if pretrained is None else pretrained.to_dict(),
    )
    (_, height, width), fraction, mode = config["input_size"], config["crop_pct"], config["crop_mode"]
    squashed, source = mode == "squash", f"timm's data config of {name}"
    if mode == "border" or (squashed and fraction < 1):
        source += f" (its crop mode {mode!r} with crop_pct {fraction:g} cannot be expressed by a card)"
    return Preprocessing(
        resize=None if squashed else math.floor(min(height, width) / fraction),
        size=(height, width),
        crop="none" if squashed else "center",
        interpolation=check_interpolation(config["interpolation"], source),
        mean=config["mean"],
        std=config["std"],
        source=source,
    )


def _torchvision(name: str) -> Preprocessing:
    """Read the transforms of a builder's default weights."""
    libraries.check_model_name("torchvision", name)
    weights = libraries.import_library("torchvision").get_model_weights(name).DEFAULT
    transforms, source = weights.transforms(), f"the transforms of torchvision's {weights}"
    size = (transforms.crop_size * 2)[:2]
    return Preprocessing(
        resize=transforms.resize_size[0],
        size=(size[0], size[1]),
        interpolation=check_interpolation(transforms.interpolation.value, source),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        source=source,
    )


def check_interpolation(name: str, source: str) -> Interpolation:
    """Return the name of an interpolation; ModelError if a card cannot express it."""
    if name not in get_args(Interpolation):
        raise ModelError(
            f"{source}: its interpolation must be one of {', '.join(get_args(Interpolation))}, got {name!r}; "
            "resize the images beforehand, and write [model] preprocessing = { mean = [...], std = [...] }"
        )
    return name  # type: ignore[return-value]
