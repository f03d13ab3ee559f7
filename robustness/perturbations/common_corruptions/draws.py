"""Random numbers of a batch, one generator per image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from robustness.perturbations.base import seeded


class Draws:
    """Random numbers of the images of a batch. Those of an image depend on its seed, not on its neighbours."""

    def __init__(self, seeds: Sequence[Sequence[int]], device: torch.device) -> None:
        self.seeds = seeds
        self.device = device

    @functools.cached_property
    def generators(self) -> list[np.random.Generator]:
        """The generator of each image; corruptions without chance need none."""
        return [seeded(*seed) for seed in self.seeds]

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers, (N, *shape)."""
        return self._each(shape, lambda numbers, row: numbers.standard_normal(out=row, dtype=np.float32))

    def uniform(self, *shape: int) -> Tensor:
        """Draw uniform numbers from [0, 1), (N, *shape)."""
        return self._each(shape, lambda numbers, row: numbers.random(out=row, dtype=np.float32))

    def poisson(self, means: Tensor) -> Tensor:
        """Draw a Poisson number for each mean, (N, ...)."""
        host = means.cpu().numpy()
        drawn = [numbers.poisson(row) for numbers, row in zip(self.generators, host, strict=True)]
        return torch.from_numpy(np.stack(drawn)).to(means)

    def _each(self, shape: tuple[int, ...], draw: Callable[[np.random.Generator, np.ndarray], object]) -> Tensor:
        rows = np.empty((len(self.seeds), *shape), np.float32)
        for numbers, row in zip(self.generators, rows, strict=True):
            draw(numbers, row)
        return torch.from_numpy(rows).to(self.device)


class SharedDraws(Draws):
    """Draws of a corruption that draws once: every severity gets the same numbers, which are not drawn again."""

    _first: Tensor | None = None

    def _each(self, shape: tuple[int, ...], draw: Callable[[np.random.Generator, np.ndarray], object]) -> Tensor:
        if self._first is None:
            self._first = super()._each(shape, draw)
        return self._first
