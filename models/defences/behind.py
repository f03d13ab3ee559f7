"""CDAEC's classifier: trained on what a trained autoencoder makes of the images (label-2n, section 5)."""

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


class Behind(Objective):
    """Cross-entropy of a classifier behind ``autoencoder``; half of the images attacked on ``attacked``."""

    def __init__(self, autoencoder: nn.Module, attacked: nn.Module, most: float) -> None:
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.attacked, self.most = attacked.eval().requires_grad_(False), most

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the mean cross-entropy of the denoised images, clean and attacked, with their true labels."""
        inputs, _ = half(self.attacked, batch, self.most, self.decision)
        return F.cross_entropy(module(self._denoised(inputs)), batch.labels)

    def judge(self, module: nn.Module, batch: Minibatch) -> tuple[Tensor, Tensor]:
        """Return the loss, and the accuracy on clean images behind the autoencoder."""
        with torch.no_grad():
            right = (module(self._denoised(batch.inputs)).argmax(1) == batch.labels).float().mean()
        return self.loss(module, batch).detach(), right

    def to(self, device: str) -> None:
        """Move the autoencoder and the attacked classifier."""
        self.autoencoder.to(device)
        self.attacked.to(device)

    def _denoised(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            denoised: Tensor = self.autoencoder(inputs)
        return denoised


def fit(module: nn.Module, images: Images, job: Job, *, epsilon: float = 0.3, **plan: Any) -> nn.Module:
    """
    Train the classifier behind an autoencoder that `models.defences.denoising` trained, which stays as it is.

    ``needs = { denoised = "autoencoder.toml", attacked = "classifier.toml" }``: the trained autoencoder, and the
    classifier that examples are made on, the same one as in the training of the autoencoder.
    """
    if not isinstance(module, Denoised) or set(job.needs) != {"denoised", "attacked"}:
        raise TrainingError(
            "`needs` must name the trained autoencoder (denoised) and the attacked classifier, for a factory that "
            f"gives a Denoised, got {', '.join(job.needs) or 'none'} for a {type(module).__name__}"
        )
    made = job.needs["denoised"]
    if not isinstance(made, Denoised):
        raise TrainingError(f"`needs.denoised` must be a Denoised, got a {type(made).__name__}; name its card's file")
    module.autoencoder.load_state_dict(made.autoencoder.state_dict())
    train(module.classifier, images, job, Behind(made.autoencoder, job.needs["attacked"], epsilon), Plan(**plan))
    return module.eval()
