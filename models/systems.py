"""Factories of what is made of several networks: a classifier behind an autoencoder, or beside a detector."""

from __future__ import annotations

from typing import Any

from models.autoencoder import Autoencoder, Denoised
from models.defences.detector import Filtered
from models.vgg import vgg


def denoised(channels: int = 3, outputs: int = 10, width: float = 1.0, **classifier: Any) -> Denoised:
    """Return VGG-19 behind an autoencoder, both at a width."""
    return Denoised(Autoencoder(channels, width), vgg(19, channels, outputs, width, **classifier))


def filtered(channels: int = 3, outputs: int = 10, width: float = 1.0, **classifier: Any) -> Filtered:
    """Return VGG-19 beside a VGG-16 of two outputs, both at a width."""
    return Filtered(vgg(19, channels, outputs, width, **classifier), vgg(16, channels, 2, width, **classifier))


def denoised_and_filtered(channels: int = 3, outputs: int = 10, width: float = 1.0, **classifier: Any) -> Filtered:
    """Return VGG-19 behind an autoencoder, and beside a VGG-16 of two outputs that sees the images as they are."""
    return Filtered(denoised(channels, outputs, width, **classifier), vgg(16, channels, 2, width, **classifier))
