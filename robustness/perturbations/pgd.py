"""Many small gradient steps inside a ball: I-FGSM (Kurakin et al. 2017), PGD (Madry et al. 2018), adaptive PGD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from robustness.perturbations.attack import GradientAttack, Loss, Norm, NormBoundedAttack
from robustness.perturbations.base import Batch, Perturb
from robustness.perturbations.fgsm import steepest_direction

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustness.perturbations.worst_case import BestIterate

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def pgd(
    classifier: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    norm: Norm = "linf",
    start: Tensor | None = None,
    loss: Loss = "cross_entropy",
    targets: Tensor | None = None,
) -> Tensor:
    """
    Return projected gradient descent's last iterate (Madry et al. 2018, section 2.1): no restarts, nothing left out.

    ``inputs`` (N, C, H, W) in [0, 1]; ``start`` is added to them first. After every step the change is brought back
    into the ball of radius ``epsilon`` (L∞ or L2), and the images into [0, 1]. Without a start, and with
    ``step_size = epsilon / steps``, this is I-FGSM. ValueError for a size below 0.

    >>> import torch
    >>> linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = linear[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> half, label = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    >>> pgd(linear, half, label, epsilon=0.25, step_size=0.25, steps=3).flatten().tolist()
    [0.25, 0.75]
    """
    from robustness.perturbations.gradients import gradient

    for name, value in (("epsilon", epsilon), ("step_size", step_size), ("steps", steps)):
        if not value >= 0:
            raise ValueError(f"`{name}` must be at least 0, got {value}; a budget and its steps are sizes")
    step = Steps(inputs, epsilon, step_size, norm)
    perturbed = inputs if start is None else step.inside(inputs + start)
    for _ in range(steps):
        ascent, _ = gradient(classifier, perturbed, labels, loss=loss, targets=targets)
        perturbed = step.along(perturbed, ascent, spend=True)
    return perturbed


@dataclass(frozen=True)
class Steps:
    """Steps of one length inside a ball around some images; radius and length may differ from image to image."""

    inputs: Tensor
    epsilon: float | Tensor
    step_size: float | Tensor
    norm: Norm

    def along(self, perturbed: Tensor, gradient: Tensor, *, out: Tensor | None = None, spend: bool = False) -> Tensor:
        """Go one step along a gradient, and back into the ball; ``spend`` the gradient's own memory on the way."""
        import torch

        step = steepest_direction(gradient, self.norm, out=gradient if spend else None).mul_(self.step_size)
        return self._inside(torch.add(perturbed, step, out=step if out is None else out))

    def of(self, rows: Tensor) -> Steps:
        """Return the steps of some images."""
        import torch

        epsilon, size = (
            value[rows] if isinstance(value, torch.Tensor) and value.dim() else value
            for value in (self.epsilon, self.step_size)
        )
        return Steps(self.inputs[rows], epsilon, size, self.norm)

    def inside(self, perturbed: Tensor) -> Tensor:
        """Return the nearest image in the ball, then the nearest in [0, 1]."""
        return self._inside(perturbed.clone())

    def _inside(self, moved: Tensor) -> Tensor:
        """Do so in place: a step is made of many passes over memory, and little arithmetic."""
        import torch

        delta = moved.sub_(self.inputs)
        if self.norm == "linf":
            delta.clamp_(torch.as_tensor(-self.epsilon), torch.as_tensor(self.epsilon))
        else:
            length = torch.linalg.vector_norm(delta.flatten(1), dim=1).view(-1, *(1,) * (delta.dim() - 1))
            delta.mul_(torch.clamp(self.epsilon / torch.where(length > 0, length, 1), max=1))
        return delta.add_(self.inputs).clamp_(0, 1)


class IterativeAttack(NormBoundedAttack, GradientAttack):
    """What the iterated attacks share: ``steps`` steps of ``relative_step_size`` times the budget."""

    steps: PositiveInt = 10
    """Of the gradient, for every strength."""
    family: ClassVar[str] = "attack"
    scalable: ClassVar[bool] = True

    def gradients(self, strengths: Sequence[object]) -> int:
        """One a step, at each strength."""
        return self.steps * len(strengths)

    def step(self) -> float:
        """Return the length of a step, as a share of the budget."""
        return 1 / self.steps

    def length(self, i: int) -> float:
        """Return how many of these steps step i is as long as."""
        return 1.0

    def starts(self, batch: Batch) -> list[Tensor | None]:
        """Return where each run begins, as a change in the unit ball; None is the image itself."""
        return [None]

    def prepare(self, batch: Batch) -> Perturb:
        """Compute the first gradient once, where all strengths begin at the image itself."""
        from robustness.perturbations.gradients import row_gradient, sweep_gradient

        targets, starts = self.targets(batch), self.starts(batch)

        def ascent(perturbed: Tensor, i: int, rows: Tensor | None) -> tuple[Tensor, Tensor]:
            return row_gradient(batch, perturbed, rows, loss=self.loss, targets=targets)

        first = None
        if starts[0] is None:
            first = sweep_gradient(batch, loss=self.loss, targets=targets)
            if batch.source is None:
                batch.clean_logits = first[1]

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            step = Steps(batch.inputs, strength, self.step() * strength, self.norm)
            return self.run(batch, step, AttackSchedule(starts, first, ascent, targets, self.length), out)

        return perturb

    def run(self, batch: Batch, step: Steps, course: AttackSchedule, out: Tensor) -> Tensor:
        """Return the last iterate of the only run, in ``out``."""
        perturbed = course.begin(step, course.starts[0])
        for i in range(self.steps):
            perturbed = course.along(i, step, perturbed, course.ascent(i, perturbed)[0], out)
        return perturbed


@dataclass(frozen=True)
class AttackSchedule:
    """
    Where the runs of a batch begin, the gradient at the images themselves if all begin there, and at any other.

    ``length`` returns how many of the usual steps step i is as long as.
    """

    starts: list[Tensor | None]
    first: tuple[Tensor, Tensor] | None
    gradient: Callable[[Tensor, int, Tensor | None], tuple[Tensor, Tensor]]
    targets: Tensor | None
    length: Callable[[int], float]

    def begin(self, step: Steps, start: Tensor | None) -> Tensor:
        """Return the images that a run begins with."""
        return step.inputs if start is None else step.inside(step.inputs + step.epsilon * start)

    def ascent(self, i: int, perturbed: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the gradient of step i, and the logits, of all images or of some."""
        if i or self.first is None:
            return self.gradient(perturbed, i, rows)
        return self.first if rows is None else (self.first[0][rows], self.first[1][rows])

    def along(self, i: int, step: Steps, perturbed: Tensor, gradient: Tensor, out: Tensor | None = None) -> Tensor:
        """Go step i into ``out``; the first gradient is spared, for all strengths begin with it."""
        if (length := self.length(i)) != 1:
            step = replace(step, step_size=step.step_size * length)
        return step.along(perturbed, gradient, out=out, spend=i > 0 or self.first is None)


class IFGSM(IterativeAttack):
    """
    I-FGSM: steps of ε/steps from the image itself.

    >>> IFGSM(steps=20).step()
    0.05
    """

    kind: Literal["ifgsm"] = "ifgsm"


class PGD(IterativeAttack):
    """
    PGD from random starts; of several ``restarts`` each image keeps the one with the largest loss, fooled before not.

    With ``stop_when_fooled`` an image that is misled at any step stays there, and a batch of which all are is done: for
    worst-case accuracy. Without it every image gets all steps, which accuracy at ε asks for. With ``schedule`` =
    "linear" steps shorten: step i (from 0) has length ``relative_step_size``·ε·(1 − i/``steps``).

    >>> PGD(steps=40, relative_step_size=0.1).step()
    0.1
    >>> [PGD(steps=4, schedule="linear").length(i) for i in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """

    kind: Literal["pgd"] = "pgd"
    relative_step_size: Positive = 0.25
    """The length of a step, or of the first of a linear schedule, as a share of ε."""
    schedule: Literal["constant", "linear"] = "constant"
    """How long the steps are: all alike, or from the first on ever shorter, down to none."""
    random_start: bool = True
    """Whether a run begins at a random point of the ball, or at the image."""
    restarts: PositiveInt = 1
    """Runs, of which the worst image each is kept."""
    stop_when_fooled: bool = False
    """Whether an image stays at its first misleading step: worst-case accuracy, another number."""

    @model_validator(mode="after")
    def _differing(self) -> PGD:
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                f"`restarts` must be 1 without a random start, got {self.restarts}: all of them would be the same"
            )
        return self

    def step(self) -> float:
        """Return the length of a step, as a share of the budget."""
        return self.relative_step_size

    @model_serializer(mode="wrap")
    def _table(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the parameters; without the schedule that all had before there was one, so that keys stay the same."""
        table: dict[str, Any] = plain(self)
        return {name: value for name, value in table.items() if (name, value) != ("schedule", "constant")}

    def length(self, i: int) -> float:
        """Return how many of the first step step i is as long as."""
        return 1.0 if self.schedule == "constant" else 1 - i / self.steps

    def gradients(self, strengths: Sequence[object]) -> int:
        """One a step, in each run."""
        return super().gradients(strengths) * self.restarts

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray | None:
        """Draw a point of the unit ball for every image and restart, uniformly, (images, restarts, C, H, W)."""
        if not self.random_start:
            return None
        full = (shape[0], self.restarts, *shape[1:])
        if self.norm == "linf":
            return 2 * generator.random(full, dtype=np.float32) - 1
        # The first d of d + 2 coordinates of a point on the sphere are uniform in the ball of d dimensions.
        points = generator.standard_normal((*full[:2], int(np.prod(shape[1:])) + 2), dtype=np.float32)
        points /= np.linalg.norm(points, axis=2, keepdims=True)
        return np.ascontiguousarray(points[..., :-2]).reshape(full)

    def starts(self, batch: Batch) -> list[Tensor | None]:
        """Return where each run begins."""
        if not self.random_start:
            return [None]
        if batch.drawn is None:
            raise ValueError("`batch.drawn` must hold the random starts, got None; sweep() draws them")
        return list(batch.drawn.unbind(1))

    def run(self, batch: Batch, step: Steps, course: AttackSchedule, out: Tensor) -> Tensor:
        """Return each image's worst iterate: of the last ones, or with ``stop_when_fooled`` of all."""
        if self.restarts == 1 and not self.stop_when_fooled:
            return super().run(batch, step, course, out)
        from robustness.perturbations.worst_case import BestIterate

        worst = BestIterate(batch, self.loss, course.targets)
        self.runs(step, course, out, worst)
        return out.copy_(worst.images)

    def runs(self, step: Steps, course: AttackSchedule, out: Tensor, worst: BestIterate) -> None:
        """Run from every start, and show what came of it to ``worst``."""
        for start in course.starts:
            if self.stop_when_fooled:
                self._until_misled(step, course, start, worst)
                continue
            perturbed = course.begin(step, start)
            for i in range(self.steps):
                perturbed = course.along(i, step, perturbed, course.ascent(i, perturbed)[0], out)
            worst.keep(perturbed)

    def _until_misled(self, step: Steps, course: AttackSchedule, start: Tensor | None, worst: BestIterate) -> None:
        """Show every iterate to ``worst``, and go on with the images that are not misled alone."""
        rows = worst.open
        perturbed = course.begin(step, start)[rows]
        for i in range(self.steps):
            if not len(rows):
                return
            gradient, logits = course.ascent(i, perturbed, rows)
            worst.keep(perturbed, logits, rows)
            left = ~worst.misled[rows]
            rows = rows[left]
            perturbed = course.along(i, step.of(rows), perturbed[left], gradient[left])
        if len(rows):
            worst.keep(perturbed, rows=rows)


class AdaptivePGD(PGD):
    """
    PGD against a model that can tell attacked images: it must mislead the classifier and stay undetected.

    One run for each of the ``detector_weights`` of log(1 − p); an image stays at its first iterate, of all runs, that
    does both. A weight of 0 is plain PGD: with it the attack is never weaker. Any other run begins with the weighted
    sum, goes on with what of the two is not reached yet (`objective`: ``selective``), and shortens its steps to none:
    near both borders long ones lose one while they gain the other. With ``radius_fractions`` below 1, shares of ε,
    images that are still open are tried again in smaller balls: what evades there is in the large one too, and long
    steps pass it by. The decision must have an attack probability (``null``, ``2n``, ``bin``), else the sweep's cells
    error and say so.
    """

    kind: Literal["adaptive-pgd"] = "adaptive-pgd"  # type: ignore[assignment]
    loss: Literal["adaptive"] = "adaptive"
    """Always that the classifier is misled and the attack undetected."""
    stop_when_fooled: Literal[True] = True
    """Always so: an image stays at its first iterate that does both."""
    detector_weights: Annotated[tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], Field(min_length=1)] = (
        0.0,
        1.0,
    )
    """Of log(1 − p), one a run; 0 is plain PGD."""
    radius_fractions: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (1.0,)
    """Shares of ε: balls in which images that are still open are tried too."""

    def run(self, batch: Batch, step: Steps, course: AttackSchedule, out: Tensor) -> Tensor:
        """Return each image's worst iterate of a run for each radius, and weight of the attack probability."""
        from robustness.perturbations.gradients import row_gradient
        from robustness.perturbations.worst_case import BestIterate

        worst = BestIterate(batch, self.loss, course.targets)
        for radius, weight in product(self.radius_fractions, self.detector_weights):

            def ascent(perturbed: Tensor, i: int, rows: Tensor | None, weight: float = weight) -> tuple[Tensor, Tensor]:
                loss: Loss = "selective" if i and weight else "adaptive"
                return row_gradient(batch, perturbed, rows, loss=loss, targets=course.targets, weight=weight)

            length = self.evading_length if weight else self.length
            within = replace(step, epsilon=radius * step.epsilon, step_size=radius * step.step_size)
            self.runs(within, AttackSchedule(course.starts, None, ascent, course.targets, length), out, worst)
        return out.copy_(worst.images)

    def gradients(self, strengths: Sequence[object]) -> int:
        """One a step, in each run."""
        return super().gradients(strengths) * len(self.radius_fractions) * len(self.detector_weights)

    def evading_length(self, i: int) -> float:
        """Return the length of step i of a run that evades, in steps of PGD: twice one, then less and less."""
        return 2 * (1 - i / self.steps)
