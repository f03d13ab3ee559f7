"""Additive noise, Gaussian or uniform, clipped to [0, 1] or not, drawn once or per amplitude."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from robustness.perturbations.base import Batch, Perturb, Step

if TYPE_CHECKING:
    from torch import Tensor

OUTSIDE = "images outside [0, 1]"
"""What is counted of noise without clipping: images with a pixel that no picture has."""


class Noise(Step):
    """
    Noise x + V·R, with R drawn once per image and shared by all amplitudes, clipped to [0, 1].

    With ``accumulate`` the noise of each amplitude is added to the image with the noise of all smaller amplitudes:
    x_k = x_(k−1) + V_k·R_k, with R_k drawn for each k, in rising order of V. Without ``clip`` pixels may leave [0, 1].
    The digits-noise paper's table 5 is that of accumulated noise without clipping (docs/papers/digits-noise.md).
    """

    family: ClassVar[str] = "noise"
    uses_model: ClassVar[bool] = False
    clip: bool = True
    """Whether pixels are clipped to [0, 1]; accumulated noise is clipped after each step."""
    accumulate: bool = False
    """Whether each amplitude's noise is added to that of the smaller amplitudes of the sweep."""
    source: str | None = None
    """The card of a model that gets the same noise, for `transferability`; left out: none."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the defaults of newer fields: evidence from before them keeps its key."""
        fields: dict[str, Any] = handler(self)
        later = {"clip": True, "accumulate": False, "source": None}
        return {k: v for k, v in fields.items() if k not in later or v != later[k]}

    @property
    def source_card(self) -> str | None:
        """The card of the model that is compared with under the same noise."""
        return self.source

    @property
    @abstractmethod
    def deviation(self) -> float:
        """The standard deviation of R."""

    def draws(self, strengths: Sequence[object]) -> int:
        """Return how many R there are per image: one, or one per positive amplitude."""
        return max(len(_positive(strengths)), 1) if self.accumulate else 1

    def deviations(self, strengths: Sequence[object]) -> list[float] | None:
        """
        Return the standard deviation of all noise at each amplitude, before clipping; None unless it accumulates.

        >>> [round(d, 3) for d in GaussianNoise(accumulate=True).deviations([0.1, 0.2, 0.3])]
        [0.1, 0.224, 0.374]
        """
        if not self.accumulate:
            return None
        amplitudes = _positive(strengths)
        return [
            self.deviation * math.hypot(*(v for v in amplitudes if v <= largest))
            for largest in strengths
            if isinstance(largest, int | float)
        ]

    def direction(self, batch: Batch) -> Tensor:
        """Return the numbers that were drawn for these images."""
        if batch.drawn is None:
            raise ValueError("`batch.drawn` must hold the noise of these images, got None; sweep() draws it")
        return batch.drawn

    def prepare(self, batch: Batch) -> Perturb:
        """Return the function that adds one amplitude's noise; accumulated noise is summed once for all amplitudes."""
        if not self.accumulate:
            return super().prepare(batch)
        return self._accumulated(batch)

    def bounded(self, batch: Batch, perturbed: Tensor) -> Tensor:
        """Clip perturbed images in place, or count those that lie outside [0, 1]."""
        if self.clip:
            return super().bounded(batch, perturbed)
        batch.count(OUTSIDE, ((perturbed < 0) | (perturbed > 1)).flatten(1).any(1))
        return perturbed

    def _accumulated(self, batch: Batch) -> Perturb:
        amplitudes, noise = _positive(batch.strengths), self.direction(batch)
        if noise.dim() == batch.inputs.dim():  # one amplitude has one R
            noise = noise[:, None]
        images = {0.0: batch.inputs}
        last = batch.inputs
        for k, amplitude in enumerate(amplitudes):
            last = last.add(noise[:, k], alpha=amplitude)
            images[amplitude] = last = last.clamp_(0, 1) if self.clip else last

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            if strength not in images:
                raise ValueError(
                    "`strength` of accumulated noise must be one of the sweep's strengths, "
                    f"{', '.join(map(str, amplitudes))}, got {strength}"
                )
            return self.bounded(batch, out.copy_(images[float(strength)]))

        return perturb


def _positive(strengths: Sequence[object]) -> list[float]:
    """Return the amplitudes above 0 in rising order."""
    return sorted(float(each) for each in strengths if isinstance(each, int | float) and each > 0)


class GaussianNoise(Noise):
    """
    Gaussian noise x + V·R, R ~ N(0, 1); with ``bound``, R is clamped to ±bound.

    The amplitude V is a fraction of the pixel range.

    >>> drawn = GaussianNoise(bound=1.0).draw(np.random.default_rng(0), (2, 1, 8, 8))
    >>> drawn.shape, float(abs(drawn).max())
    ((2, 1, 8, 8), 1.0)
    """

    kind: Literal["gaussian"] = "gaussian"
    bound: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """R is clamped to ± this."""
    strength_name: ClassVar[str] = "V"

    @property
    def deviation(self) -> float:
        """The standard deviation of R: 1, or that of a normal number clamped to ±bound."""
        b = self.bound
        if b is None:
            return 1.0
        outside, density = math.erfc(b / math.sqrt(2)), math.exp(-(b**2) / 2) * math.sqrt(2 / math.pi)
        return math.sqrt(1 - outside - b * density + b**2 * outside)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw R for one chunk of images."""
        drawn = generator.standard_normal(shape, dtype=np.float32)
        return drawn if self.bound is None else np.clip(drawn, -self.bound, self.bound, out=drawn)


class UniformNoise(Noise):
    """
    Uniform noise: x + U(−ε, ε), independent for every pixel.

    >>> drawn = UniformNoise().draw(np.random.default_rng(0), (2, 1, 8, 8))
    >>> bool((abs(drawn) <= 1).all())
    True
    """

    kind: Literal["uniform"] = "uniform"
    strength_name: ClassVar[str] = "ε"

    @property
    def deviation(self) -> float:
        """The standard deviation of U(−1, 1)."""
        return math.sqrt(1 / 3)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw one chunk of U(−1, 1)."""
        drawn = generator.random(shape, dtype=np.float32)
        drawn *= 2
        drawn -= 1
        return drawn
