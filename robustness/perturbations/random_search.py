"""A search without gradients by squares of random signs, after Andriushchenko et al. 2020."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from robustness.perturbations.attack import GradientAttack, Norm, attack_loss, misleads, model_logits
from robustness.perturbations.base import Batch
from robustness.perturbations.fgsm import steepest_direction
from robustness.perturbations.pgd import Steps

QUERIES = 50
"""The number of queries per image."""
FIRST, LAST = 0.8, 0.02
"""The share of the image that a square covers, in the second query and in the last."""


def search(
    batch: Batch, rows: Tensor, attack: GradientAttack, norm: Norm, epsilon: float | Tensor, draws: Sequence[Draw]
) -> tuple[Tensor, Tensor]:
    """
    Search for some rows of a batch; return the perturbed images, (len(rows), C, H, W), and which of them mislead.

    Each image begins at a random corner of its ball. Each query draws new signs for a square of it, which are accepted
    unless the attack's objective falls. An image that misleads is finished. ``draws`` are the random numbers of each
    row.
    """
    chosen = batch.some(rows)
    targets = attack.targets(batch)
    targets = None if targets is None else targets[rows]
    step = Steps(batch.inputs, epsilon, epsilon, norm).of(rows)
    signs = torch.stack([draw.corner for draw in draws]).to(chosen.inputs)
    images, value = chosen.inputs.clone(), torch.full((len(rows),), -math.inf, device=signs.device)
    misled = torch.zeros(len(rows), dtype=torch.bool, device=signs.device)
    for query in range(QUERIES):
        left = (~misled).nonzero().flatten()
        if not len(left):
            break
        tried = torch.stack([draws[i].flipped(signs[i], query) for i in left.tolist()])
        within = step.of(left)
        shown = within.inside(within.inputs + within.epsilon * steepest_direction(tried, norm))
        logits, labels = model_logits(batch.attacked, shown), chosen.labels[left]
        towards = None if targets is None else targets[left]
        nothing = ~logits.isfinite().all(1)  # the sweep must see it, and error
        now = misleads(logits, labels, towards, batch.decision, attack.loss) | nothing
        reached = attack_loss(logits, labels, attack.loss, towards, batch.decision).masked_fill(nothing, math.inf)
        better = now | (reached >= value[left])
        improved = left[better]
        signs[improved], images[improved], value[improved] = tried[better], shown[better], reached[better]
        misled[left] = now
    return images, misled


class Draw:
    """The random numbers of one image: its first corner and the squares of all queries."""

    def __init__(self, numbers: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.corner = torch.from_numpy(2 * numbers.integers(0, 2, shape).astype("f4") - 1)
        self.signs = torch.from_numpy(2 * numbers.integers(0, 2, (QUERIES, shape[0])).astype("f4") - 1)
        self.places = numbers.random((QUERIES, 2))

    def flipped(self, signs: Tensor, query: int) -> Tensor:
        """Return signs (C, H, W) with a square of new signs; unchanged for the first query."""
        if not query:
            return signs
        height, width = signs.shape[1:]
        share = FIRST * (LAST / FIRST) ** (query / (QUERIES - 1))
        side = max(1, min(height, width, round(math.sqrt(share * height * width))))
        top, left = (
            int(place * (room - side + 1)) for place, room in zip(self.places[query], (height, width), strict=True)
        )
        changed = signs.clone()
        changed[:, top : top + side, left : left + side] = self.signs[query].view(-1, 1, 1).to(signs)
        return changed
