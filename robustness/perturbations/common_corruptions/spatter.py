"""Spatter of water or mud on the lens, with the edge detector and the distance that its water needs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robustness.perturbations.common_corruptions import linear_maps
from robustness.perturbations.common_corruptions.colour import tinted
from robustness.perturbations.common_corruptions.draws import Draws

WATER, MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)
FARTHEST = 20
"""Distances from an edge count up to this many pixels."""
RELIEF = ((-2.0, -1.0, 0.0), (-1.0, 1.0, 1.0), (0.0, 1.0, 2.0))
"""The authors' filter that lights the drops from one side."""


def spatter(
    inputs: Tensor, draws: Draws, mean: float, scale: float, sigma: float, threshold: float, amount: float, mud: int
) -> Tensor:
    """Cover what exceeds a threshold in smooth noise: with water (mud 0), lit by its relief, or with mud."""
    # In double precision: thresholds would turn a last bit that depends on the batch into another drop.
    noise = mean + scale * draws.normal(1, *inputs.shape[-2:]).double()
    liquid = linear_maps.gaussian_blur(noise, sigma)
    if mud:
        cover = linear_maps.gaussian_blur((liquid > threshold).double(), amount)
        cover = torch.where(cover < 0.8, 0, cover).to(inputs)
        return inputs * (1 - cover) + cover * tinted(torch.zeros_like(cover), MUD, inputs)
    bytes_ = (torch.where(liquid < threshold, 0, liquid) * 255).floor().clamp(0, 255).to(inputs)
    drops = bytes_ * relief(bytes_).to(inputs)
    drops = drops / drops.amax((2, 3), keepdim=True).clamp(min=1e-6)
    return inputs + amount * drops * tinted(torch.zeros_like(drops), WATER, inputs)


def relief(liquid: Tensor) -> Tensor:
    """Return the light on drops (N, 1, H, W) of 0 to 255, from the distances to their edges."""
    nine = torch.ones(3, 3)
    distance = distances(edges(liquid)).clamp(max=FARTHEST)
    # Sums of whole numbers are exact in double precision, so that a mean of 3 is not cut to 2.
    equalised = equalise((_filtered(distance.double(), nine) / 9).floor())
    lit = _filtered(equalised, torch.tensor(RELIEF)).clamp(0, 255)
    return (_filtered(lit, nine) / 9).round()


def _filtered(images: Tensor, kernel: Tensor, border: str = "reflect") -> Tensor:
    """Correlate images (N, 1, H, W) with a kernel 3 × 3; ``border`` is mirrored in the last pixel, or repeated."""
    if border == "reflect" and min(images.shape[-2:]) < 2:
        border = "replicate"  # one pixel has no other to mirror
    return F.conv2d(F.pad(images, (1, 1, 1, 1), border), kernel.to(images)[None, None])


def edges(images: Tensor, low: float = 50, high: float = 150) -> Tensor:
    """
    Find edges as Canny does (1986), in images (N, 1, H, W) of 0 to 255; boolean.

    Sobel's gradients, |gx| + |gy|, not smoothed. An edge is a maximum along its gradient above ``high``, or one above
    ``low`` that is connected to such a one.
    """
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    gx, gy = (_filtered(images, kernel, "replicate") for kernel in (sobel, sobel.T))
    size = gx.abs() + gy.abs()
    ring = F.pad(size, (1, 1, 1, 1))
    height, width = size.shape[-2:]

    def neighbour(down: int, right: int) -> Tensor:
        return ring[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    # The gradient's direction in steps of 45°: tan 22.5° = 0.414, tan 67.5° = 2.414.
    flat, steep = gy.abs() < 0.41421356 * gx.abs(), gy.abs() > 2.41421356 * gx.abs()
    falling = (gx < 0) == (gy < 0)
    diagonal = torch.where(
        falling,
        (size > neighbour(-1, -1)) & (size > neighbour(1, 1)),
        (size > neighbour(-1, 1)) & (size > neighbour(1, -1)),
    )
    horizontal = (size > neighbour(0, -1)) & (size >= neighbour(0, 1))
    vertical = (size > neighbour(-1, 0)) & (size >= neighbour(1, 0))
    thin = torch.where(flat, horizontal, torch.where(steep, vertical, diagonal)) & (size > low)
    found = thin & (size > high)
    while True:
        grown = thin & (F.max_pool2d(found.float(), 3, 1, 1) > 0)
        if torch.equal(grown, found):
            return found
        found = grown


def distances(marked: Tensor) -> Tensor:
    """
    Return each pixel's Euclidean distance to the nearest marked one, up to about FARTHEST, (N, 1, H, W).

    >>> distances(torch.tensor([[[[False, True, False, False]]]])).flatten().tolist()
    [1.0, 0.0, 1.0, 2.0]
    """
    squares = torch.where(marked, 0.0, float((FARTHEST + 1) ** 2))
    for dimension in (2, 3):
        size = squares.shape[dimension]
        nearest = squares.clone()
        for step in range(1, min(FARTHEST, size - 1) + 1):
            after, before = squares.narrow(dimension, step, size - step), squares.narrow(dimension, 0, size - step)
            for target, source in ((nearest.narrow(dimension, 0, size - step), after),
                                   (nearest.narrow(dimension, step, size - step), before)):  # fmt: skip
                torch.minimum(target, source + step**2, out=target)
        squares = nearest
    return squares.sqrt()


def equalise(images: Tensor) -> Tensor:
    """Spread the grey values of each image (N, 1, H, W), 0 to 255, evenly, as OpenCV's equalizeHist."""
    flat = images.flatten(1).long()
    counts = torch.zeros(len(flat), 256, device=images.device).scatter_add_(1, flat, torch.ones_like(flat).float())
    sums = counts.cumsum(1)
    lowest = flat.amin(1, keepdim=True)
    first = counts.gather(1, lowest)
    # An image of one grey stays as it is.
    scale = 255 / (flat.shape[1] - first)
    table = torch.where(first == flat.shape[1], torch.arange(256.0, device=images.device), (sums - first) * scale)
    return table.clamp(0, 255).round().gather(1, flat).view_as(images).to(images)
