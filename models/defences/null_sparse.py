"""NULL labelling as it was published: attacks that change few features, weighed by how many (Hosseini et al. 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.defences.null import targets
from models.loop import Plan, train
from models.objectives import Minibatch, Objective, soft_cross_entropy
from robustness.data.images import Images
from robustness.data.splits import held_out, some
from robustness.decisions import Argmax, Decision, Null
from robustness.errors import TrainingError
from robustness.perturbations.base import Batch
from robustness.perturbations.stg import STG
from robustness.workspace.recipes import Job


def changed(module: nn.Module, inputs: Tensor, labels: Tensor, budget: Tensor, decision: Decision) -> Tensor:
    """Return images with at most ``budget`` (N,) features changed by STG; the module's mode is put back."""
    training = module.training
    module.eval()
    try:
        return STG().prepare(Batch(module, inputs, labels, decision=decision))(budget, torch.empty_like(inputs))
    finally:
        module.train(training)


def counted(inputs: Tensor, attacked: Tensor) -> Tensor:
    """
    Count the features of each image, (N,), that differ.

    >>> counted(torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]]))
    tensor([2])
    """
    return (inputs != attacked).flatten(1).sum(1)


class Sparse(Objective):
    """
    After ``clean_epochs`` without, half of the images attacked, each with a budget of its own, at most ``features``.

    p(NULL) is the share of ``sizes`` that are no larger than the attack: what attacks of other images needed.
    """

    decision = Null()

    def __init__(self, sizes: Tensor, right: float, features: int, clean_epochs: int) -> None:
        self.sizes, self.right = sizes.sort().values, right
        self.features, self.clean_epochs = features, clean_epochs

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the cross-entropy of the NULL targets."""
        inputs, null = batch.inputs, torch.zeros(len(batch.labels), device=batch.inputs.device)
        if batch.epoch >= self.clean_epochs:
            count = len(batch.labels)
            chosen = torch.from_numpy(batch.draws.permutation(count)[: count // 2]).to(inputs.device)
            budget = torch.from_numpy(batch.draws.integers(1, self.features + 1, len(chosen))).to(inputs)
            inputs = inputs.clone()
            inputs[chosen] = changed(module, inputs[chosen], batch.labels[chosen], budget, self.decision)
            null[chosen] = self.share(counted(batch.inputs[chosen], inputs[chosen]))
        logits = module(inputs)
        return soft_cross_entropy(logits, targets(batch.labels, null, self.right, logits.shape[1] - 1))

    def share(self, size: Tensor) -> Tensor:
        """
        Return the share, (N,), of the known attacks that are no larger; 0 for an image that nothing has changed.

        >>> Sparse(torch.tensor([1, 2, 2, 5]), 0.8, 5, 0).share(torch.tensor([0, 2, 7]))
        tensor([0.0000, 0.7500, 1.0000])
        """
        found = torch.searchsorted(self.sizes, size, right=True).float() / len(self.sizes)
        return torch.where(size > 0, found, 0.0)

    def settled(self, epoch: int) -> bool:
        """Return whether attacks have begun."""
        return epoch >= self.clean_epochs

    def to(self, device: str) -> None:
        """Move the sizes."""
        self.sizes = self.sizes.to(device)


def sizes(module: nn.Module, images: Images, features: int) -> Tensor:
    """Return how many features attacks on images that a classifier has right need, at most ``features``."""
    found = []
    for start in range(0, len(images), 100):
        inputs = torch.from_numpy(images.batch(start, start + 100))
        labels = torch.from_numpy(images.labels[start : start + 100].astype(np.int64))
        attacked = changed(module, inputs, labels, torch.full((len(inputs),), float(features)), Argmax())
        found.append(counted(inputs, attacked))
    needed = torch.cat(found)
    if not bool((needed > 0).any()):
        raise TrainingError(
            "`attacked` must name a classifier that has some images right and can be attacked, got one where no "
            f"attack changed any of {len(needed)} images; train it first"
        )
    return needed[needed > 0]


def fit(
    module: nn.Module,
    images: Images,
    job: Job,
    *,
    right: float = 0.8,
    features: int = 30,
    clean_epochs: int = 0,
    count: int | None = None,
    **plan: Any,
) -> nn.Module:
    """
    Train on ``count`` of the images (None: all); ``needs = { attacked = "classifier.toml" }``.

    Attacks on that classifier and the held-out images say how large an attack is. One attack costs up to
    ``features`` passes, where the L∞ variant's costs one.
    """
    if "attacked" not in job.needs:
        raise TrainingError(
            f"`needs` must name the attacked classifier, got {', '.join(job.needs) or 'none'}; add its card's file"
        )
    planned = Plan(**plan)
    if count is not None and count < len(images):
        images = images.select(some(images.labels, count, job.seed), f"{count} of {images.name}")
    _, rows = held_out(images.labels, images.groups, planned.held_out, job.seed)
    found = sizes(job.needs["attacked"], images.select(rows, f"held-out of {images.name}"), features)
    return train(module, images, job, Sparse(found, right, features, clean_epochs), planned)
