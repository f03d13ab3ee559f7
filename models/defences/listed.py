"""Adversarial training on half of each batch, with ε from a list, in deviations of each image (eyes-parseval)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.defences.attacked import fgsm
from models.loop import Plan, train
from models.objectives import Minibatch, Objective
from robustness.data.images import Images
from robustness.perturbations.strength import deviations
from robustness.workspace.recipes import Job

EPSILONS = (0.001, 0.003, 0.005, 0.01, 0.03)
"""The paper's."""


class Listed(Objective):
    """Cross-entropy of a minibatch of which half is replaced by FGSM examples made on the module as it is."""

    def __init__(self, epsilons: Sequence[float]) -> None:
        self.epsilons = epsilons

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the mean over all, clean and attacked."""
        count = len(batch.labels)
        chosen = torch.from_numpy(batch.draws.permutation(count)[: count // 2]).to(batch.rows.device)
        picked = torch.tensor(self.epsilons)[
            torch.from_numpy(batch.draws.integers(len(self.epsilons), size=len(chosen)))
        ]
        some = batch.inputs[chosen]
        epsilon = picked.to(some) * deviations(some).flatten()
        inputs = batch.inputs.clone()
        inputs[chosen] = fgsm(module, some, batch.labels[chosen], epsilon, self.decision)
        return F.cross_entropy(module(inputs), batch.labels)


def fit(module: nn.Module, images: Images, job: Job, *, epsilons: Sequence[float] = EPSILONS, **plan: Any) -> nn.Module:
    """Train with ``epsilons`` in standard deviations of each image's pixels."""
    if not epsilons or not all(epsilon > 0 for epsilon in epsilons):
        raise ValueError(f"`epsilons` must name at least one size above 0, got {list(epsilons)}; the paper has five")
    return train(module, images, job, Listed(epsilons), Plan(**plan))
