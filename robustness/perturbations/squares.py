"""Where Square Attack starts in a ball, and how it moves a square of an image (Andriushchenko et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

# Keeps lengths from being 0 where they divide.
TINY = 1e-12


@dataclass(frozen=True)
class Linf:
    """L∞ balls around images (n, C, H, W), with radii (n,)."""

    inputs: Tensor
    epsilon: Tensor

    @classmethod
    def numbers_of_start(cls, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return how many random numbers a start takes: rows, and numbers per row."""
        return shape[0], shape[2]

    @classmethod
    def numbers_per_query(cls, shape: tuple[int, ...]) -> int:
        """Return how many random numbers a query takes."""
        return 2 + shape[0]

    def of(self, rows: Tensor) -> Linf:
        """Return the balls of some images."""
        return Linf(self.inputs[rows], self.epsilon[rows])

    def start(self, numbers: Tensor) -> Tensor:
        """Return images with vertical stripes of ±ε, from numbers (n, C, W)."""
        return (self.inputs + _radius(self.epsilon) * _signs(numbers)[:, :, None]).clamp_(0, 1)

    def moved(self, images: Tensor, side: int, numbers: Tensor) -> Tensor:
        """Return images of which a square moved by ±2ε per channel, within the ball, from numbers (n, 2 + C)."""
        radius = _radius(self.epsilon)
        changed = images + 2 * radius * _signs(numbers[:, 2:])[:, :, None, None]
        changed = torch.minimum(torch.maximum(changed, self.inputs - radius), self.inputs + radius).clamp_(0, 1)
        return torch.where(_square(images, side, numbers), changed, images)


@dataclass(frozen=True)
class L2:
    """L2 balls around images (n, C, H, W), with radii (n,)."""

    inputs: Tensor
    epsilon: Tensor

    @classmethod
    def numbers_of_start(cls, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return how many random numbers a start takes: bumps, and numbers per bump."""
        side = _bump_side(shape)
        return (shape[1] // side) * (shape[2] // side), 1 + shape[0]

    @classmethod
    def numbers_per_query(cls, shape: tuple[int, ...]) -> int:
        """Return how many random numbers a query takes."""
        return 5 + shape[0]

    def of(self, rows: Tensor) -> L2:
        """Return the balls of some images."""
        return L2(self.inputs[rows], self.epsilon[rows])

    def start(self, numbers: Tensor) -> Tensor:
        """Return images with a grid of bumps, from numbers (n, bumps, 1 + C); bumps beyond the border are cut."""
        height, width = self.inputs.shape[-2:]
        side = _bump_side(self.inputs.shape[1:])
        border = (height - 5 * side) // 2 if height >= 5 else 0
        change = torch.zeros_like(self.inputs)
        for i, (row, column) in enumerate(
            (row, column) for row in range(height // side) for column in range(width // side)
        ):
            top, left = border + row * side, border + column * side
            bump = _bump(side, numbers[:, i, 0]) * _signs(numbers[:, i, 1:])[:, :, None, None]
            change[:, :, top : top + side, left : left + side] += bump[..., : height - top, : width - left]
        return self._shown(change)

    def moved(self, images: Tensor, side: int, numbers: Tensor) -> Tensor:
        """Return images with a bump in one square and no change in another, from numbers (n, 5 + C)."""
        radius, change = _radius(self.epsilon), images - self.inputs
        into, out_of = _square(images, side, numbers), _square(images, side, numbers[:, 2:])
        window = into.expand_as(change).reshape(-1, *change.shape[1:])
        before = change[window].view(*change.shape[:2], side, side)
        length = before.square().sum((2, 3), keepdim=True).sqrt()
        bump = _bump(side, numbers[:, 4]) * _signs(numbers[:, 5:])[:, :, None, None] + before / (TINY + length)
        unused = (radius.square() - _length(change).square()).clamp(min=0) / change.shape[1]
        mass = (unused + _length(change * (into | out_of)).square()).sqrt()
        bump = bump / (TINY + bump.square().sum((2, 3), keepdim=True).sqrt()) * mass
        change = change.masked_fill(out_of, 0)
        change[window] = bump.flatten()
        return self._shown(change)

    def _shown(self, change: Tensor) -> Tensor:
        """Return the images with a change that is brought to length ε."""
        return (self.inputs + change / (_length(change) + TINY) * _radius(self.epsilon)).clamp_(0, 1)


BALLS: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}


def _radius(epsilon: Tensor) -> Tensor:
    """Return radii (n,) shaped to multiply images with."""
    return epsilon.view(-1, 1, 1, 1)


def _length(change: Tensor) -> Tensor:
    """Return the L2 length of each change, (n, 1, 1, 1)."""
    return change.square().sum((1, 2, 3), keepdim=True).sqrt()


def _signs(numbers: Tensor) -> Tensor:
    """Return ±1 for numbers in [0, 1)."""
    return torch.where(numbers < 0.5, -1.0, 1.0)


def _square(images: Tensor, side: int, numbers: Tensor) -> Tensor:
    """Return which pixels lie in a square of each image, (n, 1, H, W), by two numbers: its row and its column."""
    masks = []
    for axis, size in enumerate(images.shape[-2:]):
        first = (numbers[:, axis] * (size - side)).long()[:, None]
        at = torch.arange(size, device=images.device)
        masks.append((at >= first) & (at < first + side))
    return masks[0][:, None, :, None] & masks[1][:, None, None, :]


def _bump_side(shape: tuple[int, ...]) -> int:
    """Return the side of the bumps of an L2 start."""
    return max(1, min(shape[1] // 5, shape[2]))


def _bump(side: int, numbers: Tensor) -> Tensor:
    """Return the bump of each image, (n, 1, side, side): with numbers above 0.5 it lies on its side."""
    bump = _upright_bump(side).to(numbers)
    return torch.where(numbers.view(-1, 1, 1, 1) > 0.5, bump.T, bump)


@cache
def _upright_bump(side: int) -> Tensor:
    """Return the paper's η: a hill of length 1 over its negative, (side, side)."""
    bump = torch.cat([_hill(side // 2, side), -_hill(side - side // 2, side)])
    return bump / bump.square().sum().sqrt()


def _hill(height: int, width: int) -> Tensor:
    """Return nested rectangles around the centre, the i-th of height 1 / i², (height, width), of length 1."""
    row, column = height // 2, width // 2
    vertical = (torch.arange(height) - row).abs()[:, None]
    horizontal = (torch.arange(width) - column).abs()
    hill = torch.zeros(height, width)
    for i in range(max(row, column) + 1):
        hill += ((vertical <= i) & (horizontal <= i)) / (i + 1) ** 2
    return hill / hill.square().sum().sqrt() if height else hill
