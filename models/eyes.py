"""The eye-state CNN: three blocks of convolution, max pooling and batch norm, of images that are standardised."""

from __future__ import annotations

from torch import nn

from models.signs import signs
from models.wrn import Standardise


def cnn(channels: int = 1, size: int = 32, outputs: int = 4, width: float = 1.0) -> nn.Sequential:
    """
    Return logits, (N, ``outputs``), for images in [0, 1], (N, ``channels``, ``size``, ``size``); of 8 pixels or more.

    >>> import torch
    >>> cnn().eval()(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 4])
    """
    normalise, *rest = signs(channels, size, outputs, width)
    del normalise  # by numbers of all images, where each has its own
    return nn.Sequential(Standardise(), *rest)
