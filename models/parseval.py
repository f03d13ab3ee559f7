"""Parseval networks: weights kept near tight frames, and sums in residual blocks kept convex (Cisse et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

BETA = 0.001
"""The paper's; the weights come near a tight frame only over thousands of steps."""


def weights(module: nn.Module) -> Iterator[Tensor]:
    """Return the weight of every convolution and linear layer."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            yield layer.weight


@torch.no_grad()
def orthogonal_(module: nn.Module) -> nn.Module:
    """Draw every weight anew, as a matrix (out, in·kh·kw) whose singular values are all 1."""
    for weight in weights(module):
        nn.init.orthogonal_(weight)
    return module


@torch.no_grad()
def tighten_(weight: Tensor, beta: float = BETA) -> Tensor:
    """
    Go one step W ← (1 + β)W − β·W·Wᵀ·W, rows of W being outputs (Cisse et al. 2017, equation 11).

    Each singular value σ becomes σ + β·σ·(1 − σ²): those above 0 go to 1, those of 0 stay. With none above 1,
    ‖Wx − Wy‖₂ ≤ ‖x − y‖₂. A convolution sees each pixel once for every place of its kernel, so that one of k × k may
    still expand distances, by up to k.

    >>> weight = torch.tensor([[0.5, 0.0], [0.0, 1.0]])
    >>> tighten_(weight, 0.5).tolist()
    [[0.6875, 0.0], [0.0, 1.0]]
    """
    rows = weight.flatten(1)
    moved = (1 + beta) * rows - beta * rows @ rows.T @ rows
    return weight.copy_(moved.view_as(weight))


def simplex(values: Tensor) -> Tensor:
    """
    Return the nearest point whose entries are not negative and sum to 1, along the last axis (Duchi et al. 2008).

    >>> simplex(torch.tensor([[0.5, 0.5], [2.0, 0.0], [0.5, 1.0]])).tolist()
    [[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]
    """
    falling = values.sort(-1, descending=True).values
    places = torch.arange(1, values.shape[-1] + 1, device=values.device)
    excess = (falling.cumsum(-1) - 1) / places
    count = (falling > excess).sum(-1, keepdim=True)
    return (values - excess.gather(-1, count - 1)).clamp(min=0)


class Convex(nn.Module):
    """
    λ·a + (1 − λ)·b instead of a residual block's a + b: 0.5 at first, and trained.

    ``sigmoid`` makes λ of a number without bounds; else the two coefficients are projected onto the simplex after each
    step (`constrain_`).

    >>> Convex()(torch.tensor(1.0), torch.tensor(0.0)).item()
    0.5
    """

    def __init__(self, sigmoid: bool = False) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.coefficients = nn.Parameter(torch.zeros(1) if sigmoid else torch.full((2,), 0.5))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the convex sum of two tensors of one shape."""
        share = self.coefficients.sigmoid()[0] if self.sigmoid else self.coefficients[0]
        rest = 1 - share if self.sigmoid else self.coefficients[1]
        return share * one + rest * other


@torch.no_grad()
def constrain_(module: nn.Module, beta: float = BETA) -> nn.Module:
    """Do what a Parseval network does after each update: a step to tight frames, and coefficients onto the simplex."""
    for weight in weights(module):
        tighten_(weight, beta)
    for layer in module.modules():
        if isinstance(layer, Convex) and not layer.sigmoid:
            layer.coefficients.copy_(simplex(layer.coefficients))
    return module


def constrained(optimizer: torch.optim.Optimizer, module: nn.Module, beta: float = BETA) -> torch.optim.Optimizer:
    """Have an optimizer constrain its module after every step."""

    def after(*_: Any) -> None:
        constrain_(module, beta)

    optimizer.register_step_post_hook(after)
    return optimizer
