"""The two-layer perceptron of the digits-noise paper, section 5: 784-512-512-10, ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(inputs: int = 784, hidden: Sequence[int] = (512, 512), classes: int = 10) -> nn.Sequential:
    """
    Give logits for images in [0, 1], (N, C, H, W) with C·H·W = ``inputs``.

    The paper divides pixels by 255 and does nothing else to them, so there is no normalisation layer.

    >>> import torch
    >>> mlp()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise((inputs, *hidden)):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1] if hidden else inputs, classes))
