"""The adversarial patch (Brown et al. 2017): one square of pixels, fitted once per target model, for all images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, Strict

from robustness.errors import ModelError
from robustness.perturbations.attack import Attack
from robustness.perturbations.base import Batch, Perturb

if TYPE_CHECKING:
    from torch import Tensor

Fraction = Annotated[float, Field(gt=0, le=1)]


class Patch(Attack):
    """
    A square of pixels that replaces a part of every image, at a place of its own in each.

    A strength is the side of the square as a fraction of the image's shorter side, rounded to whole pixels, at least
    one. A square is fitted for each of ``sides``, on training images of the attacked model with Adam, which raises the
    mean loss over random images and places (Brown et al. 2017, eq. 1, without rotations). Any other side shows the
    next larger of them resized, or the largest, which misleads less: a note counts these images.

    >>> Patch().strength_range
    (0.0, 1.0)
    """

    kind: Literal["patch"] = "patch"
    loss: Literal["cross_entropy", "margin"] = "cross_entropy"
    """What is raised; of ``margin`` no more than 1 per image, so that misled images do not count further."""
    target: Annotated[int, Strict(), Field(ge=0)] | None = None
    """The index of the class that images are to be taken for; left out: any other."""
    sides: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.1, 0.2, 0.3, 0.4, 0.5)
    """The strengths that squares are fitted for: list the strengths of the sweep."""
    steps: PositiveInt = 100
    """Of the fitting of each square."""
    batch_size: PositiveInt = 64
    """Images in each of them."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    """Of Adam, in units of the pixel range."""
    family: ClassVar[str] = "attack"
    strength_name: ClassVar[str] = "s"
    meaning: ClassVar[str] = "is the side of the square, as a fraction of the shorter side of an image"
    needs_fitting: ClassVar[bool] = True

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the place of each image, (images, 2) in [0, 1): shares of the free rows and columns."""
        return generator.random((shape[0], 2), np.float32)

    def prepare(self, batch: Batch) -> Perturb:
        """Every strength pastes its square into each image."""
        import torch

        generator, places = batch.generator, batch.drawn
        if generator is None:
            raise ModelError(
                "patch needs squares fitted to the model, got None; a card's sweep fits one, otherwise call sweep() "
                "with generator=robustness.workspace.patches.fit(...)"
            )
        if places is None:
            raise ValueError("`batch.drawn` must hold the places of the square, got None; sweep() draws them")

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            each = torch.as_tensor(strength, dtype=out.dtype, device=out.device).flatten().expand(len(out))
            sides = sides_in_pixels(each, out.shape)
            fitted = sides_in_pixels(torch.tensor(self.sides), out.shape).tolist()
            out.copy_(batch.inputs)
            for side in sorted(set(sides.tolist())):
                rows = (sides == side).nonzero().flatten()
                if side:
                    square = generator(side).detach()
                    if side not in fitted:
                        batch.count("resized patches", sides == side)
                    if not bool(square.isfinite().all()):
                        batch.count("non-finite perturbations", sides == side)
                        square = square.nan_to_num(0.0)
                    out[rows] = paste(batch.inputs[rows], square, places[rows])
            return out

        return perturb


def sides_in_pixels(strengths: Tensor, shape: tuple[int, ...]) -> Tensor:
    """
    Return the side of the square in pixels for each strength, whole numbers: 0 for 0, else at least 1.

    >>> import torch
    >>> sides_in_pixels(torch.tensor([0.0, 0.01, 0.3, 1.0]), (4, 1, 8, 9)).tolist()
    [0, 1, 2, 8]
    """
    shorter = min(shape[-2:])
    rounded = (strengths * shorter).round().clamp(1, shorter)
    return rounded.masked_fill(strengths == 0, 0).long()


def paste(inputs: Tensor, square: Tensor, places: Tensor) -> Tensor:
    """
    Return images with a square of pixels at a place of each; no other pixel changes.

    Args:
        inputs: Images (N, C, H, W).
        square: Pixels (C, S, S), S at most H and W.
        places: Shares in [0, 1) of the H − S + 1 rows and W − S + 1 columns where the square may begin, (N, 2).

    Raises:
        ModelError: If the square does not fit into the images.

    >>> import torch
    >>> paste(torch.zeros(1, 1, 2, 4), torch.ones(1, 2, 2), torch.tensor([[0.0, 0.5]]))[0, 0].tolist()
    [[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]]
    """
    import torch

    (channels, side, _), (_, wanted, height, width) = square.shape, inputs.shape
    if channels != wanted or side > min(height, width):
        raise ModelError(
            f"the square must fit into images of shape {tuple(inputs.shape[1:])}, got {tuple(square.shape)}; fit it to "
            "these images"
        )
    free = torch.tensor([height - side + 1, width - side + 1], device=inputs.device)
    top, left = torch.minimum((places * free).long(), free - 1).unbind(1)
    reach = torch.arange(side, device=inputs.device)
    each = torch.arange(len(inputs), device=inputs.device)[:, None, None]
    pasted = inputs.clone()
    pasted[each, :, (top[:, None] + reach)[:, :, None], (left[:, None] + reach)[:, None, :]] = square.permute(1, 2, 0)
    return pasted
