"""Examples made during training: FGSM on the module as it is, on the original label (label-2n, section 5)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.objectives import Minibatch
from robustness.decisions import Decision
from robustness.perturbations.gradients import gradient


def drawn(draws: np.random.Generator, count: int, most: float, like: Tensor) -> Tensor:
    """Draw ε ~ U(0, ``most``) for each image, (N,)."""
    return torch.from_numpy(most * draws.random(count, "f4")).to(like)


def fgsm(module: nn.Module, inputs: Tensor, labels: Tensor, epsilon: Tensor, decision: Decision) -> Tensor:
    """
    Return x + ε·sign(∇ₓJ), clipped, with an ε (N,) for each image; J is the cross-entropy of the decision's classes.

    The module's mode is used as evaluation and put back: batch norm must not learn from the attack's own passes.
    """
    training = module.training
    module.eval()
    try:
        found, _ = gradient(module, inputs, labels, decision=decision)
    finally:
        module.train(training)
    return stepped(inputs, found, epsilon)


def stepped(inputs: Tensor, gradient: Tensor, epsilon: Tensor) -> Tensor:
    """Return x + ε·sign(gradient), clipped to [0, 1]."""
    return torch.addcmul(inputs, gradient.sign(), epsilon.view(-1, 1, 1, 1)).clamp_(0, 1)


def half(module: nn.Module, batch: Minibatch, most: float, decision: Decision) -> tuple[Tensor, Tensor]:
    """Attack half of a minibatch; give all its images, and ε of each, 0 where it is left clean."""
    count = len(batch.labels)
    chosen = torch.from_numpy(batch.draws.permutation(count)[: count // 2]).to(batch.rows.device)
    epsilon = torch.zeros(count, device=batch.inputs.device)
    epsilon[chosen] = drawn(batch.draws, len(chosen), most, batch.inputs)
    inputs = batch.inputs.clone()
    inputs[chosen] = fgsm(module, inputs[chosen], batch.labels[chosen], epsilon[chosen], decision)
    return inputs, epsilon
