"""NULL labelling: one output more, for attacked images, the likelier the larger the attack (Hosseini et al. 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.defences.attacked import half
from models.loop import Plan, train
from models.objectives import Minibatch, Objective, soft_cross_entropy
from robustness.data.images import Images
from robustness.decisions import Null
from robustness.workspace.recipes import Job


def targets(labels: Tensor, null: Tensor, right: float, classes: int) -> Tensor:
    """
    Return the probabilities, (N, classes + 1): ``null`` (N,) on the last, ``right`` of the rest on the true class.

    What is left is shared by the other classes; a clean image has ``null`` 0.

    >>> targets(torch.tensor([1]), torch.tensor([0.5]), 0.8, 3)
    tensor([[0.0500, 0.4000, 0.0500, 0.5000]])
    """
    others = (1 - right) / (classes - 1)
    shares = torch.full((len(labels), classes), others, device=labels.device)
    shares.scatter_(1, labels[:, None], right)
    return torch.cat([shares * (1 - null[:, None]), null[:, None]], 1)


class Nulled(Objective):
    """After ``clean_epochs`` without, half of the images attacked; p(NULL) = ε/``most`` (the L∞ variant)."""

    decision = Null()

    def __init__(self, right: float, most: float, clean_epochs: int) -> None:
        self.right, self.most, self.clean_epochs = right, most, clean_epochs

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the cross-entropy of the NULL targets."""
        if batch.epoch < self.clean_epochs:
            inputs, epsilon = batch.inputs, torch.zeros(len(batch.labels), device=batch.inputs.device)
        else:
            inputs, epsilon = half(module, batch, self.most, self.decision)
        logits = module(inputs)
        return soft_cross_entropy(logits, targets(batch.labels, epsilon / self.most, self.right, logits.shape[1] - 1))

    def settled(self, epoch: int) -> bool:
        """Return whether attacks have begun."""
        return epoch >= self.clean_epochs


def fit(
    module: nn.Module,
    images: Images,
    job: Job,
    *,
    right: float = 0.8,
    epsilon: float = 0.3,
    clean_epochs: int = 0,
    **plan: Any,
) -> nn.Module:
    """Train with ``right`` (q) on the true class, first ``clean_epochs`` on clean images alone."""
    return train(module, images, job, Nulled(right, epsilon, clean_epochs), Plan(**plan))
