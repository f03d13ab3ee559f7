"""Auto-PGD and its targeted form APGD-T (Croce and Hein 2020, sections 3 and 5), two attacks of AutoAttack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from robustness.perturbations.attack import Loss, Norm
from robustness.perturbations.base import Batch, Perturb
from robustness.perturbations.fgsm import steepest_direction
from robustness.perturbations.pgd import IterativeAttack, Steps

if TYPE_CHECKING:
    from torch import Tensor, nn

Share = Annotated[float, Field(gt=0, le=1)]
Evaluate = Callable[["Tensor", "Tensor", bool], tuple["Tensor", "Tensor", "Tensor"]]
"""Returns gradients, losses and which images are misled, of images in some rows; the flag asks for gradients."""


def apgd(
    classifier: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int = 100,
    norm: Norm = "linf",
    start: Tensor | None = None,
    loss: Loss = "cross_entropy",
    targets: Tensor | None = None,
    rho: float = 0.75,
    momentum: float = 0.75,
) -> Tensor:
    """
    Return Auto-PGD's point of largest loss (Croce and Hein 2020, algorithm 1): one run, all steps.

    Args:
        classifier: The attacked model, in evaluation mode; it is left unchanged.
        inputs: Images (N, C, H, W) in [0, 1].
        labels: True classes, (N,).
        epsilon: Radius of the ball: a fraction of the pixel range for L∞, a length for L2.
        steps: Number of steps; each takes one gradient.
        norm: Norm of the ball, ``linf`` or ``l2``.
        start: Where the run begins, as a change of the images, (N, C, H, W); by default the images themselves.
        loss: What is raised: ``cross_entropy``, ``margin`` or ``dlr``.
        targets: Classes that the images are to be taken for, (N,); by default any wrong class.
        rho: The step size is halved if the loss rises in at most this share of the steps between two checkpoints.
        momentum: Weight of the new step against that of the step before.

    Returns:
        The perturbed images, (N, C, H, W), in the ball and in [0, 1].

    Raises:
        ValueError: If ``epsilon`` or ``steps`` is below 0, or a class is.
        GradientError: If the model is not differentiable, or has fewer classes than the loss needs.

    Example:
        >>> import torch
        >>> linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
        >>> _ = linear[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> half, label = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
        >>> apgd(linear, half, label, epsilon=0.25, steps=3).flatten().tolist()
        [0.25, 0.75]
    """
    import torch

    from robustness.perturbations.attack import attack_loss
    from robustness.perturbations.gradients import gradient

    for name, value in (("epsilon", epsilon), ("steps", steps)):
        if not value >= 0:
            raise ValueError(f"`{name}` must be at least 0, got {value}; a budget and its steps are sizes")

    def evaluate(images: Tensor, _: Tensor, differentiate: bool) -> tuple[Tensor, Tensor, Tensor]:
        ascent, logits = gradient(classifier, images, labels, loss=loss, targets=targets)
        return ascent, attack_loss(logits, labels, loss, targets), torch.zeros_like(labels, dtype=torch.bool)

    ball = _ball(inputs, epsilon, norm)
    first = inputs if start is None else _project(ball, inputs + start)
    rows = torch.arange(len(inputs), device=inputs.device)
    return maximize(ball, first, rows, evaluate, steps=steps, rho=rho, momentum=momentum)


def checkpoints(steps: int) -> list[int]:
    """
    Return the numbers of steps after which step sizes are reviewed (section 3.1).

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    window, shortest, decrease = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    reviewed, number = [], window
    while number <= steps:
        reviewed.append(number)
        window = max(window - decrease, shortest)
        number += window
    return reviewed


@dataclass(frozen=True)
class _State:
    """The images of a run that are not misled yet: the last two points, the best one, and the step size's history."""

    rows: Tensor
    images: Tensor
    previous: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    rises: Tensor
    """Number of steps since the last checkpoint that raised the loss."""
    reviewed_loss: Tensor
    """The best loss at the last checkpoint."""
    halved: Tensor
    """Whether the step size was halved there."""

    def of(self, rows: Tensor) -> _State:
        """Return the state of some images."""
        return _State(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def maximize(
    step: Steps, start: Tensor, rows: Tensor, evaluate: Evaluate, *, steps: int, rho: float, momentum: float
) -> Tensor:
    """
    Return the points of largest loss of images that are never misled; a misled image leaves the run (algorithm 1).

    Where paper and authors' code differ, this follows the code, whose results are published: the loss may rise in
    exactly ``rho`` of the steps, and the first step counts as a rise if its loss is positive. A review moves the
    point but not its predecessor.
    """
    import torch

    ascent, loss, misled = evaluate(start, rows, True)
    none = torch.zeros_like(loss)
    now = _State(
        rows, start, start, ascent, none, start, ascent, loss, rises=none, reviewed_loss=loss, halved=none == 0
    )
    reviews, reviewed = checkpoints(steps), 0
    for i in range(steps):
        if bool(misled.any()):
            left = ~misled
            now, step = now.of(left), step.of(left)
            if not len(now.rows):
                break
        share = momentum if i else 1.0
        aim = _project(step, now.images + step.step_size * steepest_direction(now.gradient, step.norm))
        inertia = now.images - now.previous
        images = _project(step, now.images + (aim - now.images) * share + inertia * (1 - share))
        ascent, loss, misled = evaluate(images, now.rows, i < steps - 1)
        better = loss > now.best_loss
        now = replace(
            now, images=images, previous=now.images, gradient=ascent, loss=loss, rises=now.rises + (loss > now.loss),
            best=_where(better, images, now.best), best_gradient=_where(better, ascent, now.best_gradient),
            best_loss=torch.where(better, loss, now.best_loss),
        )  # fmt: skip
        if i + 1 in reviews:
            stuck = ~now.halved & (now.reviewed_loss >= now.best_loss)
            halved = (now.rises <= rho * (i + 1 - reviewed)) | stuck
            reviewed, size = i + 1, torch.as_tensor(step.step_size)
            step = replace(step, step_size=_where(halved, size / 2, size))
            now = replace(
                now, images=_where(halved, now.best, images), gradient=_where(halved, now.best_gradient, ascent),
                rises=torch.zeros_like(loss), reviewed_loss=now.best_loss, halved=halved,
            )  # fmt: skip
    return now.best


def _where(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Choose between two tensors image by image."""
    import torch

    return torch.where(condition.view(-1, *(1,) * (yes.dim() - 1)), yes, no)


def _ball(inputs: Tensor, epsilon: float | Tensor, norm: Norm) -> Steps:
    """Return the ball around each image, (N, 1, 1, 1), and first steps as long as its diameter."""
    import torch

    radius = torch.as_tensor(epsilon, dtype=inputs.dtype, device=inputs.device)
    radius = radius.expand(len(inputs), *(1,) * (inputs.dim() - 1))
    return Steps(inputs, radius, 2 * radius, norm)


def _project(ball: Steps, moved: Tensor) -> Tensor:
    """Return the nearest image in the ball, then in [0, 1]; for L∞ in the authors' rounding."""
    import torch

    if ball.norm == "l2":
        return ball.inside(moved)
    return torch.minimum(torch.maximum(moved, ball.inputs - ball.epsilon), ball.inputs + ball.epsilon).clamp_(0, 1)


class APGD(IterativeAttack):
    """
    Auto-PGD from random points of the ball's surface: steps with momentum that halve at checkpoints.

    The step size needs no tuning: it begins with 2ε and is halved if the loss rises too seldom or the best loss stalls;
    the run then continues from the best point. An image that is misled, unperturbed or at any point, stays there: the
    result is worst-case accuracy. Any other image keeps its point of largest loss. Whether a detector rejects the image
    does not count.

    >>> APGD().steps, APGD().gradients([0.1])
    (100, 100)
    """

    kind: Literal["apgd"] = "apgd"
    loss: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy"
    """What is raised; ``dlr``, the difference of logits ratio, does not depend on the scale of the logits."""
    steps: PositiveInt = 100
    """Number of steps of each run, for every strength."""
    restarts: PositiveInt = 1
    """Number of runs; each attacks the images that are not misled yet."""
    rho: Share = 0.75
    """The step size is halved if the loss rises in at most this share of the steps between two checkpoints."""
    momentum: Share = 0.75
    """Weight of the new step; the rest is the weight of the step before."""
    eot: PositiveInt = 1
    """
    Passes over which each gradient is averaged. With more than one, for models with random outputs, every image shows
    the point of its largest mean loss: a single pass that misleads decides nothing.
    """

    @property
    def runs(self) -> int:
        """The largest number of runs per image."""
        return self.restarts

    def gradients(self, strengths: Sequence[object]) -> int:
        """One a step and averaged pass, in each run."""
        return super().gradients(strengths) * self.runs * self.eot

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw a point of the unit ball's surface for each image and run, (images, runs, C, H, W)."""
        full = (shape[0], self.runs, *shape[1:])
        if self.norm == "linf":
            points = 2 * generator.random(full, dtype=np.float32) - 1
            points /= np.abs(points).max((2, 3, 4), keepdims=True)
        else:
            points = generator.standard_normal(full, dtype=np.float32)
            points /= np.sqrt((points**2).sum((2, 3, 4), keepdims=True))
        return points

    def starts(self, batch: Batch) -> list[Tensor | None]:
        """Return where each run begins."""
        if batch.drawn is None:
            raise ValueError("`batch.drawn` must hold the random starts, got None; sweep() draws them")
        return list(batch.drawn.unbind(1))

    def aims(self, batch: Batch, clean_logits: Tensor) -> list[Tensor | None]:
        """Return the classes that the loss of each run aims at, (N,); None raises the loss of the true class."""
        return [self.targets(batch)] * self.restarts

    def prepare(self, batch: Batch) -> Perturb:
        """Compute the logits of the unperturbed images: those that are misled already are not attacked."""
        import torch

        from robustness.perturbations.attack import model_logits
        from robustness.perturbations.worst_case import BestIterate

        with torch.no_grad():
            clean_logits = model_logits(batch.attacked, batch.inputs)
        if batch.source is None:
            batch.clean_logits = clean_logits
        targets, starts, aims = self.targets(batch), self.starts(batch), self.aims(batch, clean_logits)

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            worst = BestIterate(batch, self.loss, targets)
            if self.eot == 1:
                worst.keep(batch.inputs, clean_logits)
            ball = _ball(batch.inputs, strength, self.norm)
            highest = batch.inputs.clone(), torch.full_like(clean_logits[:, 0], -torch.inf)
            for start, aim in zip(starts, aims, strict=False):
                assert start is not None

                def evaluate(
                    images: Tensor, rows: Tensor, differentiate: bool, aim: Tensor | None = aim
                ) -> tuple[Tensor, Tensor, Tensor]:
                    ascent, value, logits = self._mean_loss(batch, images, rows, aim, differentiate)
                    if self.eot == 1:  # else a single pass of a random model decides nothing
                        worst.keep(images, logits, rows)
                    return ascent, value, worst.misled[rows]

                rows = worst.open
                rows = rows[torch.as_tensor(ball.epsilon).flatten()[rows] > 0]
                if len(rows):
                    within = ball.of(rows)
                    first = _project(within, within.inputs + within.epsilon * start[rows])
                    points = maximize(
                        within, first, rows, evaluate, steps=self.steps, rho=self.rho, momentum=self.momentum
                    )
                    if self.eot > 1:
                        value = evaluate(points, rows, False, None)[1]
                        better = value > highest[1][rows]
                        highest[0][rows[better]], highest[1][rows[better]] = points[better], value[better]
            return out.copy_(worst.images if self.eot == 1 else highest[0])

        return perturb

    def _mean_loss(
        self, batch: Batch, images: Tensor, rows: Tensor, aim: Tensor | None, differentiate: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return gradient, if asked for, and loss of some images, both over `eot` passes, and the last logits."""
        import torch

        from robustness.perturbations.attack import attack_loss, model_logits
        from robustness.perturbations.gradients import row_gradient

        towards, labels = None if aim is None else aim[rows], batch.labels[rows]
        ascent, value = torch.zeros_like(images), torch.zeros(len(images), device=images.device)
        for _ in range(self.eot):
            if differentiate:
                gradient, logits = row_gradient(batch, images, rows, loss=self.loss, targets=aim)
                ascent = ascent + gradient
            else:
                with torch.no_grad():
                    logits = model_logits(batch.attacked, images)
            loss = attack_loss(logits, labels, self.loss, towards, batch.decision)
            value = value + loss.masked_fill(~logits.isfinite().all(1), torch.inf)  # the sweep must see it
        return ascent, value / self.eot, logits


class TargetedAPGD(APGD):
    """
    APGD-T: one run of APGD towards each of the likeliest wrong classes; any wrong prediction counts as misled.

    Classes are ordered by the logits of the unperturbed image. If untargeted losses lead the search astray, a run
    towards one class can still succeed. With the default loss, the targeted DLR, the model needs at least four classes,
    with ``margin`` or ``cross_entropy`` two.

    >>> TargetedAPGD().gradients([0.1])
    900
    """

    kind: Literal["apgd-t"] = "apgd-t"  # type: ignore[assignment]
    loss: Literal["cross_entropy", "margin", "dlr"] = "dlr"
    """What is raised, towards each target class."""
    target: None = None
    """Always left out: the attack chooses its target classes itself."""
    target_classes: PositiveInt = 9
    """Number of wrong classes, from the likeliest on; at most all of them."""

    @property
    def runs(self) -> int:
        """The largest number of runs per image."""
        return self.restarts * self.target_classes

    def aims(self, batch: Batch, clean_logits: Tensor) -> list[Tensor | None]:
        """Return the next likeliest wrong class of each image, for every run."""
        import torch

        scores = batch.decision.log_probabilities(clean_logits)
        order = scores.scatter(1, batch.labels[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
        wrong = order[:, : min(self.target_classes, order.shape[1] - 1)]
        return [aim for aim in wrong.unbind(1) for _ in range(self.restarts)]
