"""A model, some images, and attacks on them: what every look at a doubt is made of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustness.decisions import Decision, Filtering
from robustness.errors import RobustnessError
from robustness.perturbations import Batch, Perturbation
from robustness.perturbations.gradients import gradient
from robustness.perturbations.losses import Loss
from robustness.sweep.batching import out_of_memory
from robustness.util.rng import Purpose, generator

Answers = dict[str, dict[str, Any]]
"""
For each doubt what was ``seen``, and whether it is ``doubted``: None if it could not be looked for. ``broken`` is true
if that is an error, and missing if a property of the model or the card is the reason.
"""

SLACK = 0.02
"""A share of the images: what is weaker by less, or on one image alone, may be so by chance."""
ROOM = 2**23
"""Bytes of images that pass through a model at once."""
FEW, AGAIN = 8, 8
"""Images that are passed again and again, and how often."""
AT_ONCE = 2**22
"""Bytes of images that are differentiated at once: what a forward keeps for its gradient is many times that."""


class NotLookedFor(RobustnessError):
    """A property of the model, the images or the card that keeps a doubt from being looked for."""


def answer(doubted: bool, seen: str) -> dict[str, Any]:
    """Return the answer of a look that took place."""
    return {"seen": seen, "doubted": bool(doubted)}


def _alike(one: Tensor, other: Tensor) -> Tensor:
    """Return which rows are the same to the bit."""
    return ((one == other) | (one.isnan() & other.isnan())).all(1)


def sentence(error: Exception) -> str:
    """Return in one line what was raised."""
    if isinstance(error, RobustnessError):
        return str(error)
    if out_of_memory(error):
        return "memory ran out; take fewer or smaller images"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def size_of(shape: Sequence[int]) -> int:
    """Return the bytes of an array of floats."""
    return 4 * prod(shape)


class Trial:
    """A model, some images (N, C, H, W) with their labels (N,), and attacks on them up to a budget ``epsilon`` (L∞)."""

    def __init__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, decision: Decision, epsilon: float, seed: int
    ) -> None:
        self.model, self.inputs, self.labels = model, inputs, labels
        self.decision, self.epsilon, self.seed = decision, epsilon, seed
        self.at_once = max(1, AT_ONCE // size_of(inputs.shape[1:]))
        self.passed, self.without_numbers = 0, 0
        self._hits: dict[str, Tensor] = {}

    @cached_property
    def logits(self) -> Tensor:
        """What the model says of the images as they are, (N, outputs), passed once."""
        return self.outputs(self.inputs)

    @cached_property
    def random(self) -> int:
        """Of how many images the model says something else when it is asked again; NaN is NaN."""
        other = ~_alike(self.logits, self.outputs(self.inputs))
        some = self.inputs[:FEW]
        first = self.outputs(some)
        for _ in range(AGAIN):  # a coin that is tossed once a pass may show one side for a while
            other[:FEW] |= ~_alike(first, self.outputs(some))
        return int(other.sum())

    def outputs(self, images: Tensor) -> Tensor:
        """Return what the model says of images, (N, outputs); they are copied, for it may edit them in place."""
        self.passed += len(images)
        with torch.no_grad():
            logits: Tensor = self.model(images.clone())
            return logits.float().clone()  # it may be one buffer again and again

    @property
    def budgets(self) -> tuple[float, ...]:
        """The budgets that are tried, the least first."""
        return self.epsilon / 4, self.epsilon / 2, self.epsilon

    def gradient(self, images: Tensor, loss: Loss = "cross_entropy") -> tuple[Tensor, Tensor]:
        """Return the gradient of a loss, and the logits, a few images at once."""
        self.passed += len(images)
        parts = [
            gradient(self.model, some, labels, loss=loss, decision=self.decision)
            for some, labels in zip(*(torch.split(each, self.at_once) for each in (images, self.labels)), strict=True)
        ]
        return torch.cat([each for each, _ in parts]), torch.cat([logits for _, logits in parts])

    def of_first(self, count: int) -> Trial:
        """Return the same on the first images alone."""
        return Trial(self.model, self.inputs[:count], self.labels[:count], self.decision, self.epsilon, self.seed)

    def shares(
        self, attack: Perturbation, source: tuple[nn.Module, Decision] | None = None, *, evading: bool = False
    ) -> list[float]:
        """Return the share of the images that an attack misleads at each budget; ``evading``: and are not discarded."""
        return [float(self.hits(attack, size, source, evading=evading).float().mean()) for size in self.budgets]

    def hits(
        self,
        attack: Perturbation,
        size: float,
        source: tuple[nn.Module, Decision] | None = None,
        *,
        evading: bool = False,
    ) -> Tensor:
        """Return which images an attack misleads, (N,); what has been tried is not tried again."""
        key = f"{source is not None} {evading} {size} {attack.model_dump_json()}"
        if key not in self._hits:
            images = self.perturbed(attack, size, source)
            self._hits[key] = ~self.right(images)
            if evading and isinstance(self.decision, Filtering):
                self._hits[key] &= self.decision.log_passed(self.outputs(images)) >= self.decision.log_threshold
        return self._hits[key]

    def perturbed(self, attack: Perturbation, size: float, source: tuple[nn.Module, Decision] | None = None) -> Tensor:
        """Return the images under an attack on the model, or on another one."""
        other, decision = source or (None, self.decision)
        drawn = self.drawn(attack, len(self.inputs))
        self.passed += len(self.inputs) if source is None else 0
        return perturb(
            Batch(
                self.model,
                self.inputs.clone(),
                self.labels,
                drawn,
                source=other,
                decision=decision,
                at_once=self.at_once,
            ),
            attack,
            size,
        )

    def drawn(self, attack: Perturbation, count: int) -> Tensor | None:
        """Return what an attack draws for some images."""
        drawn = attack.draw(generator(self.seed, Purpose.DOUBTED, 2), (count, *self.inputs.shape[1:]))
        return None if drawn is None else torch.from_numpy(drawn).to(self.inputs)

    def misled(self, images: Tensor) -> float:
        """Return the share of the images that are not in their class, or of which outputs are no numbers."""
        return 1 - float(self.right(images).float().mean())

    def right(self, images: Tensor) -> Tensor:
        """Return which images are in their class, (N,); those whose outputs are no numbers are not."""
        logits = self.outputs(images)
        numbers = logits.isfinite().all(1)
        self.without_numbers = max(self.without_numbers, int((~numbers).sum()))
        return (self.decision.predictions(logits) == self.labels) & numbers

    def predicted(self, images: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the classes that the model says of images, (N, C, H, W)."""
        parts = torch.split(torch.from_numpy(images), max(1, ROOM // size_of(images.shape[1:])))
        return (
            torch.cat([self.decision.predictions(self.outputs(part.to(self.inputs))) for part in parts]).cpu().numpy()
        )

    def weaker(self, one: str, mine: list[float], other: str, theirs: list[float]) -> dict[str, Any]:
        """Return whether what should be stronger misleads fewer at some budget."""
        worst = max(range(len(mine)), key=lambda i: theirs[i] - mine[i])
        seen = f"at ε {self.budgets[worst]:g} {one} misleads {mine[worst]:.1%}, {other} {theirs[worst]:.1%}"
        return answer(theirs[worst] > mine[worst] + max(SLACK, 1 / len(self.inputs)) + 1e-9, seen)

    def of(self, count: int) -> str:
        """Return a count of the images as text."""
        return f"{count} of {len(self.inputs)} images"


def perturb(batch: Batch, attack: Perturbation, size: float) -> Tensor:
    """Return a batch under an attack."""
    with torch.no_grad():
        return attack.prepare(batch)(size, torch.empty_like(batch.inputs))
