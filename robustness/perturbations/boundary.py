"""The closest misclassified images, by steps onto linearised decision boundaries (Croce and Hein 2020, FAB)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustness.decisions import Argmax
from robustness.perturbations.attack import Norm, misleads, model_logits
from robustness.perturbations.base import Batch
from robustness.perturbations.gradients import NON_FINITE, input_gradient

# The least length of a step in the weights of the two steps.
LEAST_LENGTH = 1e-8


@dataclass(frozen=True)
class StepRule:
    """The norm, and the numbers α_max, η and β of FAB."""

    norm: Norm
    alpha_max: float
    eta: float
    beta: float


class ClosestExamples:
    """
    The closest example of each image of a batch, (N, C, H, W), and its distance, (N,).

    An example of an image that is misled without a change is the image, at distance 0. Images of which none is known
    have infinite distance. Padding counts as misled. ``masked`` images have no gradient: none towards any class at the
    first steps, or none at a later step of a search that ends without an example.
    """

    def __init__(self, batch: Batch, rule: StepRule, clean_logits: Tensor) -> None:
        self._batch, self._rule = batch, rule
        self.examples = batch.inputs.clone()
        correct = ~self._misled(clean_logits, batch.labels)
        correct[len(correct) if batch.size is None else batch.size :] = False
        self.distances = torch.where(correct, math.inf, 0.0)
        self._flat_start, self._flat = correct.clone(), torch.zeros_like(correct)

    @property
    def masked(self) -> Tensor:
        """Which images have no gradient, (N,)."""
        return self._flat & (self._flat_start | self.distances.isinf())

    def within(self, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """Return the examples at distances of at most ε, (N,), else the images; and which images have one."""
        found = self.distances <= epsilon
        return torch.where(found.view(-1, 1, 1, 1), self.examples, self._batch.inputs), found

    def run(self, rows: Tensor, targets: Tensor, start: Tensor, steps: int) -> None:
        """Search towards one class of each of some images, (n,), from a start, (n, C, H, W)."""
        batch, rule = self._batch, self._rule
        inputs, labels, current = batch.inputs[rows], batch.labels[rows], start
        for step in range(steps):
            value, normal, flat = self._linearised(current, rows, targets)
            self._flat[rows] |= flat
            if not step:
                self._flat_start[rows] &= flat
            forward = to_boundary(current, normal, value, rule.norm)
            value = value + (normal * (inputs - current)).flatten(1).sum(1)
            direct = to_boundary(inputs, normal, value, rule.norm)
            lengths = [lengths_of(change, rule.norm).clamp(min=LEAST_LENGTH) for change in (forward, direct)]
            alpha = (lengths[0] / (lengths[0] + lengths[1])).clamp(max=rule.alpha_max)
            current = (current + rule.eta * forward) * (1 - alpha) + (inputs + rule.eta * direct) * alpha
            current = current.clamp_(0, 1)
            misled = self._misled(model_logits(batch.attacked, current), labels)
            distances = lengths_of(current - inputs, rule.norm).flatten()
            closer = misled & (distances < self.distances[rows])
            self.examples[rows[closer]], self.distances[rows[closer]] = current[closer], distances[closer]
            current = torch.where(misled.view(-1, 1, 1, 1), inputs + (current - inputs) * rule.beta, current)

    def _misled(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return which images are misclassified, or have logits that are no numbers: the sweep must see these."""
        return misleads(logits, labels, None, self._batch.decision, "cross_entropy") | ~logits.isfinite().all(1)

    def _linearised(self, images: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the target's score less the label's, its gradient, and where that is zero; both 0 if not finite."""
        batch, size = self._batch, self._batch.at_once or len(images)
        labels, values, normals = batch.labels[rows], [], []
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            with torch.enable_grad():
                leaf = images[part].detach().requires_grad_()
                scores = scores_of(batch, model_logits(batch.attacked, leaf))
                target, label = (scores.gather(1, classes[part, None]).squeeze(1) for classes in (targets, labels))
                normals.append(input_gradient(target - label, leaf))
                values.append((target - label).detach())
        value, normal = torch.cat(values), torch.cat(normals)
        flat = normal.flatten(1).abs().amax(1) == 0
        if bool((bad := ~(value.isfinite() & normal.flatten(1).isfinite().all(1))).any()):
            counted = torch.zeros_like(self._flat)
            counted[rows] = bad
            batch.count(NON_FINITE, counted)
            value, normal = value.masked_fill(bad, 0), normal.masked_fill(bad.view(-1, 1, 1, 1), 0)
        return value, normal, flat


def scores_of(batch: Batch, logits: Tensor) -> Tensor:
    """Return the scores of the classes, (n, classes): the logits themselves where they are the decision's."""
    return logits if isinstance(batch.decision, Argmax) else batch.decision.log_probabilities(logits)


def likeliest_wrong_classes(batch: Batch, logits: Tensor, count: int) -> Tensor:
    """Return at most ``count`` wrong classes of each image, (n, count), the likeliest first."""
    scores = scores_of(batch, logits).scatter(1, batch.labels[:, None], -torch.inf)
    return scores.topk(min(count, scores.shape[1] - 1), 1).indices


def lengths_of(change: Tensor, norm: Norm) -> Tensor:
    """Return the length of each change, (n, 1, 1, 1)."""
    lengths: Tensor = torch.linalg.vector_norm(change.flatten(1), math.inf if norm == "linf" else 2, dim=1)
    return lengths.view(-1, 1, 1, 1)


def to_boundary(images: Tensor, normal: Tensor, value: Tensor, norm: Norm) -> Tensor:
    """
    Return the shortest change, within [0, 1], after which linear functions with some values (n,) are zero.

    If none does, return the change to the corner where the function is nearest to zero. Each pixel moves by
    min(λ·s, r): r is its room, s is 1 for L∞ and the size of its weight for L2. The change of the function is concave
    and piecewise linear in λ, so Newton's method from λ = 0 never overshoots: pixels use up their room one group after
    another, and it ends, exactly, when no further one does.

    >>> image, normal = torch.tensor([[[[0.5, 0.9]]]]), torch.tensor([[[[1.0, 1.0]]]])
    >>> [round(change, 3) for change in to_boundary(image, normal, torch.tensor([-0.4]), "linf").flatten().tolist()]
    [0.3, 0.1]
    """
    flat, normal_ = images.flatten(1), normal.flatten(1)
    scale = normal_.abs().amax(1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1)
    weight, gap = normal_.abs() / scale, value.abs()[:, None] / scale
    ahead = (normal_ > 0) == (value < 0)[:, None]
    room = torch.where(weight > 0, torch.where(ahead, 1 - flat, flat), 0)
    speed = torch.ones_like(weight) if norm == "linf" else weight
    gains, rates = weight * room, weight * speed
    limits = torch.where(weight > 0, room / speed, math.inf)
    spent = torch.zeros_like(gap)
    while True:
        rate = rates.sum(1, keepdim=True)
        lam = torch.where(rate > 0, ((gap - spent) / rate).clamp(min=0), math.inf)
        full = limits <= lam.clamp(max=torch.finfo(lam.dtype).max)
        if not bool(full.any()):
            break
        spent += (gains * full).sum(1, keepdim=True)
        limits.masked_fill_(full, math.inf)
        rates.masked_fill_(full, 0)
    size = torch.minimum(torch.where(weight > 0, lam * speed, 0), room)
    return torch.where(ahead, size, -size).view_as(images)
