"""Augmentation by stored examples: FGSM or noise, made once on another classifier and trained on beside the images."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.defences.attacked import fgsm
from models.loop import Plan, train
from models.objectives import Minibatch, Objective
from robustness.data.images import Images
from robustness.data.splits import some
from robustness.decisions import Argmax
from robustness.errors import TrainingError
from robustness.perturbations.strength import deviations
from robustness.util.rng import Purpose, generator
from robustness.workspace.recipes import Job


class Stored(Objective):
    """Cross-entropy of a minibatch's images and of the stored examples of those that have one, augmented alike."""

    def __init__(self, rows: np.ndarray, examples: Tensor, count: int) -> None:
        self.examples = examples
        self.place = torch.full((count,), -1)
        self.place[torch.from_numpy(rows)] = torch.arange(len(rows))

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the mean over both."""
        place = self.place[batch.rows]
        has = place >= 0
        stored = torch.zeros_like(batch.inputs)
        stored[has] = self.examples[place[has]]
        inputs = torch.cat([batch.inputs, batch.alter(stored)[has]])
        return F.cross_entropy(module(inputs), torch.cat([batch.labels, batch.labels[has]]))

    def to(self, device: str) -> None:
        """Move the examples."""
        self.examples, self.place = self.examples.to(device), self.place.to(device)


def noisy(inputs: Tensor, epsilon: Tensor, draws: np.random.Generator) -> Tensor:
    """Return x + U(−ε, ε), clipped to [0, 1], with an ε (N,) for each image."""
    noise = torch.from_numpy(draws.uniform(-1, 1, tuple(inputs.shape)).astype("f4"))
    return torch.addcmul(inputs, noise, epsilon.view(-1, 1, 1, 1)).clamp_(0, 1)


def examples(
    kind: Literal["fgsm", "noise"],
    images: Images,
    rows: np.ndarray,
    epsilon: float,
    job: Job,
    unit: Literal["native", "std"] = "native",
    batch_size: int = 100,
) -> Tensor:
    """Make the example of each chosen image, (rows, C, H, W); FGSM on the classifier that the recipe needs."""
    chosen, made = images.select(rows, f"some of {images.name}"), []
    for i, start in enumerate(range(0, len(chosen), batch_size)):
        inputs = torch.from_numpy(chosen.batch(start, start + batch_size))
        sizes = epsilon * (deviations(inputs).flatten() if unit == "std" else torch.ones(len(inputs)))
        if kind == "noise":
            made.append(noisy(inputs, sizes, generator(job.seed, Purpose.EXAMPLES, i)))
            continue
        labels = torch.from_numpy(chosen.labels[start : start + batch_size].astype(np.int64))
        made.append(fgsm(job.needs["attacked"], inputs, labels, sizes, Argmax()))
    return torch.cat(made)


def fit(
    module: nn.Module,
    images: Images,
    job: Job,
    *,
    kind: Literal["fgsm", "noise"] = "fgsm",
    share: float = 1.0,
    epsilon: float = 0.03,
    unit: Literal["native", "std"] = "native",
    **plan: Any,
) -> nn.Module:
    """
    Train on the images and on an example of a ``share`` of them, at ``epsilon`` in units of the pixel range, or with
    ``unit`` "std" in standard deviations of each image.

    FGSM needs the classifier that it is made on: ``needs = { attacked = "classifier.toml" }``.
    """
    if not 0 < share <= 1:
        raise TrainingError(f"`share` must be above 0 and at most 1, got {share:g}; 0.25 adds a quarter of the images")
    for name, value, known in (("kind", kind, ("fgsm", "noise")), ("unit", unit, ("native", "std"))):
        if value not in known:
            raise TrainingError(f"`{name}` must be one of {', '.join(known)}, got {value!r}")
    if kind == "fgsm" and "attacked" not in job.needs:
        raise TrainingError(
            f"`needs` must name the attacked classifier, got {', '.join(job.needs) or 'none'}; add its card's file"
        )
    rows = some(images.labels, max(round(share * len(images)), len(images.classes)), job.seed)
    objective = Stored(rows, examples(kind, images, rows, epsilon, job, unit), len(images))
    return train(module, images, job, objective, Plan(**plan))
