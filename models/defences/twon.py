"""2N labelling: a perturbed image of class i has the label N + i (label-2n, section 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.defences.attacked import half
from models.loop import Plan, train
from models.objectives import Minibatch, Objective, smoothed
from robustness.data.images import Images
from robustness.decisions import TwoN
from robustness.workspace.recipes import Job


class Labelled(Objective):
    """Half of the images attacked with ε ~ U(0, ``most``), ``right`` on the true one of 2N labels."""

    decision = TwoN()

    def __init__(self, right: float, most: float) -> None:
        self.right, self.most = right, most

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the cross-entropy over 2N labels, (1 − q)/(2N − 1) on each wrong one."""
        inputs, epsilon = half(module, batch, self.most, self.decision)
        logits = module(inputs)
        return smoothed(logits, torch.where(epsilon > 0, batch.labels + logits.shape[1] // 2, batch.labels), self.right)


def fit(
    module: nn.Module, images: Images, job: Job, *, right: float = 0.8, epsilon: float = 0.3, **plan: Any
) -> nn.Module:
    """Train with ``right`` (q) on the true label; ``epsilon`` is the largest of the attacks."""
    return train(module, images, job, Labelled(right, epsilon), Plan(**plan))
