"""Readable perturbations: small descriptions that reproduce an image exactly. NumPy only."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from robustness.perturbations.norms import Budget
from robustness.util.rng import Purpose, generator


class DescribedPerturbation(BaseModel, ABC):
    """A perturbation that applies to any image; its JSON is its text form, and ``str`` describes it to a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str

    @abstractmethod
    def transform(self, images: np.ndarray) -> np.ndarray:
        """Transform images (N, C, H, W) in [0, 1]; the caller clips to [0, 1] and the budget."""

    def apply(self, images: np.ndarray, budget: Budget | None = None) -> np.ndarray:
        """Transform images, and clip to [0, 1] and the budget."""
        transformed = self.transform(images)
        return (
            np.clip(transformed, 0, 1).astype(images.dtype) if budget is None else budget.project(images, transformed)
        )

    @property
    def text(self) -> str:
        """The text form, which `parse_description` reads."""
        return self.model_dump_json()


class PixelChanges(DescribedPerturbation):
    """
    Changes of single pixels, (row, column, change of every channel).

    >>> print(PixelChanges(pixels=((3, 7, 0.2),)))
    one pixel at (3, 7) by 0.2
    """

    kind: Literal["pixels"] = "pixels"
    pixels: tuple[tuple[int, int, float], ...]

    def transform(self, images: np.ndarray) -> np.ndarray:
        """Add the changes to the pixels."""
        result: np.ndarray = images.copy()
        for row, column, change in self.pixels:
            result[..., row, column] += change
        return result

    def __str__(self) -> str:
        places = ", ".join(f"({row}, {column}) by {change:g}" for row, column, change in self.pixels)
        return f"one pixel at {places}" if len(self.pixels) == 1 else f"{len(self.pixels)} pixels at {places}"


class FilledBox(DescribedPerturbation):
    """A rectangle of one value."""

    kind: Literal["box"] = "box"
    top: int
    left: int
    height: int
    width: int
    value: float

    def transform(self, images: np.ndarray) -> np.ndarray:
        """Fill the rectangle."""
        result: np.ndarray = images.copy()
        result[..., self.top : self.top + self.height, self.left : self.left + self.width] = self.value
        return result

    def __str__(self) -> str:
        return f"a box of {self.height} by {self.width} at ({self.top}, {self.left}) filled with {self.value:g}"


class BrightnessContrast(DescribedPerturbation):
    """Added brightness, and contrast: differences from the image's mean are scaled by 1 + contrast."""

    kind: Literal["tone"] = "tone"
    brightness: float = 0.0
    contrast: float = 0.0

    def transform(self, images: np.ndarray) -> np.ndarray:
        """Scale, then add."""
        mean = images.mean((1, 2, 3), keepdims=True)
        result: np.ndarray = images + self.contrast * (images - mean) + self.brightness
        return result

    def __str__(self) -> str:
        return f"brightness {self.brightness:+g}, contrast {self.contrast:+g}"


class CosineField(DescribedPerturbation):
    """A smooth field of cosines, (half waves down, half waves across, amplitude)."""

    kind: Literal["waves"] = "waves"
    waves: tuple[tuple[int, int, float], ...]

    def transform(self, images: np.ndarray) -> np.ndarray:
        """Add the field to every channel."""
        down, across = ((np.arange(n) + 0.5) * math.pi / n for n in images.shape[-2:])
        field = sum(a * np.outer(np.cos(y * down), np.cos(x * across)) for y, x, a in self.waves)
        result: np.ndarray = images + np.asarray(field, images.dtype)
        return result

    def __str__(self) -> str:
        return "waves " + ", ".join(f"{y} down {x} across by {amplitude:g}" for y, x, amplitude in self.waves)


class ShiftAndRotate(DescribedPerturbation):
    """A shift by whole pixels and a rotation about the centre in degrees; the border is filled with black."""

    kind: Literal["move"] = "move"
    down: int = 0
    right: int = 0
    degrees: float = 0.0

    def transform(self, images: np.ndarray) -> np.ndarray:
        """Shift and rotate, with bilinear interpolation."""
        height, width = images.shape[-2:]
        y, x = np.mgrid[:height, :width].astype(np.float64)
        angle, middle = math.radians(self.degrees), ((height - 1) / 2, (width - 1) / 2)
        y, x = y - self.down - middle[0], x - self.right - middle[1]
        row = y * math.cos(angle) + x * math.sin(angle) + middle[0]
        column = x * math.cos(angle) - y * math.sin(angle) + middle[1]
        # Rounded, because cos(45°)² and the like miss whole pixels by a last bit, which would mix in the black border.
        return _bilinear(images, row.round(9), column.round(9))

    def __str__(self) -> str:
        return f"moved {self.down} down and {self.right} right, turned by {self.degrees:g} degrees"


class Noise(DescribedPerturbation):
    """Uniform noise of an amplitude, from a seed."""

    kind: Literal["noise"] = "noise"
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    amplitude: float

    def transform(self, images: np.ndarray) -> np.ndarray:
        """Add the same noise to every image."""
        drawn = generator(self.seed, Purpose.DESCRIBED).uniform(-1, 1, images.shape[1:])
        result: np.ndarray = images + (self.amplitude * drawn).astype(images.dtype)
        return result

    def __str__(self) -> str:
        return f"uniform noise of amplitude {self.amplitude:g} from seed {self.seed}"


AnyDescription = Annotated[
    PixelChanges | FilledBox | BrightnessContrast | CosineField | ShiftAndRotate | Noise, Field(discriminator="kind")
]
_ANY: TypeAdapter[DescribedPerturbation] = TypeAdapter(AnyDescription)


def parse_description(text: str) -> DescribedPerturbation:
    """
    Parse a description's text form.

    >>> parse_description(BrightnessContrast(brightness=0.1).text) == BrightnessContrast(brightness=0.1)
    True
    """
    return _ANY.validate_json(text)


def _bilinear(images: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    height, width = images.shape[-2:]
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    row, column = np.clip(row, -1, height) + 1, np.clip(column, -1, width) + 1
    top, left = np.minimum(row.astype(int), height), np.minimum(column.astype(int), width)
    down, right = (row - top).astype(images.dtype), (column - left).astype(images.dtype)
    upper = padded[..., top, left] * (1 - right) + padded[..., top, left + 1] * right
    lower = padded[..., top + 1, left] * (1 - right) + padded[..., top + 1, left + 1] * right
    result: np.ndarray = upper * (1 - down) + lower * down
    return result
