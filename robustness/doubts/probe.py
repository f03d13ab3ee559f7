"""A model with some images and their labels: forward passes, gradients and attacks for the checks."""

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
from robustness.perturbations.attack import Loss
from robustness.perturbations.gradients import gradient
from robustness.sweep.batching import out_of_memory
from robustness.util.rng import Purpose, generator

# Per doubt: what was ``seen``, and whether it is ``doubted``, None if it could not be checked. ``broken`` is true if
# an error is the reason, and missing if a property of the model or the card is.
CheckResults = dict[str, dict[str, Any]]

# A fraction of the images: a smaller difference, or one of a single image, may be chance.
TOLERANCE = 0.02
# Bytes of images in one forward pass.
BATCH_BYTES = 2**23
# Images that are passed repeatedly, and how often.
REPEATED_IMAGES, REPETITIONS = 8, 8
# Bytes of images that are differentiated at once: autograd saves many times as much.
GRADIENT_BYTES = 2**22


class NotChecked(RobustnessError):
    """A property of the model, the images or the card prevents a check."""


def check_result(doubted: bool, seen: str) -> dict[str, Any]:
    """Return the result of a completed check."""
    return {"seen": seen, "doubted": bool(doubted)}


def _rows_equal(first: Tensor, second: Tensor) -> Tensor:
    """Return which rows are equal; NaN equals NaN."""
    return ((first == second) | (first.isnan() & second.isnan())).all(1)


def error_message(error: Exception) -> str:
    """Return an error's message in one line."""
    if isinstance(error, RobustnessError):
        return str(error)
    if out_of_memory(error):
        return "memory ran out; use fewer or smaller images"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def float_bytes(shape: Sequence[int]) -> int:
    """Return the bytes of a float32 array."""
    return 4 * prod(shape)


