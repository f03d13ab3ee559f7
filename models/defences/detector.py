"""BIN: a detector of two outputs, clean and attacked, beside a classifier (label-2n, section 5)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.defences.attacked import half
from models.loop import Plan, train
from models.objectives import Minibatch, Objective
from robustness.data.images import Images
from robustness.decisions import Argmax
from robustness.errors import TrainingError
from robustness.workspace.recipes import Job


class Detecting(Objective):
    """Cross-entropy of clean against attacked, half of the images each; examples are made on ``attacked``."""

    def __init__(self, attacked: nn.Module, most: float) -> None:
        self.attacked, self.most = attacked.eval().requires_grad_(False), most

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the cross-entropy of the two labels."""
        inputs, epsilon = half(self.attacked, batch, self.most, Argmax())
        return F.cross_entropy(module(inputs), (epsilon > 0).long())

    def judge(self, module: nn.Module, batch: Minibatch) -> tuple[Tensor, Tensor]:
        """Return the loss, and the share of clean images that are taken for clean."""
        with torch.no_grad():
            right = (module(batch.inputs).argmax(1) == 0).float().mean()
        return self.loss(module, batch).detach(), right

    def to(self, device: str) -> None:
        """Move the attacked classifier."""
        self.attacked.to(device)


def fit(module: nn.Module, images: Images, job: Job, *, epsilon: float = 0.3, **plan: Any) -> nn.Module:
    """Train a detector of attacks on a classifier: ``needs = { attacked = "classifier.toml" }``."""
    if "attacked" not in job.needs:
        raise TrainingError(
            f"`needs` must name the attacked classifier, got {', '.join(job.needs) or 'none'}; add its card's file"
        )
    return train(module, images, job, Detecting(job.needs["attacked"], epsilon), Plan(**plan))


class Filtered(nn.Module):
    """
    A classifier and a detector side by side: N logits, then the detector's two.

    >>> Filtered(nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))(torch.zeros(1, 1, 2, 2)).shape
    torch.Size([1, 6])
    """

    def __init__(self, classifier: nn.Module, detector: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.detector = detector

    def forward(self, inputs: Tensor) -> Tensor:
        """Return all logits, (N, classes + 2)."""
        return torch.cat([self.classifier(inputs), self.detector(inputs)], 1)


def join(module: nn.Module, images: Images, job: Job) -> nn.Module:
    """Put a trained classifier and a trained detector together: ``needs = { classifier = …, detector = … }``."""
    if not isinstance(module, Filtered) or set(job.needs) != {"classifier", "detector"}:
        raise TrainingError(
            "`needs` must name a classifier and a detector for a factory that gives a Filtered, got "
            f"{', '.join(job.needs) or 'none'} for a {type(module).__name__}"
        )
    module.classifier.load_state_dict(job.needs["classifier"].state_dict())
    module.detector.load_state_dict(job.needs["detector"].state_dict())
    return module.eval()
