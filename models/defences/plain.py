"""No defence: cross-entropy on the images as they are; with a temperature, the teacher of distillation."""

from __future__ import annotations

from typing import Any

from torch import nn

from models.loop import Plan, train
from models.objectives import Plain
from robustness.data.images import Images
from robustness.workspace.recipes import Job


def fit(
    module: nn.Module, images: Images, job: Job, *, right: float = 1.0, temperature: float = 1.0, **plan: Any
) -> nn.Module:
    """Train by cross-entropy with ``right`` on the true class."""
    return train(module, images, job, Plain(right, temperature), Plan(**plan))
