"""
A fully connected network of images that are standardised, plain or as a Parseval network (eyes-parseval).

Without convolutions and batch norm the Parseval constraint does what its name promises: with singular values of at
most 1 the logits change by no more than the standardised image, in the Euclidean norm.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.layers import scaled
from models.mlp import mlp
from models.parseval import orthogonal_
from models.wrn import Standardise


def dense(
    channels: int = 1,
    size: int = 32,
    outputs: int = 4,
    width: float = 1.0,
    hidden: Sequence[int] = (512, 512),
    orthogonal: bool = False,
) -> nn.Sequential:
    """
    Return logits, (N, ``outputs``), of images in [0, 1], (N, ``channels``, ``size``, ``size``).

    ``orthogonal`` draws weights whose singular values are all 1, as a Parseval network begins.

    >>> import torch
    >>> dense().eval()(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 4])
    """
    layers = mlp(channels * size * size, [scaled(full, width) for full in hidden], outputs)
    network = nn.Sequential(Standardise(), *layers)
    if orthogonal:
        orthogonal_(network)
    return network
