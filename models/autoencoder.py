"""The convolutional denoising autoencoder that stands before a classifier (label-2n: CDAEC)."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers import scaled

WIDTHS = (64, 32)


class Autoencoder(nn.Sequential):
    """Give images in [0, 1] of the shape that came in."""

    def __init__(self, channels: int = 3, width: float = 1.0) -> None:
        first, second = (scaled(full, width) for full in WIDTHS)
        super().__init__(
            nn.Conv2d(channels, first, 3, padding=1),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Conv2d(second, first, 3, padding=1),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Upsample(scale_factor=2.0, mode="nearest"),
            nn.Conv2d(first, channels, 3, padding=1),
            nn.Sigmoid(),
        )


class Denoised(nn.Module):
    """
    A classifier that sees what an autoencoder makes of its images.

    >>> import torch
    >>> Denoised(Autoencoder(1), nn.Flatten())(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 16])
    """

    def __init__(self, autoencoder: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.classifier = classifier

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the classifier's logits for the denoised images."""
        logits: Tensor = self.classifier(self.autoencoder(inputs))
        return logits
