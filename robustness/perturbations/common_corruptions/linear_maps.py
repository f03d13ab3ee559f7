"""Blurs and resizes as matrices: each maps the rows of an image and then its columns."""

from __future__ import annotations

import functools
import math
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Border = Literal["edge", "symmetric", "reflect"]
"""NumPy's names for what lies outside: the last pixel repeated, a mirror between pixels, a mirror in the last pixel."""


def apply(rows: np.ndarray, columns: np.ndarray, images: Tensor) -> Tensor:
    """Map images (…, H, W) by matrices (H', H) and (W', W) to (…, H', W')."""
    left, right = (torch.from_numpy(matrix).to(images) for matrix in (rows, columns))
    return left @ (images @ right.T)


def gaussian_blur(images: Tensor, sigma: float, border: Border = "edge", truncate: float = 4.0) -> Tensor:
    """Blur images (…, H, W) with the standard deviation sigma, in pixels; the kernel ends at truncate·sigma."""
    height, width = images.shape[-2:]
    blur = functools.partial(gaussian_matrix, sigma=sigma, border=border, truncate=truncate)
    return apply(blur(height), blur(width), images)


@functools.lru_cache(maxsize=16)
def gaussian_matrix(size: int, sigma: float, border: Border, truncate: float) -> np.ndarray:
    """
    Return the matrix of a Gaussian blur along a side, (size, size).

    >>> gaussian_matrix(3, 0.5, "edge", 2.0).round(2).tolist()
    [[0.89, 0.11, 0.0], [0.11, 0.79, 0.11], [0.0, 0.11, 0.89]]
    """
    reach = int(truncate * sigma + 0.5)
    if reach == 0:
        return np.eye(size)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    sources = np.pad(np.arange(size), reach, mode=border)
    matrix = np.zeros((size, size))
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        np.add.at(matrix, (np.arange(size), sources[reach + step : reach + step + size]), weight)
    return matrix


def zoom_matrix(size: int, factor: float) -> np.ndarray:
    """
    Return the matrix that enlarges the middle of a side to the whole side, (size, size), linearly.

    >>> zoom_matrix(4, 2.0).round(2).tolist()  # of the four pixels between the two in the middle
    [[0.0, 1.0, 0.0, 0.0], [0.0, 0.67, 0.33, 0.0], [0.0, 0.33, 0.67, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    crop = math.ceil(size / factor)
    top, enlarged = (size - crop) // 2, round(crop * factor)
    first = (enlarged - size) // 2
    places = (np.arange(size) + first) * ((crop - 1) / max(enlarged - 1, 1))
    before = np.minimum(places.astype(int), crop - 1)
    share = places - before
    matrix = np.zeros((size, size))
    matrix[np.arange(size), top + before] = 1 - share
    matrix[np.arange(size), top + np.minimum(before + 1, crop - 1)] += share
    return matrix


def pixelate_matrix(size: int, fraction: float) -> np.ndarray:
    """
    Return the matrix that shrinks a side to a fraction and enlarges it again, both by Pillow's box filter.

    >>> pixelate_matrix(4, 0.5).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5]]
    """
    small = max(1, int(size * fraction))
    columns = Image.fromarray(np.eye(size, dtype=np.float32))
    return np.array(columns.resize((size, small), Image.Resampling.BOX).resize((size, size), Image.Resampling.BOX))
