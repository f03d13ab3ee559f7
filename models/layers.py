"""What the architectures share: normalisation as the first layer, and widths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """
    Give (x − mean) / std of each channel: inside the model, so that a budget means the same for every one.

    >>> Normalise(0.5, 0.25, 1)(torch.ones(1, 1, 1, 1)).item()
    2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float], channels: int) -> None:
        super().__init__()
        for name, given in (("mean", mean), ("std", std)):
            values = torch.tensor(given, dtype=torch.float32).flatten()
            if len(values) not in (1, channels):
                raise ValueError(f"`{name}` must be one number, or one for each of {channels} channels, got {given}")
            if name == "std" and not (values > 0).all():
                raise ValueError(f"`std` must be above 0, got {given}; measure it on the training images")
            self.register_buffer(name, values.expand(channels).clone().view(-1, 1, 1), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise images (N, C, H, W)."""
        return (inputs - self.mean) / self.std


def scaled(full: int, width: float) -> int:
    """
    Return a number of channels at a width: the paper's at 1, at least one.

    >>> scaled(64, 1.0), scaled(64, 0.125)
    (64, 8)
    """
    if not width > 0:
        raise ValueError(f"`width` must be above 0, got {width}; 1 is the paper's")
    return max(1, round(width * full))
