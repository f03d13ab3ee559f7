"""Metrics that are the mean of one number per image: loss and signal-to-noise ratio."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import numpy as np

from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import mean_interval
from robustness.metrics.metric import UNKNOWN_CHANCE, ChanceLevel, Counts, Measurement, Metric


def measure_mean(
    name: Literal["loss", "snr"], evidence: Evidence, row: int, label: int | None, confidence: float
) -> Measurement:
    """Average one number per image; an infinite SNR is left out, an infinite loss is not."""
    numbers, images = np.asarray(getattr(evidence, name)[row], dtype=np.float64), len(evidence)
    if numbers.shape != (images,) or np.isnan(numbers).any():
        raise ValueError(
            f"`{name}` must be one number per image ({images}), got shape {numbers.shape} with "
            f"{np.isnan(numbers).sum()} NaN; pass {name}=, one number per image (without one there is no mean)"
        )
    infinite = int(np.isinf(numbers).sum())
    note = f"{infinite} of {images} images with infinite {name}" if infinite else ""
    if infinite and name == "snr":
        numbers = numbers[np.isfinite(numbers)]
        note += " (unchanged, or black) left out"
    value = float(numbers.mean()) if numbers.size else math.nan
    interval = mean_interval(numbers, confidence)
    return Measurement(value, interval, "normal", numbers.size, note=note if images else "no images")


def loss_chance_level(images: Counts, label: int | None = None) -> ChanceLevel:
    """Return the loss of constant probabilities instead of a constant class: the labels' own shares, or uniform."""
    if not images.any():
        return UNKNOWN_CHANCE
    share = images / images.sum()
    present = share[share > 0]
    constant, guess = max(float(-(present * np.log(present)).sum()), 0.0), math.log(len(images))
    return ChanceLevel(min(constant, guess), constant, guess)


LOSS = Metric(
    name="loss",
    description="mean cross-entropy per image, in nats",
    measure=partial(measure_mean, "loss"),
    chance_level=loss_chance_level,
    better="lower",
    limits=(0.0, math.inf),
)
SNR = Metric(
    name="snr",
    description="mean signal-to-noise ratio of the changed images, in dB",
    measure=partial(measure_mean, "snr"),
    limits=(-math.inf, math.inf),
    claimable=False,
)
