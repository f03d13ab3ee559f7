"""What the attacks have in common: whom they are made on, towards which class, and by which loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, Strict

from robustness.decisions import Decision
from robustness.perturbations.base import Batch, Perturbation
from robustness.perturbations.losses import Loss, model_logits

if TYPE_CHECKING:
    from torch import Tensor, nn

Norm = Literal["linf", "l2"]


class Attack(Perturbation):
    """A perturbation that is made on a model: the swept one, or for transfer the one of another card."""

    source: str | None = None
    """The card of the model that the examples are made on, from this card's folder; left out: the swept one."""

    @property
    def made_on(self) -> str | None:
        """The card of the model that this is made on; None for the swept one."""
        return self.source


class GradientAttack(Attack):
    """
    An attack by the gradient of a loss with respect to the images.

    Untargeted, the loss of the true label is raised. With ``target``, that of one class is lowered: its index, or
    ``least_likely`` or ``runner_up`` (the likeliest wrong class) of each clean image by the attacked model.
    """

    loss: Loss = "cross_entropy"
    """
    What is raised: ``margin`` is the largest other score less the true one; ``adaptive`` and ``selective`` also ask to
    stay undetected.
    """
    target: Annotated[int, Strict(), Field(ge=0)] | Literal["least_likely", "runner_up"] | None = None
    """The class that images are to be taken for: an index, ``least_likely`` or ``runner_up``; left out: any other."""

    def targets(self, batch: Batch) -> Tensor | None:
        """Return the class that each image is to be taken for, (N,), None without a target; ValueError out of range."""
        import torch

        if self.target is None:
            return None
        if self.target == "runner_up":
            return most_likely_wrong_class(batch.attacked, batch.inputs, batch.labels, batch.decision)
        with torch.no_grad():
            scores = batch.decision.log_probabilities(model_logits(batch.attacked, batch.inputs))
        if isinstance(self.target, int):
            if self.target >= scores.shape[1]:
                raise ValueError(
                    f"`target` must be one of the classes 0 to {scores.shape[1] - 1}, got {self.target}; use the index "
                    "of a class of the model"
                )
            return torch.full_like(batch.labels, self.target)
        return scores.scatter(1, batch.labels[:, None], torch.inf).argmin(1)


def most_likely_wrong_class(classifier: nn.Module, inputs: Tensor, labels: Tensor, decision: Decision) -> Tensor:
    """
    Return the likeliest wrong class of each image by a model and its decision, (N,).

    >>> import torch
    >>> from robustness.decisions import Argmax
    >>> scores = torch.tensor([[0.5, 0.2, 0.3]])
    >>> most_likely_wrong_class(torch.nn.Identity(), scores, torch.tensor([0]), Argmax()).tolist()
    [2]
    """
    import torch

    with torch.no_grad():
        scores = decision.log_probabilities(model_logits(classifier, inputs))
    return scores.scatter(1, labels[:, None], -torch.inf).argmax(1)
