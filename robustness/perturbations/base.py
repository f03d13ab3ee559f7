"""What every perturbation promises, and the form x + strength·direction that most of them have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor, nn

Perturb = Callable[["float | Tensor", "Tensor"], "Tensor"]
"""Writes the images perturbed at a strength (one number, or one an image) into a buffer and returns it."""


@dataclass(frozen=True)
class Batch:
    """The images at work: ``inputs`` (N, C, H, W) in [0, 1], their ``labels``, the model, and what was drawn."""

    classifier: nn.Module
    inputs: Tensor
    labels: Tensor
    drawn: Tensor | None


class Perturbation(BaseModel, ABC):
    """
    What changes the images, with its parameters; a table of a model card.

    Reading one imports no torch: a run whose evidence is stored never needs it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    family: ClassVar[str]
    strength_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    strength_name: ClassVar[str]

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray | None:
        """Draw what one chunk of images needs, (images, C, H, W), or nothing."""
        return None

    @abstractmethod
    def prepare(self, batch: Batch) -> Perturb:
        """Do once a batch what all strengths share, and give what applies a strength."""


class Step(Perturbation):
    """A step of ``strength`` along a direction that all strengths share, clipped to [0, 1]."""

    @abstractmethod
    def direction(self, batch: Batch) -> Tensor:
        """Give the direction, shaped as the inputs."""

    def prepare(self, batch: Batch) -> Perturb:
        """Compute the direction once; each strength then costs one multiply-add and a clip."""
        import torch

        direction = self.direction(batch)

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            if isinstance(strength, torch.Tensor):
                torch.addcmul(batch.inputs, direction, strength, out=out)
            else:
                torch.add(batch.inputs, direction, alpha=strength, out=out)
            return out.clamp_(0, 1)

        return perturb
