"""A small convolutional network, two blocks of convolution and pooling: a partner for the perceptron in transfer."""

from __future__ import annotations

from torch import nn


def cnn(channels: int = 1, size: int = 28, width: int = 16, classes: int = 10) -> nn.Sequential:
    """
    Return logits for images in [0, 1], (N, ``channels``, ``size``, ``size``); ``size`` is a multiple of 4.

    >>> import torch
    >>> cnn()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    if size % 4:
        raise ValueError(f"`size` must be a multiple of 4, got {size}; resize the images")
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (size // 4) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )
