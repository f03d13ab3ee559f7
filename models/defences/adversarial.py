"""ADV: adversarial training, J̃ = α·J(x, y) + (1 − α)·J(x + δ, y) (Goodfellow et al. 2015, section 6)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.defences.attacked import drawn, fgsm, stepped
from models.loop import Plan, train
from models.objectives import Minibatch, Objective
from robustness.data.images import Images
from robustness.workspace.recipes import Job


class Adversarial(Objective):
    """Each image twice: as it is, and attacked with ε ~ U(0, ``most``)."""

    def __init__(self, alpha: float, most: float) -> None:
        self.alpha, self.most = alpha, most

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return α·J(x) + (1 − α)·J(x + δ)."""
        epsilon = drawn(batch.draws, len(batch.labels), self.most, batch.inputs)
        attacked = fgsm(module, batch.inputs, batch.labels, epsilon, self.decision)
        clean = F.cross_entropy(module(batch.inputs), batch.labels)
        return self.alpha * clean + (1 - self.alpha) * F.cross_entropy(module(attacked), batch.labels)

    def step(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the same from two passes: the clean loss's own backward pass reaches the images too."""
        leaf = batch.inputs.detach().requires_grad_()
        clean = self.alpha * F.cross_entropy(module(leaf), batch.labels)
        clean.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        epsilon = drawn(batch.draws, len(batch.labels), self.most, batch.inputs)
        attacked = stepped(batch.inputs, leaf.grad, epsilon)
        other = (1 - self.alpha) * F.cross_entropy(module(attacked), batch.labels)
        other.backward()  # type: ignore[no-untyped-call]
        return torch.add(clean.detach(), other.detach())


def fit(
    module: nn.Module, images: Images, job: Job, *, alpha: float = 0.5, epsilon: float = 0.3, **plan: Any
) -> nn.Module:
    """Train with ``alpha`` on the clean images; ``epsilon`` is the largest of the attacks."""
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` must lie between 0 and 1, got {alpha}; 0.5 is the paper's")
    return train(module, images, job, Adversarial(alpha, epsilon), Plan(**plan))
