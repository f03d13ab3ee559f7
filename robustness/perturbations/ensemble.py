"""Attacks in turn on one batch, and the bisection of radii that lets strengths share their work."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from robustness.perturbations.attack import misleads, model_logits
from robustness.perturbations.base import Batch, Perturbation, seeded
from robustness.perturbations.fab import FAB
from robustness.perturbations.gradients import NON_FINITE

NOBODY = -1
"""In place of a member's number: no member misled the image."""


@dataclass
class Ensemble:
    """The members on one batch; FAB's closest examples serve all strengths."""

    batch: Batch
    members: list[Perturbation]
    clean_logits: Tensor
    correct: Tensor = field(init=False)
    """The images that are right without a perturbation, (N,); padding is not."""
    closest: Tensor = field(init=False)
    """FAB's closest examples, (N, C, H, W), of the images whose distance is known."""
    distances: Tensor = field(init=False)
    """Their distances, (N,); NaN for the other images."""

    def __post_init__(self) -> None:
        self.closest = self.batch.inputs.clone()
        self.distances = torch.full_like(self.clean_logits[:, 0], math.nan)
        self.correct = ~self._misled(self.clean_logits, slice(None))
        if self.batch.size is not None:
            self.correct[self.batch.size :] = False

    def _misled(self, logits: Tensor, rows: Tensor | slice) -> Tensor:
        misled = misleads(logits, self.batch.labels[rows], None, self.batch.decision, "cross_entropy")
        return misled | ~logits.isfinite().all(1)

    def attack(self, open_: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
        """
        Attack the open images, (N,), each in its ball of radius (N,).

        Return the examples, (N, C, H, W), and the number of the member that misled each image, (N,). An image that
        resists is shown with the last member's change.
        """
        images = self.batch.inputs.clone()
        misled_by = torch.full_like(self.batch.labels, NOBODY)
        rows = open_.nonzero().flatten()
        for number, member in enumerate(self.members):
            if not len(rows):
                break
            perturbed = self._perturb(member, number, rows, radii[rows])
            with torch.no_grad():
                misled = self._misled(model_logits(self.batch.attacked, perturbed), rows)
            images[rows] = perturbed
            misled_by[rows[misled]] = number
            rows = rows[~misled]
        return images, misled_by

    def _perturb(self, member: Perturbation, number: int, rows: Tensor, radii: Tensor) -> Tensor:
        """Return one member's images for some rows."""
        if isinstance(member, FAB):
            return self._closest_within(member, rows, radii)
        part = self.batch.some(rows)
        assert self.batch.drawn is not None
        shape = (1, *part.inputs.shape[1:])
        seeds = self.batch.drawn[rows].long().tolist()
        draws = [member.draw(seeded(*seed, number), shape) for seed in seeds]
        arrays = [array for array in draws if array is not None]
        if arrays:
            part.drawn = torch.from_numpy(np.concatenate(arrays)).to(part.inputs)
        perturb = member.prepare(part)
        perturbed = perturb(radii.view(-1, *(1,) * (part.inputs.dim() - 1)), torch.empty_like(part.inputs))
        self._count(part, rows)
        return perturbed

    def _closest_within(self, member: FAB, rows: Tensor, radii: Tensor) -> Tensor:
        """Return FAB's examples at distances of at most the radii, else the images; each image is searched once."""
        unknown = rows[self.distances[rows].isnan()]
        if len(unknown):
            part = self.batch.some(unknown)
            with torch.no_grad():
                found = member.closest(part, self.clean_logits[unknown])
            self.closest[unknown], self.distances[unknown] = found.examples, found.distances
            self._count(part, unknown)
        near = self.distances[rows] <= radii
        return torch.where(near.view(-1, 1, 1, 1), self.closest[rows], self.batch.inputs[rows])

    def _count(self, part: Batch, rows: Tensor) -> None:
        """Hand on the counts of invalid gradients; a gradient of zero is no fault, because Square needs none."""
        part.marked = {name: flags for name, flags in part.marked.items() if name == NON_FINITE}
        self.batch.counted(part, rows)


class Ladder:
    """The smallest of some radii at which each image is misled, found by bisection, and the examples of all radii."""

    def __init__(self, run: Ensemble, radii: list[float]) -> None:
        self._inputs, labels = run.batch.inputs, run.batch.labels
        count = len(radii)
        self._first = torch.where(run.correct, count, -1).to(labels.device)
        """The number of the smallest radius that is known to mislead; -1 if the image is misled without a change."""
        resists = torch.full_like(labels, -1)
        self._shown = {level: self._inputs.clone() for level in range(count)}
        self._misled_by = torch.full_like(labels, NOBODY)
        table = torch.tensor(radii, dtype=self._inputs.dtype, device=self._inputs.device)
        while bool((open_ := resists + 1 < self._first).any()):
            middle = torch.div(resists + self._first, 2, rounding_mode="floor").clamp(min=0, max=count - 1)
            images, misled_by = run.attack(open_, table[middle])
            misled = open_ & (misled_by != NOBODY)
            for level in range(count):
                rows = open_ & (middle == level)
                self._shown[level][rows] = images[rows]
            self._misled_by = torch.where(misled, misled_by, self._misled_by)
            self._first = torch.where(misled, middle, self._first)
            resists = torch.where(open_ & ~misled, middle, resists)

    def at(self, level: int) -> tuple[Tensor, Tensor]:
        """Return the images at one radius, and the number of the member that misled each."""
        images = self._shown[level].clone()
        for lower in range(level):
            rows = self._first == lower
            images[rows] = self._shown[lower][rows]
        reached = (self._first >= 0) & (self._first <= level)
        return images, torch.where(reached, self._misled_by, NOBODY)
