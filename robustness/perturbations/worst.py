"""The worst of several iterates, image by image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustness.decisions import Filtering
from robustness.gradients import objective, outputs
from robustness.perturbations.attack import EVADING, Loss
from robustness.perturbations.base import Batch


class Worst:
    """
    Keeps for each image the iterate that misleads, and among those that do (or do not) the one of largest loss.

    ``images`` (N, C, H, W) begin as the unperturbed ones. Under a loss that evades a detector an image misleads only
    if its attack probability also stays below the filter's threshold.
    """

    def __init__(self, batch: Batch, loss: Loss, targets: Tensor | None) -> None:
        self._batch, self._loss, self._targets = batch, loss, targets
        self.images = batch.inputs.clone()
        self._value = torch.full((len(self.images),), -math.inf, device=self.images.device)
        self.misled = torch.zeros(len(self.images), dtype=torch.bool, device=self.images.device)

    def keep(self, perturbed: Tensor, logits: Tensor | None = None, *, freeze: bool = False) -> bool:
        """Keep what is worse than before; with ``freeze`` what misleads already stays. Say whether all mislead."""
        logits = outputs(self._batch.attacked, perturbed) if logits is None else logits
        # An image of which the model says nothing is the worst there is: the sweep must see it, and error.
        nothing = ~logits.isfinite().all(1)
        misled = self._misled(logits) | nothing
        value = objective(logits, self._batch.labels, self._loss, self._targets, self._batch.decision).detach()
        value = value.masked_fill(nothing, math.inf)
        worse = (misled & ~self.misled) | ((misled == self.misled) & (value > self._value))
        if freeze:
            worse = (worse & ~self.misled) | nothing
        self.images = torch.where(worse.view(-1, *(1,) * (perturbed.dim() - 1)), perturbed, self.images)
        self._value = torch.where(worse, value, self._value)
        self.misled |= misled
        return bool(self.misled.all())

    def _misled(self, logits: Tensor) -> Tensor:
        decision = self._batch.decision
        predictions = decision.predictions(logits)
        misled = predictions != self._batch.labels if self._targets is None else predictions == self._targets
        if self._loss in EVADING and isinstance(decision, Filtering):
            misled &= decision.log_passed(logits) >= decision.log_threshold
        return misled
