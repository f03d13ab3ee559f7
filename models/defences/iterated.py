"""Adversarial training by many small steps: the objective of ADV with PGD as its attack (Madry et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.defences.attacked import drawn
from models.loop import Plan, train
from models.objectives import Minibatch, Objective
from robustness.data.images import Images
from robustness.perturbations.gradients import gradient
from robustness.perturbations.pgd import Steps
from robustness.workspace.recipes import Job

STEP = 0.25
"""Length of a step as a share of ε: 2 of 8, as Madry et al. trained on CIFAR-10."""


class Iterated(Objective):
    """Each image twice: as it is, and attacked by PGD from a random start with ε ~ U(0, ``most``)."""

    def __init__(self, alpha: float, most: float, steps: int) -> None:
        self.alpha, self.most, self.steps = alpha, most, steps

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return α·J(x) + (1 − α)·J(x + δ)."""
        attacked = self.attacked(module, batch)
        clean = F.cross_entropy(module(batch.inputs), batch.labels)
        return self.alpha * clean + (1 - self.alpha) * F.cross_entropy(module(attacked), batch.labels)

    def attacked(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """
        Return the attacked images, (N, C, H, W).

        The module's mode is evaluation meanwhile: batch norm must not learn from the attack's own passes.
        """
        epsilon = drawn(batch.draws, len(batch.labels), self.most, batch.inputs).view(-1, 1, 1, 1)
        start = torch.from_numpy(batch.draws.random(tuple(batch.inputs.shape), "f4")).to(batch.inputs)
        ball = Steps(batch.inputs, epsilon, STEP * epsilon, "linf")
        images = ball.inside(batch.inputs + epsilon * (2 * start - 1))
        training = module.training
        module.eval()
        try:
            for _ in range(self.steps):
                slope, _ = gradient(module, images, batch.labels, decision=self.decision)
                images = ball.along(images, slope, spend=True)
        finally:
            module.train(training)
        return images


def fit(
    module: nn.Module,
    images: Images,
    job: Job,
    *,
    alpha: float = 0.5,
    epsilon: float = 0.3,
    steps: int = 7,
    **plan: Any,
) -> nn.Module:
    """Train with ``alpha`` on the clean images and ``steps`` of each attack; ``epsilon`` is the largest of them."""
    if not 0 <= alpha < 1:
        raise ValueError(f"`alpha` must be at least 0 and below 1, got {alpha}; 0 trains on attacked images alone")
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}; 7 are usual")
    return train(module, images, job, Iterated(alpha, epsilon, steps), Plan(**plan))
