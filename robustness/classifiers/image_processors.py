"""What a Hugging Face image processor does to images, in the words of a card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from robustness.classifiers import libraries
from robustness.classifiers.preprocessing import Interpolation, Preprocessing, interpolation
from robustness.errors import ModelError
from robustness.util import paths

PILLOW: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""How Hugging Face writes interpolations: as Pillow's numbers."""


def read(folder: Path) -> Preprocessing | None:
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
