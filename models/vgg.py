"""VGG-16 and VGG-19 with batch norm for small images (Simonyan and Zisserman 2015, configurations D and E)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.layers import Normalise, scaled

COUNTS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage, by the number of layers that have weights in the original."""
WIDTHS = (64, 128, 256, 512, 512)


def vgg(
    depth: int = 19,
    channels: int = 3,
    outputs: int = 10,
    width: float = 1.0,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.25,
) -> nn.Sequential:
    """
    Return logits, (N, ``outputs``), for images in [0, 1], (N, ``channels``, 32, 32).

    Each convolution is followed by batch norm and ReLU, each of the five stages by a pooling, and one linear layer
    stands at the end, as is usual at 32x32. ``width`` multiplies the paper's channels.

    >>> import torch
    >>> vgg(16, outputs=43, width=0.125).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 43])
    """
    if depth not in COUNTS:
        raise ValueError(f"`depth` must be one of {', '.join(map(str, COUNTS))}, got {depth}; others are not described")
    layers: list[nn.Module] = [Normalise(mean, std, channels)]
    fan_in = channels
    for count, full in zip(COUNTS[depth], WIDTHS, strict=True):
        fan_out = scaled(full, width)
        for _ in range(count):
            # Batch norm takes the mean away again, and with it a bias of the convolution.
            layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU()]
            fan_in = fan_out
        # At 32x32 no stage has an odd side; smaller images keep a pixel to the end.
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(fan_in, outputs))
