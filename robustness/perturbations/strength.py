"""The strength of a perturbation: a number, a random number per image, or a signal-to-noise ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from robustness.perturbations.base import Perturb, Perturbation, Step

if TYPE_CHECKING:
    from torch import Tensor

Unit = Literal["default", "snr", "snr-std", "image-std"]
"""
``default``: the perturbation's own number (V, ε, k). ``snr``: dB, 20·log10(‖x‖₂/‖δ‖₂), for each image. For a model that
standardises each image, what it sees: ``snr-std``, the same of x without its mean, and ``image-std``, the own number in
standard deviations of the image's pixels.
"""
RATIOS = ("snr", "snr-std")
"""Units in which 0 is not the clean image."""

SNR_TOLERANCE = 0.01
"""How far in dB an image's ratio may lie from the one asked for."""


class StrengthDistribution(BaseModel):
    """
    A strength for every image: U(low, high), and 0 for a fraction ``clean_fraction`` of the images.

    >>> spread = StrengthDistribution(uniform=(0.0, 0.5), clean_fraction=0.5)
    >>> spread.name
    'U(0,0.5)+0.5clean'
    >>> drawn = spread.draw(np.random.default_rng(0), 1000)
    >>> bool(0.4 < (drawn == 0).mean() < 0.6), bool(drawn.max() <= 0.5)
    (True, True)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    uniform: tuple[float, float]
    """The least and the largest strength that an image may draw."""
    clean_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The fraction of images that get strength 0."""

    @model_validator(mode="after")
    def _ordered(self) -> StrengthDistribution:
        if not self.uniform[0] < self.uniform[1]:
            raise ValueError(f"`uniform` must be [low, high] with low < high, got {list(self.uniform)}")
        return self

    @property
    def name(self) -> str:
        """The strength's name in ids and tables."""
        low, high = self.uniform
        return f"U({low:g},{high:g})" + (f"+{self.clean_fraction:g}clean" if self.clean_fraction else "")

    def draw(self, generator: np.random.Generator, size: int) -> np.ndarray:
        """Draw one strength per image, float32."""
        low, high = self.uniform
        # Drawn in pairs, so that an image's strength does not depend on how many follow it.
        share, position = generator.random((size, 2)).T
        values = np.where(share < self.clean_fraction, 0, low + (high - low) * position)
        return values.astype(np.float32)


Strength = Annotated[float, Strict()] | StrengthDistribution


def name(strength: Strength) -> str:
    """
    Write a strength as ids and tables show it.

    >>> name(0.30000000000000004), name(1.0), name(0)
    ('0.3', '1', '0')
    """
    return strength.name if isinstance(strength, StrengthDistribution) else f"{strength + 0.0:g}"  # so that -0.0 is 0


def check(strengths: Sequence[Strength], perturbation: Perturbation, unit: Unit = "default") -> tuple[Strength, ...]:
    """
    Return the strengths as a tuple; ValueError names the first invalid one.

    >>> from robustness.perturbations import GaussianNoise
    >>> check([0.1, 1.5], GaussianNoise())
    Traceback (most recent call last):
        ...
    ValueError: `strengths` of gaussian must lie in [0, 1], got 1.5; V is a fraction of the pixel range
    """
    if not strengths:
        raise ValueError("`strengths` must name at least one strength, got none")
    if unit in RATIOS and not isinstance(perturbation, Step):
        raise ValueError(
            f"`unit` of {perturbation.kind} must be default, got {unit}: its change of an image may not grow with its "
            "strength, so no ratio can be searched; only noise, fgsm and advgan have one"
        )
    if unit == "image-std" and not perturbation.scalable:
        raise ValueError(
            f"`unit` of {perturbation.kind} must be default, got image-std: its strength is not a size of pixel changes"
        )
    _check_kind(strengths, perturbation, unit)
    low, high = perturbation.strength_range if unit not in RATIOS else (-60.0, 200.0)
    for strength in strengths:
        for value in strength.uniform if isinstance(strength, StrengthDistribution) else (strength,):
            if not (math.isfinite(value) and low <= value <= high):
                what = f"{perturbation.strength_name} {perturbation.meaning}" if unit not in RATIOS else "dB"
                raise ValueError(
                    f"`strengths` of {perturbation.kind} must lie in [{low:g}, {high:g}], got {value:g}; {what}"
                )
    if unit in RATIOS and any(
        isinstance(strength, StrengthDistribution) and strength.clean_fraction for strength in strengths
    ):
        raise ValueError(
            "`clean_fraction` of strengths in dB must be 0: a clean image has no ratio; use a separate sweep for "
            "clean images"
        )
    names = [name(strength) for strength in strengths]
    if repeated := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(f"`strengths` must differ from each other, got {', '.join(repeated)} more than once")
    return tuple(strengths)


def _check_kind(strengths: Sequence[Strength], perturbation: Perturbation, unit: Unit) -> None:
    """Raise ValueError for strengths that accumulated noise or a certificate does not have."""
    if getattr(perturbation, "accumulate", False) and (
        unit != "default" or any(isinstance(s, StrengthDistribution) for s in strengths)
    ):
        raise ValueError(
            f"`accumulate` of {perturbation.kind} must be false for strengths in another unit or drawn per image: its "
            "noise is accumulated over the sweep's own strengths"
        )
    if perturbation.certifies and 0 in strengths:
        raise ValueError(
            f"`strengths` of {perturbation.kind} must be above 0, got 0, which in every sweep is the model itself, "
            "without noise; write 0.001"
        )
    for strength in strengths:
        if perturbation.whole and (isinstance(strength, StrengthDistribution) or not float(strength).is_integer()):
            raise ValueError(
                f"`strengths` of {perturbation.kind} must be whole numbers, got {name(strength)}; "
                f"{perturbation.strength_name} {perturbation.meaning}"
            )


