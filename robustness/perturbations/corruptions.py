"""What light, cameras and placement do to images: brightness, contrast, rotation, translation, blur."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from robustness.perturbations.base import Batch, Perturb, Perturbation

if TYPE_CHECKING:
    from torch import Tensor


class Corruption(Perturbation):
    """A transformation without a model; strength 0 returns the image itself, bit for bit."""

    family: ClassVar[str] = "natural"
    uses_model: ClassVar[bool] = False

    @abstractmethod
    def changed(self, inputs: Tensor, strength: Tensor) -> Tensor:
        """Return the images (N, C, H, W) transformed, each at its strength (N, 1, 1, 1); clipping follows."""

    def prepare(self, batch: Batch) -> Perturb:
        """Nothing is shared between strengths but the images."""
        import torch

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            each = torch.as_tensor(strength, dtype=out.dtype, device=out.device).expand(len(out), 1, 1, 1)
            changed = self.changed(batch.inputs, each).clamp(0, 1)
            return torch.where(each == 0, batch.inputs, changed, out=out)

        return perturb


class Brightness(Corruption):
    """
    x + b, b in [-1, 1].

    >>> Brightness().strength_range
    (-1.0, 1.0)
    """

    kind: Literal["brightness"] = "brightness"
    limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    strength_name: ClassVar[str] = "b"
    meaning: ClassVar[str] = "is added to every pixel"

    def changed(self, inputs: Tensor, strength: Tensor) -> Tensor:
        """Add b."""
        return inputs + strength


class Contrast(Corruption):
    """m + (1 + c)·(x − m), m the mean of the image: −1 leaves a grey image, 0 the image, 1 doubles every difference."""

    kind: Literal["contrast"] = "contrast"
    limits: ClassVar[tuple[float, float]] = (-1.0, 4.0)
    strength_name: ClassVar[str] = "c"
    meaning: ClassVar[str] = "is what is added to the factor 1"

    def changed(self, inputs: Tensor, strength: Tensor) -> Tensor:
        """Scale around the mean."""
        mean = inputs.flatten(1).mean(1).view(-1, 1, 1, 1)
        return mean + (1 + strength) * (inputs - mean)


class Rotation(Corruption):
    """A counter-clockwise rotation about the centre in degrees, with bilinear sampling and a black background."""

    kind: Literal["rotation"] = "rotation"
    limits: ClassVar[tuple[float, float]] = (-180.0, 180.0)
    strength_name: ClassVar[str] = "°"
    meaning: ClassVar[str] = "is an angle in degrees"

    def changed(self, inputs: Tensor, strength: Tensor) -> Tensor:
        """Turn."""
        import torch

        angle = torch.deg2rad(strength.flatten())
        height, width = inputs.shape[-2:]
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        # In pixels a turn; in grid_sample's coordinates, which run from -1 to 1 along each side, sheared by the sides.
        rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
        return _sampled(inputs, torch.stack(rows, 1).view(-1, 2, 3))


class Translation(Corruption):
    """A translation in pixels towards ``angle`` (degrees: 0 right, 90 up), bilinear, with a black background."""

    kind: Literal["translation"] = "translation"
    angle: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """The direction in degrees: 0 is right, 90 up."""
    limits: ClassVar[tuple[float, float]] = (0.0, math.inf)
    strength_name: ClassVar[str] = "px"
    meaning: ClassVar[str] = "is a distance in pixels"

    def changed(self, inputs: Tensor, strength: Tensor) -> Tensor:
        """Move."""
        import torch

        height, width = inputs.shape[-2:]
        distance, angle = strength.flatten(), math.radians(self.angle)
        one, zero = torch.ones_like(distance), torch.zeros_like(distance)
        across, down = -2 * math.cos(angle) / width * distance, 2 * math.sin(angle) / height * distance
        return _sampled(inputs, torch.stack([one, zero, across, zero, one, down], 1).view(-1, 2, 3))


class GaussianBlur(Corruption):
    """A Gaussian blur with a standard deviation σ in pixels; the border is extended."""

    kind: Literal["gaussian-blur"] = "gaussian-blur"
    limits: ClassVar[tuple[float, float]] = (0.0, 50.0)
    strength_name: ClassVar[str] = "σ"
    meaning: ClassVar[str] = "is a standard deviation in pixels"

    def changed(self, inputs: Tensor, strength: Tensor) -> Tensor:
        """Weigh the neighbours, along rows and then along columns."""
        import torch
        from torch.nn import functional as F

        sigma = strength.flatten()
        reach = max(1, math.ceil(4 * float(sigma.max())))
        steps = torch.arange(-reach, reach + 1, dtype=inputs.dtype, device=inputs.device)
        weights = torch.softmax(-(steps**2) / (2 * sigma[:, None].clamp(min=1e-3) ** 2), dim=1)
        images, channels, height, width = inputs.shape
        # Every image has a kernel of its own: they are the groups of one convolution.
        kernels = weights.repeat_interleave(channels, 0)
        flat = inputs.reshape(1, images * channels, height, width)
        across = F.conv2d(F.pad(flat, (reach, reach, 0, 0), "replicate"), kernels[:, None, None], groups=len(kernels))
        down = F.pad(across, (0, 0, reach, reach), "replicate")
        return F.conv2d(down, kernels[:, None, :, None], groups=len(kernels)).view_as(inputs)


def _sampled(inputs: Tensor, matrices: Tensor) -> Tensor:
    """Return the images at the places that 2x3 matrices (N, 2, 3) send each pixel to."""
    from torch.nn import functional as F

    grid = F.affine_grid(matrices, list(inputs.shape), align_corners=False)
    return F.grid_sample(inputs, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
