"""The traffic-sign CNN: blocks of convolution, ReLU, max pooling and batch norm (signs-adversarial)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.layers import Normalise, scaled

WIDTHS = (32, 64, 128)
HIDDEN = 256


def signs(
    channels: int = 3,
    size: int = 32,
    outputs: int = 43,
    width: float = 1.0,
    mean: float | Sequence[float] = 0.35,
    std: float | Sequence[float] = 0.27,
) -> nn.Sequential:
    """
    Return logits, (N, ``outputs``), for images in [0, 1], (N, ``channels``, ``size``, ``size``) of 8 pixels or more.

    The document names the kinds of layers and prints no sizes: three blocks and one hidden layer are ours.

    >>> import torch
    >>> signs().eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 43])
    """
    if size < 8:
        raise ValueError(f"`size` must be at least 8, got {size}: three poolings leave nothing of less")
    layers: list[nn.Module] = [Normalise(mean, std, channels)]
    fan_in = channels
    for full in WIDTHS:
        fan_out = scaled(full, width)
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(fan_out)]
        fan_in = fan_out
    hidden = scaled(HIDDEN, width)
    flat = fan_in * (size // 8) ** 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
