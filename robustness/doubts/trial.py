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

from robustness.decisions import Decision
from robustness.draws import Purpose, generator
from robustness.errors import RobustnessError
from robustness.gradients import gradient
from robustness.perturbations import Batch, Perturbation

Answers = dict[str, dict[str, Any]]
"""
For each doubt what was ``seen``, and whether it is ``doubted``: None if it could not be looked for. ``broken`` is true
if that is an error, and missing if a property of the model or the card is the reason.
"""

SLACK = 0.02
"""A share of the images: what is weaker by less, or on one image alone, may be so by chance."""
ROOM = 2**23
"""Bytes of images that pass through a model at once."""
AT_ONCE = 2**22
"""Bytes of images that are differentiated at once: what a forward keeps for its gradient is many times that."""


class NotLookedFor(RobustnessError):
    """A property of the model, the images or the card that keeps a doubt from being looked for."""


def answer(doubted: bool, seen: str) -> dict[str, Any]:
    """Return the answer of a look that took place."""
    return {"seen": seen, "doubted": bool(doubted)}


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

    @cached_property
    def logits(self) -> Tensor:
        """What the model says of the images as they are, (N, outputs), passed once."""
        with torch.no_grad():
            logits: Tensor = self.model(self.inputs).float().clone()
            return logits

    @property
    def budgets(self) -> tuple[float, ...]:
        """The budgets that are tried, the least first."""
        return self.epsilon / 4, self.epsilon / 2, self.epsilon

    def gradient(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return cross-entropy's gradient and the logits of some images, a few of them at once."""
        parts = [
            gradient(self.model, some, labels, decision=self.decision)
            for some, labels in zip(*(torch.split(each, self.at_once) for each in (images, self.labels)), strict=True)
        ]
        return torch.cat([each for each, _ in parts]), torch.cat([logits for _, logits in parts])

    def shares(self, attack: Perturbation, source: tuple[nn.Module, Decision] | None = None) -> list[float]:
        """Return the share of the images that an attack misleads at each budget."""
        return [self.misled(self.perturbed(attack, budget, source)) for budget in self.budgets]

    def perturbed(self, attack: Perturbation, size: float, source: tuple[nn.Module, Decision] | None = None) -> Tensor:
        """Return the images under an attack on the model, or on another one."""
        other, decision = source or (None, self.decision)
        drawn = self.drawn(attack, len(self.inputs))
        return perturb(
            Batch(self.model, self.inputs, self.labels, drawn, source=other, decision=decision, at_once=self.at_once),
            attack,
            size,
        )

    def drawn(self, attack: Perturbation, count: int) -> Tensor | None:
        """Return what an attack draws for some images."""
        drawn = attack.draw(generator(self.seed, Purpose.DOUBTED, 2), (count, *self.inputs.shape[1:]))
        return None if drawn is None else torch.from_numpy(drawn).to(self.inputs)

    def misled(self, images: Tensor) -> float:
        """Return the share of the images that are not in their class."""
        return float((self.predictions(images) != self.labels).float().mean())

    def predicted(self, images: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the classes that the model says of images, (N, C, H, W)."""
        parts = torch.split(torch.from_numpy(images), max(1, ROOM // size_of(images.shape[1:])))
        return torch.cat([self.predictions(part.to(self.inputs)) for part in parts]).cpu().numpy()

    def predictions(self, images: Tensor) -> Tensor:
        """Return the classes that the model says of images, (N,)."""
        with torch.no_grad():
            return self.decision.predictions(self.model(images).float())

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
