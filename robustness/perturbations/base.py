"""The interface of perturbations, and the form x + strength·direction that most of them have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from robustness.decisions import Argmax, Decision

if TYPE_CHECKING:
    from torch import Tensor, nn

Perturb = Callable[["float | Tensor", "Tensor"], "Tensor"]
"""Writes the images perturbed at a strength (one number, or one an image) into a buffer and returns it."""

FAMILIES = ("clean", "noise", "natural", "corruption", "fgsm", "attack", "gan")
"""The suites that hold a perturbation's claims, by what it does; "gan" is for `AdvGAN` and its subclasses."""


def draw_seeds(generator: np.random.Generator, images: int) -> np.ndarray:
    """Return a seed of 48 bits per image for `seeded`, (images, 2): whole numbers that float32 holds exactly."""
    return generator.integers(0, 2**24, (images, 2)).astype(np.float32)


def seeded(*words: int) -> np.random.Generator:
    """Return random numbers of an image: its seed, and what they are for. They are the same on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


@dataclass
class Batch:
    """
    One batch of a sweep: ``inputs`` (N, C, H, W) in [0, 1], ``labels``, the models, and random numbers (``drawn``).

    ``source`` is the attacked model of a transfer attack, else None. ``decision`` interprets the logits of the attacked
    model. The first ``size`` rows are images, the others padding. ``direction`` is that of a step, precomputed or
    computed here. ``generator`` is the network of a perturbation that needs fitting, or None.
    """

    classifier: nn.Module
    inputs: Tensor
    labels: Tensor
    drawn: Tensor | None = None
    size: int | None = None
    source: nn.Module | None = None
    decision: Decision = field(default_factory=Argmax)
    direction: Tensor | None = None
    generator: nn.Module | None = None
    clean_logits: Tensor | None = None
    """The logits of the unperturbed images, once they are computed."""
    logits: Tensor | None = None
    """The logits of the last strength, if the perturbation decides itself; else the model's on the perturbed images."""
    at_once: int | None = None
    """How many images are differentiated together; None for all."""
    marked: dict[str, Tensor] = field(default_factory=dict)
    strengths: Sequence[object] = ()
    """All strengths of the sweep."""

    @property
    def attacked(self) -> nn.Module:
        """The model whose gradients are taken."""
        return self.classifier if self.source is None else self.source

    def count(self, what: str, images: Tensor, start: int = 0) -> None:
        """Count the images from row ``start`` on for which a boolean is true, each once and without padding."""
        if what not in self.marked:
            self.marked[what] = images.new_zeros(len(self.inputs) if self.size is None else self.size)
        rows = self.marked[what][start : start + len(images)]
        rows |= images[: len(rows)]

    def some(self, rows: Tensor) -> Batch:
        """Return some of the images as a new batch; pass it to `counted` to add its counts to this one."""
        return replace(
            self, inputs=self.inputs[rows], labels=self.labels[rows], size=None, drawn=None, direction=None,
            clean_logits=None, marked={},
        )  # fmt: skip

    def counted(self, some: Batch, rows: Tensor) -> None:
        """Add the counts of a batch that `some` returned for these rows."""
        for what, marked in some.take_marks().items():
            images = marked.new_zeros(len(self.inputs))
            images[rows] = marked
            self.count(what, images)

    def take_marks(self) -> dict[str, Tensor]:
        """Return the images, (size,), that were counted since the last call."""
        taken, self.marked = self.marked, {}
        return taken


class Perturbation(BaseModel, ABC):
    """
    A way to change images, with its parameters: a ``[sweeps.NAME]`` table of a model card.

    A subclass declares its parameters as pydantic fields, ``kind`` with its name as the default, `family` and
    `strength_name`, and implements `prepare`. Its module must not import torch at the top: a run whose evidence is
    stored never needs it.

    Attributes:
        family: The suite that holds its claims, one of `FAMILIES`.
        limits: The smallest and the largest strength.
        strength_name: The symbol of the strength in tables: "ε".
        meaning: What a strength is, as the end of a sentence that begins with "a strength".
        whole: Whether strengths are whole numbers.
        scalable: Whether a strength is how far pixels move, so that each image may have its own.
        uses_model: Whether a model decides how pixels change, so that examples of one model can be sent to another.
        side_by_side: Whether several threads may perturb at once.
        needs_fitting: Whether a network is fitted to the attacked model before its sweep: ``Batch.generator``.
        certifies: Whether it writes logits of its own to the batch, of a bound on what an attacker may reach.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    family: ClassVar[str]
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    strength_name: ClassVar[str]
    meaning: ClassVar[str] = "is a fraction of the pixel range"
    whole: ClassVar[bool] = False
    scalable: ClassVar[bool] = False
    uses_model: ClassVar[bool] = True
    side_by_side: ClassVar[bool] = True
    needs_fitting: ClassVar[bool] = False
    certifies: ClassVar[bool] = False

    @property
    def strength_range(self) -> tuple[float, float]:
        """The least and the largest strength."""
        return self.limits

    @property
    def source_card(self) -> str | None:
        """The card of the model that this is made on, relative to the card that names it; None for the swept one."""
        return None

    @property
    def ball(self) -> Literal["linf", "l2"] | None:
        """The norm in whose ball of radius strength a perturbed image lies, if an attack searches that ball."""
        return None

    def distributions(self) -> set[str]:
        """Name the top-level modules of other libraries that it computes with."""
        return set()

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray | None:
        """Draw random numbers for images of a chunk, (images, C, H, W), or None; in parts the same as at once."""
        return None

    def draws(self, strengths: Sequence[object]) -> int:
        """Return how many independent draws an image has."""
        return 1

    def deviations(self, strengths: Sequence[object]) -> list[float] | None:
        """Return the standard deviation of the noise at each strength; None if the strength determines it."""
        return None

    def gradients(self, strengths: Sequence[object]) -> int:
        """Return an estimate of the gradients per image of a sweep."""
        return 0

    def forward_passes(self, strengths: Sequence[object]) -> int:
        """Return about how many passes per image a sweep takes besides gradients and one per strength, for planning."""
        return 0

    @abstractmethod
    def prepare(self, batch: Batch) -> Perturb:
        """
        Compute once per batch what all strengths share.

        Args:
            batch: Images (N, C, H, W) in [0, 1] with labels, models and draws.

        Returns:
            A function of a strength (a number, or a tensor (N, 1, 1, 1)) and a buffer (N, C, H, W): it writes the
            perturbed images in [0, 1] into the buffer and returns it.
        """


class Step(Perturbation):
    """A step of ``strength`` along a direction that all strengths share, clipped to [0, 1]."""

    scalable: ClassVar[bool] = True

    @property
    def signed(self) -> bool:
        """Whether its direction consists of signs, which can be stored as int8."""
        return False

    @abstractmethod
    def direction(self, batch: Batch) -> Tensor:
        """Return the direction, shaped as the inputs."""

    def prepare(self, batch: Batch) -> Perturb:
        """Compute the direction once; each strength then costs one multiply-add and a clip."""
        import torch

        if batch.direction is None:
            batch.direction = self.direction(batch)
        direction = batch.direction

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            if isinstance(strength, torch.Tensor):
                torch.addcmul(batch.inputs, direction, strength, out=out)
            else:
                torch.add(batch.inputs, direction, alpha=strength, out=out)
            return self.bounded(batch, out)

        return perturb

    def bounded(self, batch: Batch, perturbed: Tensor) -> Tensor:
        """Clip perturbed images to [0, 1] in place."""
        return perturbed.clamp_(0, 1)
