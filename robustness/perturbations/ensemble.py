"""Attacks in turn on one batch, and the ladder of radii that lets strengths share their work."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from robustness.perturbations.attack import misleads, model_logits
from robustness.perturbations.base import Batch, Perturbation, seeded
from robustness.perturbations.fab import FAB
from robustness.perturbations.gradients import NON_FINITE, STUCK
from robustness.perturbations.square import Square

NOBODY = -1
"""In place of a member's number: no member misled the image."""


@dataclass
class Ensemble:
    """The members on one batch; FAB's closest examples serve all strengths."""

    batch: Batch
    members: list[Perturbation]
    clean_logits: Tensor
    passes: int = 1
    """Passes by which a random model's decisions are counted."""
    correct: Tensor = field(init=False)
    """The images that are right without a perturbation, (N,), all if the model is random; padding is not."""
    closest: Tensor = field(init=False)
    """FAB's closest examples, (N, C, H, W), of the images whose distance is known."""
    distances: Tensor = field(init=False)
    """Their distances, (N,); NaN for the other images."""

    def __post_init__(self) -> None:
        self.closest = self.batch.inputs.clone()
        self.distances = torch.full_like(self.clean_logits[:, 0], math.nan)
        self._faults: dict[str, Tensor] = {}
        self.correct = torch.ones_like(self.batch.labels, dtype=torch.bool)
        if self.passes == 1:
            self.correct = ~self._misled(self.clean_logits, slice(None))
        if self.batch.size is not None:
            self.correct[self.batch.size :] = False

    def _misled(self, logits: Tensor, rows: Tensor | slice) -> Tensor:
        misled = misleads(logits, self.batch.labels[rows], None, self.batch.decision, "cross_entropy")
        return misled | ~logits.isfinite().all(1)

    def misled(self, open_: Tensor, images: Tensor) -> Tensor:
        """Return which of the open images, (N,), these images, (N, C, H, W), mislead."""
        misled, rows = torch.zeros_like(open_), open_.nonzero().flatten()
        if len(rows):
            misled[rows] = self._misled_on_average(images[rows], rows)
        return misled

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
            misled = self._misled_on_average(perturbed, rows)
            images[rows] = perturbed
            misled_by[rows[misled]] = number
            rows = rows[~misled]
        if (stuck := self.batch.marked.get(STUCK)) is not None:  # an image that a member misled needs no gradient
            stuck &= (misled_by == NOBODY)[: len(stuck)]
        return images, misled_by

    def _misled_on_average(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return which images mislead in most passes; a model without random outputs needs one pass."""
        with torch.no_grad():
            votes = [self._misled(model_logits(self.batch.attacked, images), rows) for _ in range(self.passes)]
        return torch.stack(votes).float().mean(0) > 0.5

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
        part.marked = self._counted(part)
        self.batch.counted(part, rows)
        return perturbed

    def _closest_within(self, member: FAB, rows: Tensor, radii: Tensor) -> Tensor:
        """Return FAB's examples at distances of at most the radii, else the images; each image is searched once."""
        unknown = rows[self.distances[rows].isnan()]
        if len(unknown):
            part = self.batch.some(unknown)
            with torch.no_grad():
                found = member.closest(part, self.clean_logits[unknown])
            part.count(STUCK, found.masked)
            self.closest[unknown], self.distances[unknown] = found.examples, found.distances
            for name, flags in self._counted(part).items():
                self._faults.setdefault(name, torch.zeros_like(self.correct))[unknown] = flags
        asked = torch.zeros_like(self.correct)
        asked[rows] = True
        for name, flags in self._faults.items():  # of the one search, at every radius that shows its examples
            self.batch.count(name, flags & asked)
        near = self.distances[rows] <= radii
        return torch.where(near.view(-1, 1, 1, 1), self.closest[rows], self.batch.inputs[rows])

    def _counted(self, part: Batch) -> dict[str, Tensor]:
        """Return the invalid gradients of a part that are faults; a zero gradient is none if Square is a member."""
        faults = {NON_FINITE} if any(isinstance(member, Square) for member in self.members) else {NON_FINITE, STUCK}
        return {name: flags for name, flags in part.take_marks().items() if name in faults}


class Ladder:
    """
    The smallest of some radii at which each image is misled, and the examples of all radii.

    Radii are tried from the largest down, each on the images that the larger one misled. An attack that succeeds stops
    early, so an image costs little more than one attack that fails. At the next radius, every image is first shown its
    change of the larger one, shrunk to the ball: it may mislead already, also an image that resisted.
    """

    def __init__(self, run: Ensemble, radii: list[float]) -> None:
        self._first = torch.where(run.correct, len(radii), -1)
        """The number of the smallest radius that misleads; -1 if the image is misled without a change."""
        self._shown: dict[int, Tensor] = {}
        self._untried: dict[int, Tensor] = {}
        self._misled_by = torch.full_like(run.batch.labels, NOBODY)
        inputs, shown, open_ = run.batch.inputs, run.batch.inputs, run.correct
        for level in reversed(range(len(radii))):
            top = level == len(radii) - 1
            settled = torch.zeros_like(open_) if top else run.misled(run.correct, shown)
            attacked, misled_by = run.attack(open_ & ~settled, torch.full_like(run.distances, radii[level]))
            shown = torch.where((open_ & ~settled).view(-1, 1, 1, 1), attacked, shown)
            self._shown[level], self._untried[level] = shown, run.correct & ~open_ & ~settled
            # An image that resisted, and whose shrunk change misleads, has that change of the last member.
            misled_by = torch.where(settled & (self._misled_by == NOBODY), len(run.members) - 1, misled_by)
            self._misled_by = torch.where(misled_by != NOBODY, misled_by, self._misled_by)
            open_ = settled | (misled_by != NOBODY)
            self._first[open_] = level
            shown = torch.lerp(inputs, shown, radii[level - 1] / radii[level])

    def untried(self, level: int) -> Tensor:
        """Return the images, (N,), that are not attacked at a radius because they resist at a larger one."""
        return self._untried[level] & (self._first > level)

    def at(self, level: int) -> tuple[Tensor, Tensor]:
        """Return the images at one radius, and the number of the member that misled each."""
        images = self._shown[level].clone()
        for lower in range(level):
            rows = self._first == lower
            images[rows] = self._shown[lower][rows]
        reached = (self._first >= 0) & (self._first <= level)
        return images, torch.where(reached, self._misled_by, NOBODY)
