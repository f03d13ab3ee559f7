"""Perturbations that a person can read: small descriptions that rebuild an image exactly. NumPy alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from robustness.perturbations.norms import Budget
from robustness.util.rng import Purpose, generator


class DescribedPerturbation(BaseModel, ABC):
    """One perturbation of any image; its JSON is its text form, and ``str`` says it to a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str

    @abstractmethod
    def changed(self, images: np.ndarray) -> np.ndarray:
        """Return the images (N, C, H, W) in [0, 1] changed; what leaves [0, 1] or a budget is brought back later."""

    def apply(self, images: np.ndarray, budget: Budget | None = None) -> np.ndarray:
        """Return the images changed, inside [0, 1] and the budget."""
        changed = self.changed(images)
        return np.clip(changed, 0, 1).astype(images.dtype) if budget is None else budget.kept(images, changed)

    @property
    def text(self) -> str:
        """One line that `read` understands."""
        return self.model_dump_json()


class PixelChanges(DescribedPerturbation):
    """
    A few pixels, (row, column, change of every channel).

    >>> print(PixelChanges(pixels=((3, 7, 0.2),)))
    one pixel at (3, 7) by 0.2
    """

    kind: Literal["pixels"] = "pixels"
    pixels: tuple[tuple[int, int, float], ...]

    def changed(self, images: np.ndarray) -> np.ndarray:
        """Add to these pixels."""
        found: np.ndarray = images.copy()
        for row, column, change in self.pixels:
            found[..., row, column] += change
        return found

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

    def changed(self, images: np.ndarray) -> np.ndarray:
        """Fill the rectangle."""
        found: np.ndarray = images.copy()
        found[..., self.top : self.top + self.height, self.left : self.left + self.width] = self.value
        return found

    def __str__(self) -> str:
        return f"a box of {self.height} by {self.width} at ({self.top}, {self.left}) filled with {self.value:g}"


class BrightnessContrast(DescribedPerturbation):
    """Brightness added, and differences from the image's mean scaled by 1 + contrast."""

    kind: Literal["tone"] = "tone"
    brightness: float = 0.0
    contrast: float = 0.0

    def changed(self, images: np.ndarray) -> np.ndarray:
        """Scale, then add."""
        mean = images.mean((1, 2, 3), keepdims=True)
        found: np.ndarray = images + self.contrast * (images - mean) + self.brightness
        return found

    def __str__(self) -> str:
        return f"brightness {self.brightness:+g}, contrast {self.contrast:+g}"


class CosineField(DescribedPerturbation):
    """A smooth field: cosines, (half waves down, half waves across, amplitude)."""

    kind: Literal["waves"] = "waves"
    waves: tuple[tuple[int, int, float], ...]

    def changed(self, images: np.ndarray) -> np.ndarray:
        """Add the field to every channel."""
        down, across = ((np.arange(n) + 0.5) * math.pi / n for n in images.shape[-2:])
        field = sum(a * np.outer(np.cos(y * down), np.cos(x * across)) for y, x, a in self.waves)
        found: np.ndarray = images + np.asarray(field, images.dtype)
        return found

    def __str__(self) -> str:
        return "waves " + ", ".join(f"{y} down {x} across by {amplitude:g}" for y, x, amplitude in self.waves)


class ShiftAndRotate(DescribedPerturbation):
    """A shift in whole pixels and a turn about the centre in degrees; black comes in."""

    kind: Literal["move"] = "move"
    down: int = 0
    right: int = 0
    degrees: float = 0.0

    def changed(self, images: np.ndarray) -> np.ndarray:
        """Take each pixel from where it was, bilinearly."""
        height, width = images.shape[-2:]
        y, x = np.mgrid[:height, :width].astype(np.float64)
        angle, middle = math.radians(self.degrees), ((height - 1) / 2, (width - 1) / 2)
        y, x = y - self.down - middle[0], x - self.right - middle[1]
        row = y * math.cos(angle) + x * math.sin(angle) + middle[0]
        column = x * math.cos(angle) - y * math.sin(angle) + middle[1]
        # cos(45°)² and the like miss whole pixels by a last bit, which would let in what lies beyond the border.
        return _bilinear(images, row.round(9), column.round(9))

    def __str__(self) -> str:
        return f"moved {self.down} down and {self.right} right, turned by {self.degrees:g} degrees"


class Noise(DescribedPerturbation):
    """Uniform noise of an amplitude, from a seed."""

    kind: Literal["noise"] = "noise"
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    amplitude: float

    def changed(self, images: np.ndarray) -> np.ndarray:
        """Add the same noise to every image."""
        drawn = generator(self.seed, Purpose.DESCRIBED).uniform(-1, 1, images.shape[1:])
        found: np.ndarray = images + (self.amplitude * drawn).astype(images.dtype)
        return found

    def __str__(self) -> str:
        return f"uniform noise of amplitude {self.amplitude:g} from seed {self.seed}"


AnyDescription = Annotated[
    PixelChanges | FilledBox | BrightnessContrast | CosineField | ShiftAndRotate | Noise, Field(discriminator="kind")
]
_ANY: TypeAdapter[DescribedPerturbation] = TypeAdapter(AnyDescription)


def read(text: str) -> DescribedPerturbation:
    """
    Read a description's text form.

    >>> read(BrightnessContrast(brightness=0.1).text) == BrightnessContrast(brightness=0.1)
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
    found: np.ndarray = upper * (1 - down) + lower * down
    return found
