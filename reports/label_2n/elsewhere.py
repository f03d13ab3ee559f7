"""The recipe of a variant of 2N: its examples are made on another, trained network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from models.defences.attacked import half
from models.defences.twon import Labelled
from models.loop import Plan, train
from models.objectives import Minibatch, smoothed
from robustness.data.images import Images
from robustness.decisions import Argmax
from robustness.workspace.recipes import Job


class Elsewhere(Labelled):
    """The objective of 2N with examples made on another network."""

    def __init__(self, attacked: nn.Module, right: float, most: float) -> None:
        super().__init__(right, most)
        self.attacked = attacked.eval().requires_grad_(False)

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the cross-entropy over 2N labels."""
        inputs, epsilon = half(self.attacked, batch, self.most, Argmax())
        logits = module(inputs)
        labels = batch.labels + (epsilon > 0) * (logits.shape[1] // 2)
        return smoothed(logits, labels, self.right)

    def to(self, device: str) -> None:
        """Move the attacked network."""
        self.attacked.to(device)


def fit(module: nn.Module, images: Images, job: Job, *, right: float = 0.8, epsilon: float = 0.3, **plan: Any) -> Any:
    """Train 2N on examples made on another network: ``needs = { attacked = "classifier.toml" }``."""
    return train(module, images, job, Elsewhere(job.needs["attacked"], right, epsilon), Plan(**plan))
