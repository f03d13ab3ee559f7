"""Square Attack: a random search without gradients (Andriushchenko et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from robustness.perturbations.attack import GradientAttack, Norm, NormBoundedAttack
from robustness.perturbations.base import Batch, Perturb, draw_seeds, seeded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustness.perturbations.worst_case import BestIterate

SquareLoss = Literal["margin", "cross_entropy"]
# The last query, of 10,000, at which squares cover the fraction p_init / 2^i of the image.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
# Queries whose random numbers are drawn together.
BLOCK = 100


def square(
    classifier: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    queries: int = 5000,
    p_init: float = 0.8,
    loss: SquareLoss = "margin",
    target: int | Literal["least_likely", "runner_up"] | None = None,
    seed: int = 0,
) -> Tensor:
    """
    Search for a misleading image in each ball, with forward passes only (`Square`).

    Args:
        classifier: Maps images to logits (N, classes); put it in evaluation mode.
        inputs: Images (N, C, H, W) in [0, 1].
        labels: Their classes, (N,).
        epsilon: The radius of the ball, in units of the pixel range.
        norm: The norm of the ball.
        queries: The number of squares that are tried, after the start.
        p_init: The fraction of the image that the first squares cover.
        loss: What is raised.
        target: The class that images are to be taken for; None for any other.
        seed: The seed of the random numbers. Those of an image depend on its position.

    Returns:
        Of each image the first perturbed one that misleads, else the one of the largest loss, (N, C, H, W).

    Raises:
        ValueError: If `epsilon` is negative.

    >>> import torch
    >>> linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    >>> _ = linear[1].weight.data.copy_(torch.tensor([[1 / 16] * 16, [0.0] * 16]))
    >>> _ = linear[1].bias.data.copy_(torch.tensor([0.0, 0.45]))
    >>> grey = torch.full((1, 1, 4, 4), 0.5)  # class 1 are the images whose mean is below 0.45
    >>> perturbed = square(linear, grey, torch.tensor([0]), epsilon=0.1)
    >>> bool(perturbed.mean() < 0.45), bool((perturbed - grey).abs().max() < 0.1001)
    (True, True)
    """
    import torch

    from robustness.util.rng import Purpose, generator

    if not epsilon >= 0:
        raise ValueError(f"`epsilon` must be at least 0, got {epsilon}; a budget is a size")
    attack = Square(norm=norm, queries=queries, p_init=p_init, loss=loss, target=target)
    drawn = torch.from_numpy(attack.draw(generator(seed, Purpose.NOISE), tuple(inputs.shape)))
    with torch.no_grad():
        return attack.prepare(Batch(classifier, inputs, labels, drawn))(epsilon, torch.empty_like(inputs))


class Square(NormBoundedAttack, GradientAttack):
    """
    Square Attack: a random search in the ball by forward passes only, which masked gradients do not stop.

    L∞: it starts with vertical stripes of ±ε, and each query moves a square by ±2ε per channel, within the ball (the
    paper's algorithm 2). L2: it starts with a grid of bumps, and each query takes the mass of one square for a bump in
    another (algorithm 3). A change stays if it raises the loss or misleads, and a misled image is done. The side of
    the squares shrinks by the paper's schedule, rescaled to the number of queries.

    It follows AutoAttack's implementation, with two differences: every image has its own random numbers, so that
    results do not depend on the batch, and an image that is not misled is shown with its largest loss, not unperturbed.
    As in that implementation, and unlike in the paper, a square never touches the last row or column, and the mass of
    an L2 square is summed over channels. No square is larger than the image. Whether a detector rejects the image does
    not count.

    >>> [Square(queries=5000).side(query, 28, 28) for query in (0, 6, 26, 4999)]
    [25, 18, 13, 1]
    """

    kind: Literal["square"] = "square"
    loss: SquareLoss = "margin"
    """What is raised: ``margin`` is the largest other score less the true one."""
    queries: PositiveInt = 5000
    """Squares that are tried per image, restart and strength, after the start."""
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The fraction of the image that the first squares cover."""
    restarts: PositiveInt = 1
    """Runs, each on the images that are not misled yet."""
    family: ClassVar[str] = "attack"
    scalable: ClassVar[bool] = True

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw a seed per image."""
        return draw_seeds(generator, shape[0])

    def forward_passes(self, strengths: Sequence[object]) -> int:
        """One per query, at each strength."""
        return self.queries * self.restarts * len(strengths)

    def side(self, query: int, height: int, width: int) -> int:
        """Return the side of the square of one query."""
        at = int(query / self.queries * 10_000)
        share = self.p_init / 2 ** sum(at > last for last in HALVINGS)
        side = round(math.sqrt(share * height * width))
        if self.norm == "l2":
            side = max(side, 3)
            side += side % 2 == 0
        return max(1, min(side, height, width))

    def prepare(self, batch: Batch) -> Perturb:
        """Compute the target classes and the clean logits; every strength has a search of its own."""
        import torch

        from robustness.perturbations.attack import model_logits
        from robustness.perturbations.worst_case import BestIterate

        if batch.drawn is None:
            raise ValueError("`batch.drawn` must hold the seeds of the images, got None; sweep() draws them")
        seeds = batch.drawn.long().tolist()
        with torch.no_grad():
            targets, logits = self.targets(batch), model_logits(batch.attacked, batch.inputs)
        if batch.source is None:
            batch.clean_logits = logits

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            epsilon = torch.as_tensor(strength, dtype=out.dtype, device=out.device).flatten().expand(len(out))
            worst = BestIterate(batch, self.loss, targets)
            worst.keep(batch.inputs, logits)
            for restart in range(self.restarts):
                rows = worst.open
                rows = rows[epsilon[rows] > 0]
                if not len(rows):
                    break
                run = BestIterate(batch, self.loss, targets)
                run.misled |= True
                run.misled[rows] = False
                self._search(batch.inputs, epsilon, run, {row: seeded(*seeds[row], restart) for row in rows.tolist()})
                worst.keep(run.images[rows], rows=rows)
            return out.copy_(worst.images)

        return perturb

    def _search(
        self, inputs: Tensor, epsilon: Tensor, run: BestIterate, numbers: Mapping[int, np.random.Generator]
    ) -> None:
        """Show the start and the moved squares of the images that are open in ``run`` to it."""
        import torch

        from robustness.perturbations.squares import BALLS

        def uniform(rows: Tensor, count: int, size: int) -> Tensor:
            drawn = [numbers[row].random((count, size), np.float32) for row in rows.tolist()]
            return torch.from_numpy(np.stack(drawn)).to(inputs)

        rows, shape = run.open, tuple(inputs.shape[1:])
        ball = BALLS[self.norm](inputs[rows], epsilon[rows])
        run.keep(ball.start(uniform(rows, *ball.numbers_of_start(shape))), rows=rows)
        for first in range(0, self.queries, BLOCK):
            count = min(BLOCK, self.queries - first)
            block = uniform(rows, count, ball.numbers_per_query(shape))
            for i in range(count):
                left = ~run.misled[rows]
                if not bool(left.all()):
                    rows, ball, block = rows[left], ball.of(left), block[left]
                    if not len(rows):
                        return
                side = self.side(first + i, *shape[1:])
                run.keep(ball.moved(run.images[rows], side, block[:, i]), rows=rows)
