"""VGG-19 with batch norm for 32x32 images (Simonyan and Zisserman 2015, configuration E)."""

from __future__ import annotations

from torch import nn

STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
"""How many convolutions, and how wide; a pooling after each stage."""


def vgg19(channels: int = 3, classes: int = 10, width: float = 1.0) -> nn.Sequential:
    """Give random weights: what is timed does not depend on them."""
    layers: list[nn.Module] = []
    fan_in = channels
    for count, fan_out in STAGES:
        for _ in range(count):
            layers += [nn.Conv2d(fan_in, int(width * fan_out), 3, padding=1), nn.BatchNorm2d(int(width * fan_out))]
            layers.append(nn.ReLU())
            fan_in = int(width * fan_out)
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(fan_in, classes))
