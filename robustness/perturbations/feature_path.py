"""The path of an attack that changes one feature after the other; it is extended on demand and replayed."""

from __future__ import annotations

import torch
from torch import Tensor

from robustness.perturbations.attack import attack_loss, model_logits
from robustness.perturbations.base import Batch
from robustness.perturbations.gradients import MARGIN, NON_FINITE, STUCK, ZERO, input_gradient


class FeaturePath:
    """
    For each image the features that changed, in order, and their new values.

    An image's path grows until its class changes, or no feature is left that helps.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._now = batch.inputs.clone()
        self._free = torch.ones_like(batch.inputs, dtype=torch.bool).flatten(1)
        self._going = torch.ones(len(batch.inputs), dtype=torch.bool, device=batch.inputs.device)
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def at(self, budget: Tensor, out: Tensor) -> Tensor:
        """Return the images with the first ``budget`` (N,) changes of their paths."""
        features = self._free.shape[1]
        while len(self._steps) < min(float(budget.max()), features) and bool(self._going.any()):
            self._steps.append(self._step())
        flat = self._batch.inputs.clone().flatten(1)
        for i, (moved, feature, value) in enumerate(self._steps):
            chosen = moved & (budget > i)
            rows = chosen.nonzero().squeeze(1)
            flat[rows, feature[rows]] = value[rows]
        return out.copy_(flat.view_as(out))

    def _step(self) -> tuple[Tensor, Tensor, Tensor]:
        """Change one feature of every unfinished image; return which images changed, the features and their values."""
        gradient, logits = self._ascent()
        self._going &= self._batch.decision.predictions(logits) == self._batch.labels
        flat = self._now.flatten(1)
        bound = (gradient > 0).to(flat.dtype)
        useful = self._free & (gradient != 0) & (bound != flat)
        strength, feature = gradient.abs().masked_fill(~useful, -1).max(1)
        self._going &= strength > 0
        value = bound.gather(1, feature[:, None]).squeeze(1)
        moved = self._going.clone()
        rows = moved.nonzero().squeeze(1)
        flat[rows, feature[rows]] = value[rows]
        self._free[rows, feature[rows]] = False
        self._now = flat.view_as(self._now)
        return moved, feature, value

    def _ascent(self) -> tuple[Tensor, Tensor]:
        """Return the gradient, (N, features), that raises the wrong classes alike, and the logits."""
        batch = self._batch
        with torch.enable_grad():
            leaf = self._now.detach().requires_grad_()
            logits = model_logits(batch.attacked, leaf)
            scores = batch.decision.log_probabilities(logits)
            wrong = torch.ones_like(scores).scatter(1, batch.labels[:, None], 0)
            smooth = (scores * wrong).sum(1) / wrong.sum(1)
            gradient = input_gradient(smooth, leaf, keep=True).flatten(1)
            size = gradient.abs().amax(1)
            if bool((zero := size == 0).any()):
                margin = input_gradient(
                    attack_loss(logits, batch.labels, "margin", None, batch.decision), leaf
                ).flatten(1)
                gradient = torch.where(zero[:, None], margin, gradient)
                size = gradient.abs().amax(1)
                batch.count(MARGIN, self._going & zero & (size != 0))
        bad = ~size.isfinite()
        batch.count(NON_FINITE, bad & self._going)
        if not self._steps:  # later on a path may end where nothing is left to be done
            batch.count(ZERO, size == 0)
            batch.count(STUCK, self._going & (size == 0))
        return gradient.masked_fill(bad[:, None], 0), logits.detach()
