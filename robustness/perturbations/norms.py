"""Budgets: how much of an image may change, in a norm."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class Budget(BaseModel):
    """
    How much may change: L∞ and L2 in units of the pixel range, L0 in features (one channel of one pixel).

    >>> Budget(norm="linf", size=0.1).project(np.zeros((1, 1, 1, 2)), np.array([[[[0.5, -0.5]]]])).tolist()
    [[[[0.1, 0.0]]]]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    norm: Literal["linf", "l2", "l0"] = "linf"
    """How size is measured."""
    size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """The largest norm of a perturbation: a fraction of the pixel range, or for l0 a number of features."""

    def project(self, images: np.ndarray, changed: np.ndarray) -> np.ndarray:
        """Project changed images (N, C, H, W) into the ball around the images, then clip them to [0, 1]."""
        delta = changed - images
        flat = delta.reshape(len(delta), -1)
        if self.norm == "linf":
            flat = np.clip(flat, -self.size, self.size)
        elif self.norm == "l2":
            length = np.linalg.norm(flat, axis=1, keepdims=True)
            flat = flat * np.minimum(1, self.size / np.maximum(length, 1e-12))
        elif flat.shape[1] > (most := int(self.size)):
            least = -np.sort(-np.abs(flat), axis=1)[:, most : most + 1]
            flat = np.where(np.abs(flat) > least, flat, 0)
        clipped: np.ndarray = np.clip(images + flat.reshape(delta.shape), 0, 1).astype(images.dtype)
        return clipped
