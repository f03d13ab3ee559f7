"""A small network with batch norm for images of 28x28, and the systems made of it: to see in seconds that all works."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from models.autoencoder import Autoencoder, Denoised
from models.defences.detector import Filtered
from models.layers import Normalise, scaled

WIDTHS = (16, 32)


def small(
    channels: int = 1,
    size: int = 28,
    outputs: int = 10,
    width: float = 1.0,
    mean: float | Sequence[float] = 0.3,
    std: float | Sequence[float] = 0.35,
) -> nn.Sequential:
    """
    Return logits, (N, ``outputs``), for images in [0, 1], (N, ``channels``, ``size``, ``size``); size a multiple of 4.

    >>> import torch
    >>> small(outputs=20).eval()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 20])
    """
    if size % 4:
        raise ValueError(f"`size` must be a multiple of 4, got {size}; resize the images")
    layers: list[nn.Module] = [Normalise(mean, std, channels)]
    fan_in = channels
    for full in WIDTHS:
        fan_out = scaled(full, width)
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        fan_in = fan_out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(fan_in * (size // 4) ** 2, outputs))


def denoised(channels: int = 1, outputs: int = 10, width: float = 1.0, **classifier: Any) -> Denoised:
    """Return the network behind an autoencoder."""
    return Denoised(Autoencoder(channels, width / 4), small(channels, outputs=outputs, width=width, **classifier))


def filtered(channels: int = 1, outputs: int = 10, width: float = 1.0, **classifier: Any) -> Filtered:
    """Return two of the network side by side, the second with two outputs."""
    return Filtered(
        small(channels, outputs=outputs, width=width, **classifier),
        small(channels, outputs=2, width=width, **classifier),
    )


def denoised_and_filtered(channels: int = 1, outputs: int = 10, width: float = 1.0, **classifier: Any) -> Filtered:
    """Return the network behind an autoencoder, and beside one of two outputs that sees the images as they are."""
    return Filtered(
        denoised(channels, outputs, width, **classifier),
        small(channels, outputs=2, width=width, **classifier),
    )
