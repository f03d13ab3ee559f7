"""The two-layer perceptron of the digits-noise paper, section 5: 784-512-512-10, ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn


def mlp(
    inputs: int = 784,
    hidden: Sequence[int] = (512, 512),
    classes: int = 10,
    initial_weights: Literal["torch", "keras"] = "torch",
) -> nn.Sequential:
    """
    Return a network that maps images in [0, 1], (N, C, H, W) with C·H·W = ``inputs``, to logits, (N, ``classes``).

    The paper divides pixels by 255 and does nothing else to them, so there is no normalisation layer. It does not name
    its initial weights; ``keras`` are the defaults of its library: Glorot's uniform distribution, biases 0.

    >>> import torch
    >>> mlp()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise((inputs, *hidden)):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(hidden[-1] if hidden else inputs, classes))
    if initial_weights == "keras":
        for layer in network:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    elif initial_weights != "torch":
        raise ValueError(f"`initial_weights` must be torch or keras, got {initial_weights!r}")
    return network
