"""Additive noise: normal, optionally bounded, and uniform. The result is always clipped to [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from robustness.perturbations.base import Batch, Step

if TYPE_CHECKING:
    from torch import Tensor


class Noise(Step):
    """A step along numbers drawn once per image, the same for every amplitude."""

    family: ClassVar[str] = "noise"

    def direction(self, batch: Batch) -> Tensor:
        """Give the numbers that were drawn for these images."""
        if batch.drawn is None:
            raise ValueError("`batch.drawn` must hold the noise of these images, got None; sweep() draws it")
        return batch.drawn


class Normal(Noise):
    """
    Normal noise x + V·R, R ~ N(0, 1); with ``bound``, R is clamped to ±bound.

    The amplitude V is a fraction of the pixel range. ``bound = 1`` is the reading under which
    the digits-noise paper's table 5 comes out (docs/papers/digits-noise.md).

    >>> drawn = Normal(bound=1.0).draw(np.random.default_rng(0), (2, 1, 8, 8))
    >>> drawn.shape, float(abs(drawn).max())
    ((2, 1, 8, 8), 1.0)
    """

    kind: Literal["normal"] = "normal"
    bound: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """R is clamped to ± this."""
    strength_name: ClassVar[str] = "V"

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw R for one chunk of images."""
        drawn = generator.standard_normal(shape, dtype=np.float32)
        return drawn if self.bound is None else np.clip(drawn, -self.bound, self.bound, out=drawn)


class Uniform(Noise):
    """
    Uniform noise: x + U(−ε, ε), independent for every pixel.

    >>> drawn = Uniform().draw(np.random.default_rng(0), (2, 1, 8, 8))
    >>> bool((abs(drawn) <= 1).all())
    True
    """

    kind: Literal["uniform"] = "uniform"
    strength_name: ClassVar[str] = "ε"

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw one chunk of U(−1, 1)."""
        drawn = generator.random(shape, dtype=np.float32)
        drawn *= 2
        drawn -= 1
        return drawn