class ModelProbe:
    """A model, some images (N, C, H, W) with their labels (N,), and attacks on them up to a budget ``epsilon`` (L∞)."""

    def __init__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, decision: Decision, epsilon: float, seed: int
    ) -> None:
        self.model, self.inputs, self.labels = model, inputs, labels
        self.decision, self.epsilon, self.seed = decision, epsilon, seed
        self.gradient_batch_size = max(1, GRADIENT_BYTES // float_bytes(inputs.shape[1:]))
        self.images_passed, self.non_finite_count = 0, 0
        self._misled: dict[str, Tensor] = {}

    @cached_property
    def logits(self) -> Tensor:
        """The outputs for the clean images, (N, outputs), computed once."""
        return self.outputs(self.inputs)

    @cached_property
    def unstable_count(self) -> int:
        """The number of images whose outputs differ in another pass; NaN equals NaN."""
        differs = ~_rows_equal(self.logits, self.outputs(self.inputs))
        repeated = self.inputs[:REPEATED_IMAGES]
        first = self.outputs(repeated)
        for _ in range(REPETITIONS):  # one random bit per pass may stay the same for a while
            differs[:REPEATED_IMAGES] |= ~_rows_equal(first, self.outputs(repeated))
        return int(differs.sum())

    def outputs(self, images: Tensor) -> Tensor:
        """Return the model's outputs, (N, outputs); the images are copied, because it may edit them in place."""
        self.images_passed += len(images)
        with torch.no_grad():
            logits: Tensor = self.model(images.clone())
            return logits.float().clone()  # the model may reuse one buffer

    @property
    def budgets(self) -> tuple[float, ...]:
        """The budgets of the attacks, in ascending order."""
        return self.epsilon / 4, self.epsilon / 2, self.epsilon

    def gradient(self, images: Tensor, loss: Loss = "cross_entropy") -> tuple[Tensor, Tensor]:
        """Return the gradient of a loss, and the logits; computed in parts."""
        self.images_passed += len(images)
        parts = [
            gradient(self.model, inputs, labels, loss=loss, decision=self.decision)
            for inputs, labels in zip(
                *(torch.split(tensor, self.gradient_batch_size) for tensor in (images, self.labels)), strict=True
            )
        ]
        return torch.cat([gradients for gradients, _ in parts]), torch.cat([logits for _, logits in parts])

    def first(self, count: int) -> ModelProbe:
        """Return a probe of the first images."""
        return ModelProbe(self.model, self.inputs[:count], self.labels[:count], self.decision, self.epsilon, self.seed)

    def misled_fractions(
        self, attack: Perturbation, source: tuple[nn.Module, Decision] | None = None, *, evading: bool = False
    ) -> list[float]:
        """Return the fraction of images that an attack misleads at each budget; ``evading``: and are not discarded."""
        return [float(self.misled(attack, budget, source, evading=evading).float().mean()) for budget in self.budgets]

    def misled(
        self,
        attack: Perturbation,
        budget: float,
        source: tuple[nn.Module, Decision] | None = None,
        *,
        evading: bool = False,
    ) -> Tensor:
        """Return which images an attack misleads, (N,); results are cached."""
        key = f"{source is not None} {evading} {budget} {attack.model_dump_json()}"
        if key not in self._misled:
            images = self.attack(attack, budget, source)
            self._misled[key] = ~self.correct(images)
            if evading and isinstance(self.decision, Filtering):
                self._misled[key] &= self.decision.log_passed(self.outputs(images)) >= self.decision.log_threshold
        return self._misled[key]

    def attack(self, attack: Perturbation, budget: float, source: tuple[nn.Module, Decision] | None = None) -> Tensor:
        """Return the images under an attack on the model, or on a source model."""
        source_model, decision = source or (None, self.decision)
        drawn = self.draw(attack, len(self.inputs))
        self.images_passed += len(self.inputs) if source is None else 0
        return apply_attack(
            Batch(
                self.model,
                self.inputs.clone(),
                self.labels,
                drawn,
                source=source_model,
                decision=decision,
                at_once=self.gradient_batch_size,
            ),
            attack,
            budget,
        )

    def draw(self, attack: Perturbation, count: int) -> Tensor | None:
        """Return an attack's random draws for a number of images."""
        drawn = attack.draw(generator(self.seed, Purpose.DOUBTED, 2), (count, *self.inputs.shape[1:]))
        return None if drawn is None else torch.from_numpy(drawn).to(self.inputs)

    def error_rate(self, images: Tensor) -> float:
        """Return the fraction of images that are misclassified or have non-finite outputs."""
        return 1 - float(self.correct(images).float().mean())

    def correct(self, images: Tensor) -> Tensor:
        """Return which images are classified correctly, (N,); non-finite outputs never are."""
        logits = self.outputs(images)
        finite = logits.isfinite().all(1)
        self.non_finite_count = max(self.non_finite_count, int((~finite).sum()))
        return (self.decision.predictions(logits) == self.labels) & finite

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the predicted classes of images, (N, C, H, W)."""
        parts = torch.split(torch.from_numpy(images), max(1, BATCH_BYTES // float_bytes(images.shape[1:])))
        return (
            torch.cat([self.decision.predictions(self.outputs(part.to(self.inputs))) for part in parts]).cpu().numpy()
        )

    def compare(self, stronger: str, rates: list[float], weaker: str, weaker_rates: list[float]) -> dict[str, Any]:
        """Return the doubt that an attack misleads fewer images at some budget than a supposedly weaker one."""
        worst = max(range(len(rates)), key=lambda i: weaker_rates[i] - rates[i])
        seen = (
            f"at ε {self.budgets[worst]:g} {stronger} misleads {rates[worst]:.1%}, {weaker} {weaker_rates[worst]:.1%}"
        )
        return check_result(weaker_rates[worst] > rates[worst] + max(TOLERANCE, 1 / len(self.inputs)) + 1e-9, seen)

    def format_count(self, count: int) -> str:
        """Format a number of images."""
        return f"{count} of {len(self.inputs)} images"


def apply_attack(batch: Batch, attack: Perturbation, budget: float) -> Tensor:
    """Return a batch under an attack."""
    with torch.no_grad():
        return attack.prepare(batch)(budget, torch.empty_like(batch.inputs))
