"""FAB-T: the targeted Fast Adaptive Boundary attack (Croce and Hein 2020), which looks for the closest example."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from robustness.perturbations.attack import Norm, NormBoundedAttack
from robustness.perturbations.base import Batch, Perturb, draw_seeds, seeded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustness.perturbations.boundary import ClosestExamples


def fab(
    classifier: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "linf",
    steps: int = 100,
    target_classes: int = 9,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> tuple[Tensor, Tensor]:
    """
    Look for the closest image of another class, with FAB-T from the images themselves (`FAB`).

    Args:
        classifier: Maps images to logits (N, classes); put it in evaluation mode.
        inputs: Images (N, C, H, W) in [0, 1].
        labels: Their classes, (N,).
        norm: The norm of the distance.
        steps: Steps per target class.
        target_classes: The number of target classes, the likeliest wrong ones first.
        alpha_max: The largest weight of the step that begins at the image itself.
        eta: How far a step goes, in distances to the linearised boundary.
        beta: The fraction of its distance that an example keeps, before the search goes on.

    Returns:
        The closest misclassified images, (N, C, H, W), and their distances, (N,). The distance of an image that is
        misclassified itself is 0, that of an image without an example infinite; both are returned as they are.

    Raises:
        GradientError: If the logits do not depend on the images differentiably.

    >>> import torch
    >>> linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = linear[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> examples, distances = fab(linear, torch.tensor([[[[0.6, 0.4]]]]), torch.tensor([0]))
    >>> round(distances.item(), 2)  # (0.6 - 0.4) / 2
    0.1
    """
    import torch

    from robustness.perturbations.attack import model_logits

    attack = FAB(norm=norm, steps=steps, target_classes=target_classes, alpha_max=alpha_max, eta=eta, beta=beta)
    with torch.no_grad():
        closest = attack.closest(Batch(classifier, inputs, labels), model_logits(classifier, inputs))
    return closest.examples, closest.distances


class FAB(NormBoundedAttack):
    """
    FAB-T: the closest example of each image, by projections onto the linearised boundary to one target class at a time.

    A step goes η times the way from the iterate to the hyperplane on which the linearised logits of label and target
    are equal, within [0, 1], mixed with a step of the same kind from the image itself, whose weight is at most α_max
    (the paper's algorithm 1). An iterate that is misclassified is an example; the next step begins at β times its
    change.

    The search depends on no budget: it is done once per batch, and every strength ε shows the closest example if its
    distance is at most ε, else the image itself. Runs after the first (``restarts``) begin at random points at
    distance ε/2, with each strength anew, for the images that have no example within it.

    It follows AutoAttack's implementation, which leaves out the paper's final search between image and example. Classes
    are compared by the decision's scores; whether a detector rejects the example does not count.

    >>> FAB(norm="l2").strength_range
    (0.0, inf)
    """

    kind: Literal["fab"] = "fab"
    steps: PositiveInt = 100
    """Steps per target class and run."""
    target_classes: PositiveInt = 9
    """Wrong classes that are tried in turn, the likeliest first; all of them if there are fewer."""
    restarts: PositiveInt = 1
    """Runs per target class: the first begins at the image, others at random points at distance ε/2."""
    alpha_max: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The largest weight of the step that begins at the image itself."""
    eta: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.05
    """How far a step goes, in distances to the linearised boundary."""
    beta: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The fraction of its distance that an example keeps, before the search goes on."""
    family: ClassVar[str] = "attack"
    scalable: ClassVar[bool] = True

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray | None:
        """Draw a seed per image, if there are random starts."""
        return draw_seeds(generator, shape[0]) if self.restarts > 1 else None

    def gradients(self, strengths: Sequence[object]) -> int:
        """One per step, in each run; the first runs serve all strengths."""
        return self.steps * self.target_classes * (1 + (self.restarts - 1) * len(strengths))

    def forward_passes(self, strengths: Sequence[object]) -> int:
        """One after each step."""
        return self.gradients(strengths)

    def prepare(self, batch: Batch) -> Perturb:
        """Look for the closest examples; restarts are made at each strength."""
        import torch

        from robustness.perturbations.attack import model_logits
        from robustness.perturbations.gradients import STUCK, ZERO

        if self.restarts > 1 and batch.drawn is None:
            raise ValueError("`batch.drawn` must hold the seeds of the images, got None; sweep() draws them")
        with torch.no_grad():
            logits = model_logits(batch.attacked, batch.inputs)
            closest = self.closest(batch, logits)
        if batch.source is None:
            batch.clean_logits = logits
        batch.count(ZERO, closest.masked)

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            epsilon = torch.as_tensor(strength, dtype=out.dtype, device=out.device).flatten().expand(len(out))
            shown, found = closest.within(epsilon)
            batch.count(STUCK, closest.masked & ~found & (epsilon > 0))
            if self.restarts > 1:
                again, _ = self._from_random_starts(batch, logits, epsilon, found).within(epsilon)
                shown = torch.where(found.view(-1, 1, 1, 1), shown, again)
            return out.copy_(shown)

        return perturb

    def closest(self, batch: Batch, logits: Tensor) -> ClosestExamples:
        """Return the closest examples that runs from the images themselves reach."""
        closest, targets = self._begin(batch, logits)
        rows = closest.distances.nonzero().flatten()
        for classes in targets.T if len(rows) else ():
            closest.run(rows, classes[rows], batch.inputs[rows], self.steps)
        return closest

    def _from_random_starts(self, batch: Batch, logits: Tensor, epsilon: Tensor, done: Tensor) -> ClosestExamples:
        """Return the closest examples that runs from random starts reach, of images that have none within ε."""
        import torch

        assert batch.drawn is not None
        closest, targets = self._begin(batch, logits)
        seeds = batch.drawn.long().tolist()
        for i, restart in product(range(targets.shape[1]), range(1, self.restarts)):
            rows = (~done & (epsilon > 0) & (closest.distances > epsilon)).nonzero().flatten()
            if not len(rows):
                break
            shape = tuple(batch.inputs.shape[1:])
            points = np.stack([self._point(seeded(*seeds[row], restart, i), shape) for row in rows.tolist()])
            change = torch.from_numpy(points).to(batch.inputs) * epsilon[rows].view(-1, 1, 1, 1) / 2
            closest.run(rows, targets[rows, i], (batch.inputs[rows] + change).clamp_(0, 1), self.steps)
        return closest

    def _begin(self, batch: Batch, logits: Tensor) -> tuple[ClosestExamples, Tensor]:
        """Return a search before its first run, and the target classes of each image, the likeliest first."""
        from robustness.perturbations.boundary import ClosestExamples, StepRule, likeliest_wrong_classes

        rule = StepRule(self.norm, self.alpha_max, self.eta, self.beta)
        return ClosestExamples(batch, rule, logits), likeliest_wrong_classes(batch, logits, self.target_classes)

    def _point(self, numbers: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return a random change of length 1."""
        if self.norm == "linf":
            point: np.ndarray = 2 * numbers.random(shape, np.float32) - 1
            point /= np.abs(point).max()
        else:
            point = numbers.standard_normal(shape, np.float32)
            point /= np.linalg.norm(point)
        return point
