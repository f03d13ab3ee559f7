"""Every common corruption: its function, called with images, their random numbers and the parameters of a severity."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from robustness.perturbations.common_corruptions import blur, digital, noise, spatter, weather

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "gaussian-noise": noise.gaussian_noise,
    "shot-noise": noise.shot_noise,
    "impulse-noise": noise.impulse_noise,
    "speckle-noise": noise.speckle_noise,
    "defocus-blur": blur.defocus_blur,
    "glass-blur": blur.glass_blur,
    "motion-blur": blur.motion_blur,
    "zoom-blur": blur.zoom_blur,
    "gaussian-blur": blur.gaussian_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "spatter": spatter.spatter,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic-transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg-compression": digital.jpeg_compression,
    "saturate": digital.saturate,
}
