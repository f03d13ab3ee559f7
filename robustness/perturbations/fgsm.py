"""The fast gradient sign method (Goodfellow et al. 2015, eq. 1 of section 4), and its L2 form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from robustness.perturbations.attack import GradientAttack, Loss, Norm, NormBoundedAttack
from robustness.perturbations.base import Batch, Step

if TYPE_CHECKING:
    from torch import Tensor, nn


def fgsm(
    classifier: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    loss: Loss = "cross_entropy",
    targets: Tensor | None = None,
) -> Tensor:
    """
    Return x + ε·sign(∇ₓJ), clipped to [0, 1]; for ``norm="l2"`` x + ε·∇ₓJ/‖∇ₓJ‖₂.

    ``inputs`` (N, C, H, W) in [0, 1], ``labels`` (N,); with ``targets`` (N,) the loss of these classes is lowered
    instead. J is summed over the images, as in other libraries. The classifier is left as it is: put it in evaluation
    mode. An image with a zero gradient is unchanged.

    >>> import torch
    >>> linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = linear[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> fgsm(linear, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]), epsilon=0.25).flatten().tolist()
    [0.25, 0.75]
    """
    from robustness.perturbations.gradients import gradient

    ascent, _ = gradient(classifier, inputs, labels, loss=loss, targets=targets)
    return (inputs + epsilon * steepest_direction(ascent, norm)).clamp(0, 1)


def steepest_direction(gradient: Tensor, norm: Norm, out: Tensor | None = None) -> Tensor:
    """
    Return the step of length 1 in a norm along which a linear function with this gradient grows fastest.

    Signs are written into ``out``, if there is one.
    """
    import torch

    if norm == "linf":
        return torch.sign(gradient, out=out)
    # Squares of gradients below 1e-22 would be zero: the largest entry is divided out first.
    scale = gradient.flatten(1).abs().amax(1).view(-1, *(1,) * (gradient.dim() - 1))
    scaled = gradient / torch.where(scale > 0, scale, 1)
    length = torch.linalg.vector_norm(scaled.flatten(1), dim=1).view_as(scale)
    return scaled / torch.where(length > 0, length, 1)


class FGSM(NormBoundedAttack, GradientAttack, Step):
    """
    FGSM at strength ε: an L∞ budget as a fraction of the pixel range; with ``norm = "l2"`` an L2 length.

    >>> FGSM(norm="l2").strength_range
    (0.0, inf)
    """

    kind: Literal["fgsm"] = "fgsm"
    family: ClassVar[str] = "fgsm"

    @property
    def signed(self) -> bool:
        """Whether its direction is made of signs alone."""
        return self.norm == "linf"

    def gradients(self, strengths: Sequence[object]) -> int:
        """Return 1: all strengths share one gradient."""
        return 1

    def direction(self, batch: Batch) -> Tensor:
        """Return the sign of the gradient, or the gradient of length 1; `Step.prepare` adds it to the images."""
        from robustness.perturbations.gradients import sweep_gradient

        targets = self.targets(batch)
        ascent, logits = sweep_gradient(batch, loss=self.loss, targets=targets)
        if batch.attacked is batch.classifier:
            batch.clean_logits = logits
        return steepest_direction(ascent, self.norm, out=ascent)
