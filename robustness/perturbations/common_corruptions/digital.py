"""Digital processing: brightness, contrast, saturation, pixels, JPEG, and elastic distortion."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from robustness.perturbations.common_corruptions import linear_maps
from robustness.perturbations.common_corruptions.colour import is_colour
from robustness.perturbations.common_corruptions.draws import Draws


def brightness(inputs: Tensor, draws: Draws, amount: float) -> Tensor:
    """Add to the value of HSV: hue and saturation stay, so all channels of a pixel are scaled alike."""
    if not is_colour(inputs):
        return inputs + amount
    value = inputs.amax(1, keepdim=True)
    brighter = (value + amount).clamp(0, 1)
    return torch.where(value > 0, inputs * (brighter / value.clamp(min=1e-6)), brighter)


def saturate(inputs: Tensor, draws: Draws, factor: float, amount: float) -> Tensor:
    """
    Scale the saturation S of HSV to clip(factor·S + amount, 0, 1).

    A grey pixel of a colour image has hue 0 and turns red if amount > 0, as in the authors' code. Grey images have no
    saturation and stay as they are.
    """
    if not is_colour(inputs):
        return inputs
    value = inputs.amax(1, keepdim=True)
    chroma = value - inputs  # value · saturation, or less in the channels between
    saturation = chroma.amax(1, keepdim=True) / value.clamp(min=1e-6)
    changed = (saturation * factor + amount).clamp(0, 1)
    red = torch.tensor([0.0, 1.0, 1.0], device=inputs.device).view(3, 1, 1) * value
    full = torch.where(saturation > 0, chroma / saturation.clamp(min=1e-6), red)
    return value - changed * full


def contrast(inputs: Tensor, draws: Draws, factor: float) -> Tensor:
    """Scale the differences from each channel's mean."""
    mean = inputs.mean((2, 3), keepdim=True)
    return mean + factor * (inputs - mean)


def pixelate(inputs: Tensor, draws: Draws, fraction: float) -> Tensor:
    """Shrink the image to a fraction of its sides, and enlarge it again."""
    height, width = inputs.shape[-2:]
    rows, columns = linear_maps.pixelate_matrix(height, fraction), linear_maps.pixelate_matrix(width, fraction)
    return linear_maps.apply(rows, columns, inputs)


def jpeg_compression(inputs: Tensor, draws: Draws, quality: int) -> Tensor:
    """Round to bytes, and compress by Pillow: a colour image as one picture, of other images each channel."""
    pixels = (inputs * 255).round().clamp(0, 255).to(torch.uint8).cpu()
    if is_colour(inputs):
        pictures = [_compressed(image, quality) for image in pixels.permute(0, 2, 3, 1).numpy()]
        result = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    else:
        pictures = [_compressed(channel, quality) for channel in pixels.flatten(0, 1).numpy()]
        result = torch.from_numpy(np.stack(pictures)).view_as(pixels)
    return result.to(inputs) / 255


def _compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def elastic_transform(inputs: Tensor, draws: Draws, distance: float, smoothness: float, shear: float) -> Tensor:
    """
    Map three points of the image to places nearby, affinely; then shift each pixel by a smooth random field.

    Args:
        inputs: Images (N, C, H, W).
        draws: Their random numbers.
        distance: The factor of the random field, which is uniform in ±1 before it is smoothed.
        smoothness: The standard deviation of the Gaussian that smooths it.
        shear: The largest distance along each axis that the three points are moved.

    All lengths are fractions of the image's shorter side. Sampling is bilinear, and the border is mirrored.
    """
    height, width = inputs.shape[-2:]
    side = min(height, width)
    places = _grid(height, width, inputs) @ _affine(draws, height, width, shear * side).mT.to(inputs)
    sheared = _sampled(inputs, places.view(-1, height, width, 2), mirror="pixel")
    field = 2 * draws.uniform(2, height, width) - 1
    if distance == 0:
        return sheared
    field = linear_maps.gaussian_blur(field, smoothness * side, "symmetric", truncate=3) * distance * side
    shifted = _grid(height, width, inputs)[:, :2].view(height, width, 2) + field.permute(0, 2, 3, 1)
    return _sampled(sheared, shifted, mirror="edge")


def _grid(height: int, width: int, like: Tensor) -> Tensor:
    """Return the columns x, the rows y and 1 of all pixels, (H·W, 3)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], -1).view(-1, 3).to(like)


def _affine(draws: Draws, height: int, width: int, reach: float) -> Tensor:
    """Return matrices (N, 2, 3) from places in the sheared images to places in the images, (x, y) in pixels."""
    # The authors' points: (height, width) for (x, y) of the centre, which differ only in images that are not square.
    first, second = height // 2, width // 2
    arm = max(1, min(height, width) // 3)
    before = [[first + arm, second + arm], [first + arm, second - arm], [first - arm, second - arm]]
    points = torch.tensor(before, dtype=torch.float64, device=draws.device)
    after = points + reach * (2 * draws.uniform(3, 2).double() - 1)
    ones = torch.ones(3, 1, dtype=torch.float64, device=draws.device)
    sources = torch.cat([after, ones.expand(len(after), 3, 1)], 2)
    # Three points that fall on a line would have no map; their pseudo-inverse then squeezes the image.
    matrices: Tensor = torch.linalg.pinv(sources) @ points
    return matrices.mT


def _sampled(images: Tensor, places: Tensor, mirror: str) -> Tensor:
    """Return images at places (N, H, W, 2), x and y in pixels, mirrored in the last pixel or behind it ("edge")."""
    sides = torch.tensor([images.shape[-1], images.shape[-2]], device=images.device)
    corners = mirror == "pixel"
    scaled = 2 * places / (sides - 1).clamp(min=1) - 1 if corners else (2 * places + 1) / sides - 1
    return F.grid_sample(images, scaled, mode="bilinear", padding_mode="reflection", align_corners=corners)
