"""DISTILL: defensive distillation, a student on its teacher's soft labels (Papernot et al. 2016)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.loop import Plan, train
from models.objectives import Minibatch, Objective, soft_cross_entropy
from robustness.data.images import Images
from robustness.errors import TrainingError
from robustness.workspace.recipes import Job


class Distilled(Objective):
    """Cross-entropy with the teacher's probabilities, both at ``temperature``; the student is used at 1."""

    def __init__(self, teacher: nn.Module, temperature: float) -> None:
        self.teacher, self.temperature = teacher.eval(), temperature

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the cross-entropy with the teacher's probabilities, times the temperature (see `Plain`)."""
        with torch.no_grad():
            soft = (self.teacher(batch.inputs) / self.temperature).softmax(1)
        logits = module(batch.inputs)
        if soft.shape != logits.shape:
            raise TrainingError(
                f"`teacher` must have the student's {logits.shape[1]} outputs, got one of {soft.shape[1]}; "
                "name a card of the same classes in recipe.needs"
            )
        return self.temperature * soft_cross_entropy(logits / self.temperature, soft)

    def to(self, device: str) -> None:
        """Move the teacher."""
        self.teacher.to(device)


def fit(module: nn.Module, images: Images, job: Job, *, temperature: float = 20.0, **plan: Any) -> nn.Module:
    """Train a student; the card names the teacher: ``needs = { teacher = "teacher.toml" }``."""
    if "teacher" not in job.needs:
        raise TrainingError(f"`needs` must name a teacher, got {', '.join(job.needs) or 'none'}; add its card's file")
    return train(module, images, job, Distilled(job.needs["teacher"], temperature), Plan(**plan))
