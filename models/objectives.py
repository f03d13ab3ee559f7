"""What a training makes small: the interface of the defences, and plain cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness.decisions import Argmax, Decision


@dataclass(frozen=True)
class Minibatch:
    """Images (N, C, H, W) in [0, 1], labels (N,), their rows in the training set, draws of its own, the epoch."""

    inputs: Tensor
    labels: Tensor
    rows: Tensor
    draws: np.random.Generator
    epoch: int
    alter: Callable[[Tensor], Tensor] = field(default=lambda images: images)
    """Augments other images of these rows, (N, C, H, W), as the inputs were."""


class Objective:
    """A loss over a minibatch; a defence changes `loss`, or `step` where one backward pass does not do."""

    decision: Decision = Argmax()

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the mean loss of a minibatch; may differentiate the module with respect to images on the way."""
        raise NotImplementedError

    def step(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Add the loss's gradient to the parameters, and give the loss without one."""
        value = self.loss(module, batch)
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    def judge(self, module: nn.Module, batch: Minibatch) -> tuple[Tensor, Tensor]:
        """Return loss and clean accuracy of held-out images, by a module in evaluation mode."""
        with torch.no_grad():
            right = (self.decision.predictions(module(batch.inputs)) == batch.labels).float().mean()
        return self.loss(module, batch).detach(), right

    def settled(self, epoch: int) -> bool:
        """Return whether the loss of an epoch can be compared with later ones."""
        return True

    def to(self, device: str) -> None:
        """Move what the loss needs to a device."""


class Plain(Objective):
    """
    Cross-entropy of the true class, with ``right`` on it and the rest shared by the others.

    With a ``temperature`` T the logits are divided by it, as in distillation, and the loss multiplied: its gradient
    by the logits would otherwise be T times as small, and the same learning rate too low.
    """

    def __init__(self, right: float = 1.0, temperature: float = 1.0) -> None:
        self.right, self.temperature = right, temperature

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the mean cross-entropy."""
        return self.temperature * smoothed(module(batch.inputs) / self.temperature, batch.labels, self.right)


def smoothed(logits: Tensor, labels: Tensor, right: float) -> Tensor:
    """
    Return the mean cross-entropy with ``right`` on each label, the rest shared by the other outputs.

    >>> round(smoothed(torch.tensor([[0.0, 1.0]]), torch.tensor([1]), right=0.8).item(), 4)
    0.5133
    """
    outputs = logits.shape[1]
    # torch's smoothing s gives the right one 1 − s + s/K.
    return F.cross_entropy(logits, labels, label_smoothing=(1 - right) * outputs / (outputs - 1))


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """
    Return the mean of −Σ target·log softmax(logits); targets (N, outputs) sum to 1.

    >>> round(soft_cross_entropy(torch.zeros(1, 4), torch.full((1, 4), 0.25)).item(), 4)
    1.3863
    """
    return -(targets * logits.log_softmax(1)).sum(1).mean()
