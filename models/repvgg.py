"""RepVGG: trained with three branches a block, used as plain 3x3 convolutions (Ding et al. 2021)."""

from __future__ import annotations

import copy
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


class Block(nn.Module):
    """ReLU of the sum of a 3x3 and a 1x1 convolution and, where shapes allow, of the input, each with batch norm."""

    def __init__(self, fan_in: int, fan_out: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.large = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.small = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)
        same = fan_in == fan_out and stride == 1
        self.norms = nn.ModuleList(nn.BatchNorm2d(fan_out) for _ in range(3 if same else 2))

    def forward(self, inputs: Tensor) -> Tensor:
        """Give feature maps of ``fan_out`` channels."""
        found: Tensor = self.norms[0](self.large(inputs)) + self.norms[1](self.small(inputs))
        if len(self.norms) == 3:
            found = found + self.norms[2](inputs)
        return F.relu(found)

    @torch.no_grad()
    def plain(self) -> nn.Sequential:
        """Give one 3x3 convolution, with a bias, and ReLU that compute the same in evaluation mode (section 3.3)."""
        fan_out, fan_in = self.large.weight.shape[:2]
        kernels = [self.large.weight, F.pad(self.small.weight, (1, 1, 1, 1))]
        if len(self.norms) == 3:
            kernels.append(F.pad(torch.eye(fan_in).to(self.large.weight).view(fan_in, fan_in, 1, 1), (1, 1, 1, 1)))
        convolution = nn.Conv2d(fan_in, fan_out, 3, self.stride, padding=1).to(self.large.weight)
        weight, bias = torch.zeros_like(convolution.weight), torch.zeros(fan_out).to(self.large.weight)
        for kernel, norm in zip(kernels, self.norms, strict=True):
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight += kernel * factor.view(-1, 1, 1, 1)
            bias += norm.bias - norm.running_mean * factor
        convolution.weight.copy_(weight)
        assert convolution.bias is not None
        convolution.bias.copy_(bias)
        return nn.Sequential(convolution, nn.ReLU())


def repvgg(
    kind: str = "a2",
    channels: int = 3,
    outputs: int = 10,
    width: float = 1.0,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.25,
) -> nn.Sequential:
    """
    Give logits, (N, ``outputs``), for images in [0, 1], (N, ``channels``, 32, 32).

    The first two of the five halvings are left out, as is usual at 32x32. `plain` makes of a trained one the network
    that is deployed.

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


def plain(module: nn.Module) -> nn.Module:
    """
    Give a copy with every block as one convolution, in evaluation mode: the same logits, fewer layers.

    >>> small, inputs = repvgg(width=0.05).eval(), torch.rand(1, 3, 32, 32)
    >>> torch.allclose(plain(small)(inputs), small(inputs), atol=1e-5)
    True
    """
    found = copy.deepcopy(module).eval()
    for parent in list(found.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Block):
                setattr(parent, name, child.plain())
    return found
