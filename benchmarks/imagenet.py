"""A sum at scale: ImageNet's validation set, a hundred models of ResNet-50's size, fifty cells each (docs/plan.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robustness.planning.costs import evidence_bytes

IMAGES, CLASSES, SHAPE = 50_000, 1000, (3, 224, 224)
MODELS = 100
WEIGHTS = 4 * 25_557_032
"""Bytes of ResNet-50's parameters in float32."""
STRENGTHS = 10
SWEEPS: Mapping[str, tuple[int, int]] = {
    "normal": (STRENGTHS, 0),
    "uniform": (STRENGTHS, 0),
    "brightness": (STRENGTHS, 0),
    "fgsm": (STRENGTHS + 1, 1),
    "pgd": (STRENGTHS * (10 + 1), STRENGTHS * 10),
}
"""Forward and backward passes of an image, each sweep at ten strengths; PGD takes ten steps at each."""
DRAWN = ("normal", "uniform", "pgd")
"""Sweeps that draw a number for every pixel."""


@dataclass(frozen=True)
class Rates:
    """
    What a device and the cores beside it do, in images a second.

    ``forward`` and ``gradient`` (a forward with its backward) of a device; ``decoded`` and ``drawn`` (noise for a whole
    image) of one core; ``network`` in bytes a second.
    """

    forward: float
    gradient: float
    decoded: float
    drawn: float
    network: float


@dataclass(frozen=True)
class Sum:
    """What the example costs: passes, bytes, and the hours of one of each part."""

    forward: int
    backward: int
    evidence: int
    pixels: int
    """Bytes of all images as they are shipped, decoded."""
    weights: int
    device_hours: float
    decoding_hours: float
    """Of one core, once: what decodes is the process that starts the run, and what it made stays in Ray's store."""
    drawing_hours: float
    """Of one core; each worker draws for itself."""
    bytes_a_second: float

    def network_hours(self, machines: int) -> float:
        """Give how long the first machine's network is at work: images and weights to each other one, evidence back."""
        return ((machines - 1) * (self.pixels + self.weights) + self.evidence) / self.bytes_a_second / 3600

    def first(self, machines: int, cores: int = 8) -> str:
        """Name the part that takes longest on so many machines, each with one device and so many cores beside it."""
        hours = {
            "device": self.device_hours / machines,
            "decoding": self.decoding_hours / cores,
            "drawing": self.drawing_hours / machines / cores,
            "network": self.network_hours(machines),
        }
        return max(hours, key=lambda part: hours[part])


def whole(rates: Rates) -> Sum:
    """Add it all up; the clean sweep, which all others share, is one more pass of each image."""
    forward = 1 + sum(passes for passes, _ in SWEEPS.values())
    backward = sum(passes for _, passes in SWEEPS.values())
    swept = IMAGES * MODELS
    evidence = sum(evidence_bytes(IMAGES, strengths, CLASSES) for strengths in (1, *[STRENGTHS] * len(SWEEPS)))
    pixels = IMAGES * SHAPE[0] * SHAPE[1] * SHAPE[2]
    seconds = swept * ((forward - backward) / rates.forward + backward / rates.gradient)
    return Sum(
        forward * swept,
        backward * swept,
        MODELS * evidence,
        pixels,
        MODELS * WEIGHTS,
        seconds / 3600,
        IMAGES / rates.decoded / 3600,
        swept * len(DRAWN) / rates.drawn / 3600,
        rates.network,
    )
