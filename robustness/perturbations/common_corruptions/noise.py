"""Noise of cameras: Gaussian, shot, impulse and speckle noise, independent for every channel of every pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from robustness.perturbations.common_corruptions.draws import Draws


def gaussian_noise(inputs: Tensor, draws: Draws, scale: float) -> Tensor:
    """Add scale·R, R standard normal."""
    return inputs + scale * draws.normal(*inputs.shape[1:])


def shot_noise(inputs: Tensor, draws: Draws, photons: float) -> Tensor:
    """Count photons: Poisson(x·photons)/photons."""
    return draws.poisson(inputs * photons) / photons


def impulse_noise(inputs: Tensor, draws: Draws, fraction: float) -> Tensor:
    """Set a fraction of the values to 0 or 1, equally often."""
    drawn = draws.uniform(*inputs.shape[1:])
    return torch.where(drawn < fraction, (drawn < fraction / 2).to(inputs), inputs)


def speckle_noise(inputs: Tensor, draws: Draws, scale: float) -> Tensor:
    """Add x·scale·R, R standard normal."""
    return inputs + inputs * scale * draws.normal(*inputs.shape[1:])
