"""The worst of several iterates, image by image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustness.perturbations.attack import Loss, attack_loss, misleads, model_logits
from robustness.perturbations.base import Batch


class BestIterate:
    """
    Keeps the best iterate of each image: one that misleads if there is one, and of these the one of largest loss.

    ``images`` (N, C, H, W) begin as the unperturbed ones. For a loss that evades a detector, an image misleads only if
    its attack probability is also below the filter's threshold.
    """

    def __init__(self, batch: Batch, loss: Loss, targets: Tensor | None) -> None:
        self._batch, self._loss, self._targets = batch, loss, targets
        self.images = batch.inputs.clone()
        self._value = torch.full((len(self.images),), -math.inf, device=self.images.device)
        self.misled = torch.zeros(len(self.images), dtype=torch.bool, device=self.images.device)

    @property
    def open(self) -> Tensor:
        """The rows of the images that are not misled yet, without padding."""
        size = len(self.images) if self._batch.size is None else self._batch.size
        return (~self.misled[:size]).nonzero().flatten()

    def keep(self, perturbed: Tensor, logits: Tensor | None = None, rows: Tensor | None = None) -> None:
        """Keep the iterates that are better than the earlier ones, for all images or some ``rows``."""
        rows = torch.arange(len(self.images), device=self.images.device) if rows is None else rows
        logits = model_logits(self._batch.attacked, perturbed) if logits is None else logits
        # An image with non-finite logits counts as misled, so that the sweep sees it and fails with an error.
        nothing = ~logits.isfinite().all(1)
        labels, targets = self._batch.labels[rows], None if self._targets is None else self._targets[rows]
        misled = misleads(logits, labels, targets, self._batch.decision, self._loss) | nothing
        value = attack_loss(logits, labels, self._loss, targets, self._batch.decision).detach()
        value = value.masked_fill(nothing, math.inf)
        before = self.misled[rows]
        worse = (misled & ~before) | ((misled == before) & (value > self._value[rows]))
        self.images[rows[worse]] = perturbed[worse]
        self._value[rows[worse]] = value[worse]
        self.misled[rows] = before | misled
