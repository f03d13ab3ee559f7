"""Colour images have three channels; images with any other number are grey in each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in grey (ITU-R BT.601)."""


def is_colour(images: Tensor) -> bool:
    """Return whether images (N, C, H, W) have red, green and blue."""
    return images.shape[1] == 3


def grey(images: Tensor) -> Tensor:
    """Return colour images in grey, (N, 1, H, W), and others as they are."""
    if not is_colour(images):
        return images
    return (images * torch.tensor(LUMA, device=images.device).view(3, 1, 1)).sum(1, keepdim=True)


def tinted(layer: Tensor, colour: Sequence[float], inputs: Tensor) -> Tensor:
    """Add a colour to a grey layer (N, 1, H, W), for colour images; for grey ones, the colour's grey."""
    shade = torch.tensor(colour, device=inputs.device, dtype=inputs.dtype).view(1, 3, 1, 1)
    return layer + (shade if is_colour(inputs) else grey(shade))
