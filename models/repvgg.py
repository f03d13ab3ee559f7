"""RepVGG: trained with three branches a block, used as plain 3x3 convolutions (Ding et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import Normalise, scaled

COUNTS = (2, 4, 14, 1)
"""Blocks of each stage of the A networks."""
WIDTHS = (64, 128, 256, 512)
FACTORS = {"a0": (0.75, 2.5), "a1": (1.0, 2.5), "a2": (1.5, 2.75)}
"""Of the widths of the first three stages, and of the last."""


class Convolution(nn.Conv2d):
    """A convolution that can be called with another kernel and bias; its hooks see the maps with either."""

    def forward(self, inputs: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Return feature maps, by its own kernel if none is passed."""
        return F.conv2d(inputs, self.weight if weight is None else weight, bias, self.stride, self.padding)


class Block(nn.Module):
    """ReLU of the sum of a 3x3 and a 1x1 convolution and, where shapes allow, of the input, each with batch norm."""

    def __init__(self, fan_in: int, fan_out: int, stride: int = 1) -> None:
        super().__init__()
        self.large = Convolution(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.small = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)
        same = fan_in == fan_out and stride == 1
        self.norms = nn.ModuleList(nn.BatchNorm2d(fan_out) for _ in range(3 if same else 2))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return feature maps of ``fan_out`` channels; in evaluation mode by one convolution, as is deployed."""
        if not self.training:
            return F.relu(self.large(inputs, *self.folded()))
        maps: Tensor = self.norms[0](self.large(inputs)) + self.norms[1](self.small(inputs))
        if len(self.norms) == 3:
            maps = maps + self.norms[2](inputs)
        return F.relu(maps)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return kernel and bias of the one 3x3 convolution that computes the same in evaluation mode (section 3.3)."""
        scales, shifts = [], []
        for norm in self.norms:
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scales.append(norm.weight / (norm.running_var + norm.eps).sqrt())
            shifts.append(norm.bias - norm.running_mean * scales[-1])
        kernel = self.large.weight * scales[0].view(-1, 1, 1, 1)
        centre = self.small.weight * scales[1].view(-1, 1, 1, 1)
        if len(self.norms) == 3:
            centre = centre + torch.diag(scales[2])[:, :, None, None]
        return kernel + F.pad(centre, (1, 1, 1, 1)), torch.stack(shifts).sum(0)


def repvgg(
    kind: str = "a2",
    channels: int = 3,
    outputs: int = 10,
    width: float = 1.0,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.25,
) -> nn.Sequential:
    """
    Return logits, (N, ``outputs``), for images in [0, 1], (N, ``channels``, 32, 32).

    The first two of the five halvings are left out, as is usual at 32x32. In evaluation mode every block is one
    convolution, as in the network that is deployed.

    >>> repvgg(width=0.125).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if kind not in FACTORS:
        raise ValueError(f"`kind` must be one of {', '.join(FACTORS)}, got {kind!r}; others are not described")
    early, last = FACTORS[kind]
    fan_in = scaled(min(WIDTHS[0], round(WIDTHS[0] * early)), width)
    layers: list[nn.Module] = [Normalise(mean, std, channels), Block(channels, fan_in)]
    for stage, (count, full) in enumerate(zip(COUNTS, WIDTHS, strict=True)):
        fan_out = scaled(round(full * (last if stage == len(COUNTS) - 1 else early)), width)
        for block in range(count):
            layers.append(Block(fan_in, fan_out, 2 if stage and not block else 1))
            fan_in = fan_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(fan_in, outputs))