def signal_to_noise_ratio(inputs: Tensor, perturbed: Tensor) -> Tensor:
    """Return 20·log10(‖x‖₂/‖δ‖₂) in dB for each image: inf if nothing changed, −inf if the image is zero."""
    return to_decibels(l2_norm(inputs), l2_norm(perturbed - inputs))


def deviations(images: Tensor) -> Tensor:
    """
    Return the standard deviation of each image's pixels, all channels together, shaped to multiply images with.

    >>> import torch
    >>> deviations(torch.tensor([[[[0.25, 0.75]]]])).tolist()
    [[[[0.25]]]]
    """
    return images.flatten(1).std(1, correction=0).view(-1, *(1,) * (images.dim() - 1))


def convert_unit(unit: Unit, perturb: Perturb, inputs: Tensor) -> Perturb:
    """Return a function that takes strengths in this unit; deviations are computed once, ratios per strength."""
    if unit != "image-std":
        return perturb
    each = deviations(inputs)
    return lambda strength, out: perturb(strength * each, out)


def pixel_snr(unit: Unit, inputs: Tensor, ratio: float | Tensor) -> Tensor:
    """
    Convert a ratio in a unit to the ratio of the pixels per image, (N,) in dB.

    An image of one grey has no contrast, so no ratio can be reached.

    >>> import torch
    >>> image = torch.tensor([[[[0.5, 0.7]]]])  # √(0.5² + 0.7²) = 0.860, without its mean 0.141: 15.7 dB less
    >>> round(pixel_snr("snr-std", image, 20.0).item(), 1)
    35.7
    """
    import torch

    ratios = torch.as_tensor(ratio, dtype=inputs.dtype, device=inputs.device).flatten().expand(len(inputs))
    if unit == "snr":
        return ratios
    return ratios + to_decibels(
        l2_norm(inputs), l2_norm(inputs - inputs.flatten(1).mean(1).view(-1, *(1,) * (inputs.dim() - 1)))
    )


def l2_norm(images: Tensor) -> Tensor:
    """Return ‖x‖₂ of each image, (N,)."""
    import torch

    norms: Tensor = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return norms


def clipped_l2_distances(inputs: Tensor, signs: Tensor, sizes: Sequence[float]) -> Tensor:
    """
    Return ‖clip(x + s·signs) − x‖₂ of each 8-bit image for each size s, (sizes, N), without computing the images.

    A pixel that may change by r changes by min(s, r). There are only 256 levels of r, so that one table holds
    all the squares, and one pass over the pixels adds them up for all sizes.

    >>> import torch
    >>> image, signs = torch.tensor([[[[1.0, 0.2, 0.0]]]]), torch.tensor([[[[1.0, -1.0, 0.0]]]])
    >>> [round(distance, 4) for distance in clipped_l2_distances(image, signs, [0.1, 0.5]).flatten().tolist()]
    [0.1, 0.2]
    """
    import torch

    # 2·255·(½ − x)·sign is odd between −255 and 255, 0 where the sign is 0; half of it and 127.5 are the levels of r.
    room = torch.arange(511, device=inputs.device) / 510
    room[255] = 0
    squares = torch.minimum(room[:, None], torch.tensor(sizes, device=inputs.device)).square()
    distances = inputs.new_empty(len(inputs), len(sizes))
    for some, here, to in zip(*(torch.split(each, TOGETHER) for each in (inputs, signs, distances)), strict=True):
        index = torch.sub(255, some, alpha=510).mul_(here).add_(255.5).flatten(1).int()
        torch.sqrt(torch.nn.functional.embedding_bag(index, squares, mode="sum"), out=to)
    return distances.t()


TOGETHER = 250
"""Images whose levels are looked up together: few, for what lies between is as large as they are, twice."""


def to_decibels(signal: Tensor, noise: Tensor) -> Tensor:
    """Return 20·log10(signal/noise), sizes both."""
    import torch

    # An unchanged image has an infinite ratio even where it is black: 0/0 would say nan.
    return torch.where(noise == 0, torch.inf, 20 * torch.log10(signal / noise))


def perturb_to_snr(perturb: Perturb, inputs: Tensor, ratio: float | Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """
    Perturb each image so that the clipped perturbation has the requested ratio; return which images reach it.

    Clipping takes part of the perturbation away (half of it on a black ground), so the scale is found
    by bisection on the clipped image: the norm of the clipped perturbation never falls as the scale grows.
    Returns the perturbed images and a boolean (N,), True where the ratio was reached.
    """
    import torch

    ratios = torch.as_tensor(ratio, dtype=inputs.dtype, device=inputs.device).flatten().expand(len(inputs))
    shape = (-1,) + (1,) * (inputs.dim() - 1)
    low = torch.zeros(len(inputs), dtype=inputs.dtype, device=inputs.device)
    high = torch.full_like(low, 2.0**-20)
    for _ in range(40):  # up to 2**20: beyond it every pixel has been at its bound for long
        short = signal_to_noise_ratio(inputs, perturb(high.view(shape), out)) > ratios
        if not short.any():
            break
        high = torch.where(short, high * 2, high)
    for _ in range(30):
        middle = (low + high) / 2
        short = signal_to_noise_ratio(inputs, perturb(middle.view(shape), out)) > ratios
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    perturbed = perturb(high.view(shape), out)
    reached = (signal_to_noise_ratio(inputs, perturbed) - ratios).abs() <= SNR_TOLERANCE
    return perturbed, reached
