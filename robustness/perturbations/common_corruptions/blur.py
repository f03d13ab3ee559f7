"""Blurs: out of focus, through glass, by a movement or a zoom during the exposure, and Gaussian."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robustness.perturbations.common_corruptions import linear_maps
from robustness.perturbations.common_corruptions.draws import Draws

# From this side on, a kernel is applied by Fourier transforms, which then take less time than its sum of products.
DIRECT = 9


def gaussian_blur(inputs: Tensor, draws: Draws, sigma: float) -> Tensor:
    """Blur with a standard deviation in pixels; the border is repeated."""
    return linear_maps.gaussian_blur(inputs, sigma)


def defocus_blur(inputs: Tensor, draws: Draws, radius: float, smoothing: float) -> Tensor:
    """Average over a disk, whose edge is smoothed; the border is mirrored."""
    kernel = disk(radius, smoothing)
    reach = len(kernel) // 2
    height, width = inputs.shape[-2:]
    rows, columns = (torch.from_numpy(np.pad(np.arange(n), reach, mode="reflect")) for n in (height, width))
    padded = inputs[:, :, rows.to(inputs.device)][..., columns.to(inputs.device)]
    return _correlated(padded, torch.from_numpy(kernel).to(inputs))


def _correlated(images: Tensor, kernel: Tensor) -> Tensor:
    """Correlate images (N, C, H, W) with a symmetric kernel (K, K), which must lie inside of them."""
    size, sides = len(kernel), images.shape[-2:]
    if size < DIRECT:
        flat = images.reshape(-1, 1, *sides)
        return F.conv2d(flat, kernel[None, None]).view(*images.shape[:2], sides[0] - size + 1, sides[1] - size + 1)
    product = torch.fft.rfft2(images) * torch.fft.rfft2(kernel, s=sides)
    result: Tensor = torch.fft.irfft2(product, s=sides)
    return result[..., size - 1 :, size - 1 :]


@functools.cache
def disk(radius: float, smoothing: float) -> np.ndarray:
    """
    Return the weights of a disk, smoothed by a Gaussian of 3 × 3 pixels (5 × 5 if the radius is above 8).

    Where a disk reaches the border of the authors' array, which is mirrored, smoothing adds up to 1.3 % to its sum. So
    their two strongest images are a little brighter, and so are these.

    >>> disk(1, 0.01).round(2).tolist()
    [[0.0, 0.2, 0.0], [0.2, 0.2, 0.2], [0.0, 0.2, 0.0]]
    """
    reach = max(8, int(np.ceil(radius)))
    steps = np.arange(-reach, reach + 1)
    inside = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(float)
    width = 1 if radius <= 8 else 2
    matrix = linear_maps.gaussian_matrix(len(steps), smoothing, "reflect", (width + 0.49) / smoothing)
    kernel: np.ndarray = matrix @ (inside / inside.sum()) @ matrix.T
    margin = int(np.flatnonzero(kernel.max(0) > 1e-9)[0])
    return kernel[margin : len(kernel) - margin, margin : len(kernel) - margin]


def glass_blur(inputs: Tensor, draws: Draws, sigma: float, distance: int, rounds: int) -> Tensor:
    """
    Blur, replace each pixel by one nearby, blur again.

    The authors' code swaps two views of an array in one assignment, which only copies the second to the first. So does
    this function: in each round, from the last pixel to the first, a pixel takes the present value of another one, at
    most ``distance`` away along each axis.
    """
    height, width = inputs.shape[-2:]
    blurred = linear_maps.gaussian_blur(inputs, sigma).flatten(2)
    for _ in range(rounds):
        steps = (draws.uniform(2, height, width) * (2 * distance)).long() - distance
        sources = _copied_from(steps, distance)[:, None].expand_as(blurred)
        blurred = blurred.gather(2, sources)
    return linear_maps.gaussian_blur(blurred.view_as(inputs), sigma)


def _copied_from(steps: Tensor, distance: int) -> Tensor:
    """
    Return for each pixel the index of the pixel whose first value it has after a round of copies, (N, H·W).

    A pixel copies a later one after that one was replaced, and an earlier one before it. Nodes 0 to M − 1 of the graph
    are replaced pixels, M to 2M − 1 first values. Doubling the length of all paths follows them to their ends.
    """
    count, _, height, width = steps.shape
    pixels = height * width
    row, column = (torch.arange(n, device=steps.device) for n in (height, width))
    inside = (row > distance) & (row <= height - distance)
    inside_row = (column > distance) & (column <= width - distance)
    replaced = (inside[:, None] & inside_row).flatten()
    own = torch.arange(pixels, device=steps.device)
    chosen = ((row[:, None] + steps[:, 0]) * width + column + steps[:, 1]).view(count, pixels)
    chosen = torch.where(replaced, chosen, own)
    follows = replaced[chosen] & (chosen > own)
    ends = torch.arange(pixels, 2 * pixels, device=steps.device).expand(count, pixels)
    path = torch.cat([torch.where(follows, chosen, chosen + pixels), ends], 1)
    while bool((path[:, :pixels] < pixels).any()):
        path = path.gather(1, path)
    return path[:, :pixels] - pixels


def motion_blur(inputs: Tensor, draws: Draws, radius: int, sigma: float) -> Tensor:
    """Blur along a direction within 45° of horizontal, drawn per image."""
    return moved(inputs, 90 * draws.uniform(1)[:, 0].double() - 45, radius, sigma)


def moved(images: Tensor, degrees: Tensor, radius: int, sigma: float) -> Tensor:
    """
    Average images (N, C, H, W) over their places along a direction, (N,); the border is repeated.

    The weights of 2·radius + 1 steps of a pixel are one half of a Gaussian, as in ImageMagick's motion blur.
    """
    height, width = images.shape[-2:]
    steps = torch.arange(2 * radius + 1, device=images.device, dtype=torch.float64)
    weights = torch.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angles = torch.deg2rad(degrees)[:, None]
    down, right = torch.ceil(steps * angles.sin() - 0.5).long(), torch.ceil(steps * angles.cos() - 0.5).long()
    within = (down.abs() < height) & (right.abs() < width)
    rows = (torch.arange(height, device=images.device) + down[..., None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + right[..., None]).clamp(0, width - 1)
    every, result = images.flatten(2), torch.zeros_like(images)
    for step in range(len(steps)):
        places = (rows[:, step, :, None] * width + columns[:, step, None]).flatten(1)
        shifted = every.gather(2, places[:, None].expand_as(every)).view_as(images)
        share = (weights[step] * within[:, step]).to(images)
        result.addcmul_(shifted, share.view(-1, 1, 1, 1))
    return result


def zoom_blur(inputs: Tensor, draws: Draws, end: float, step: float) -> Tensor:
    """Average the image and its enlargements by 1, 1 + step, … up to end."""
    height, width = inputs.shape[-2:]
    factors = np.arange(1, end, step)
    result = inputs.clone()
    for factor in factors.tolist():
        result += linear_maps.apply(
            linear_maps.zoom_matrix(height, factor), linear_maps.zoom_matrix(width, factor), inputs
        )
    return result / (len(factors) + 1)
