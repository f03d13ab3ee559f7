"""CDAEC: a convolutional denoising autoencoder before the classifier (label-2n, section 5)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.autoencoder import Denoised
from models.defences.attacked import half
from models.loop import Plan, train
from models.objectives import Minibatch, Objective
from robustness.data.images import Images
from robustness.errors import TrainingError
from robustness.workspace.recipes import Job


class Denoising(Objective):
    """Mean squared error to the clean image; half of the images attacked on the ``classifier`` that stands behind."""

    def __init__(self, classifier: nn.Module, most: float) -> None:
        self.classifier, self.most = classifier.eval().requires_grad_(False), most

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the mean squared error of what the autoencoder makes of the images."""
        inputs, _ = half(self.classifier, batch, self.most, self.decision)
        return F.mse_loss(module(inputs), batch.inputs)

    def judge(self, module: nn.Module, batch: Minibatch) -> tuple[Tensor, Tensor]:
        """Return the loss, and the classifier's accuracy on clean images behind the autoencoder."""
        with torch.no_grad():
            right = (self.classifier(module(batch.inputs)).argmax(1) == batch.labels).float().mean()
        return self.loss(module, batch).detach(), right

    def to(self, device: str) -> None:
        """Move the classifier."""
        self.classifier.to(device)


def fit(module: nn.Module, images: Images, job: Job, *, epsilon: float = 0.3, **plan: Any) -> nn.Module:
    """Train the autoencoder before a trained classifier: ``needs = { classifier = "classifier.toml" }``."""
    if "classifier" not in job.needs or not isinstance(module, Denoised):
        raise TrainingError(
            "`needs` must name the classifier behind the autoencoder, for a factory that gives a Denoised, got "
            f"{', '.join(job.needs) or 'none'} for a {type(module).__name__}"
        )
    module.classifier.load_state_dict(job.needs["classifier"].state_dict())
    objective = Denoising(job.needs["classifier"], epsilon)
    train(module.autoencoder, images, job, objective, Plan(**plan))
    return module.eval()
