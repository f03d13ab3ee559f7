"""Wide residual networks (Zagoruyko and Komodakis 2016), plain or as a Parseval network (eyes-parseval)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from models.layers import scaled
from models.parseval import Convex, orthogonal_

WIDTHS = (16, 32, 64)
Sum = Literal["plain", "convex", "sigmoid"]


class Standardise(nn.Module):
    """
    Give (x − mean) / deviation of each image by itself: an image without any contrast comes near 0.

    >>> import torch
    >>> Standardise()(torch.tensor([[[[0.25, 0.75]]]])).flatten().tolist()
    [-1.0, 1.0]
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Standardise images (N, C, H, W)."""
        axes = tuple(range(1, inputs.dim()))
        apart = inputs - inputs.mean(axes, keepdim=True)
        # Under a root its derivative has no bound at 0.
        variance = apart.square().mean(axes, keepdim=True).clamp(min=1e-10)
        return apart / variance.sqrt()


class Block(nn.Module):
    """B(3,3): batch norm, ReLU and convolution twice, and what came in beside it."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, add: Sum) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(fan_in), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(fan_out),
            nn.ReLU(),
            nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False),
        )
        same = fan_in == fan_out and stride == 1
        self.shortcut = None if same else nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)
        self.add = None if add == "plain" else Convex(sigmoid=add == "sigmoid")

    def forward(self, inputs: Tensor) -> Tensor:
        """Return feature maps of ``fan_out`` channels."""
        activated = self.before(inputs)
        beside = inputs if self.shortcut is None else self.shortcut(activated)
        found: Tensor = self.body(activated)
        return found + beside if self.add is None else self.add(found, beside)


def wrn(
    depth: int = 16,
    k: float = 1,
    channels: int = 1,
    outputs: int = 4,
    add: Sum = "plain",
    orthogonal: bool = False,
    standardise: bool = True,
) -> nn.Sequential:
    """
    Return logits, (N, ``outputs``), for images in [0, 1], (N, ``channels``, H, W), H and W multiples of 4.

    WRN-``depth``-``k``: three groups of 16k, 32k and 64k channels. A Parseval network is ``orthogonal`` at first, has
    ``add`` "convex" (or "sigmoid"), and is constrained by its optimizer (`models.parseval.constrained`). Images are
    standardised one by one.

    >>> import torch
    >>> wrn().eval()(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 4])
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"`depth` must be 6n + 4 for n blocks a group, got {depth}; the paper's is 16")
    layers: list[nn.Module] = [Standardise()] if standardise else []
    layers.append(nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False))
    fan_in = WIDTHS[0]
    for group, full in enumerate(WIDTHS):
        fan_out = scaled(full, k)
        for block in range((depth - 4) // 6):
            layers.append(Block(fan_in, fan_out, 2 if group and not block else 1, add))
            fan_in = fan_out
    head = [nn.BatchNorm2d(fan_in), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(fan_in, outputs)]
    network = nn.Sequential(*layers, *head)
    if orthogonal:
        orthogonal_(network)
    return network
