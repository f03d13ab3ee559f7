"""Common fields of attacks (model, target class, loss), their losses, and which outputs count as misled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, Strict

from robustness.decisions import Argmax, Decision, Filtering
from robustness.errors import GradientError
from robustness.perturbations.base import Batch, Perturbation

if TYPE_CHECKING:
    from torch import Tensor, nn


Norm = Literal["linf", "l2"]
Loss = Literal["cross_entropy", "margin", "dlr", "adaptive", "selective"]
DETECTOR_LOSSES = ("adaptive", "selective")
"""Losses for a decision with an attack probability: under them only what also stays undetected misleads."""


class Attack(Perturbation):
    """A perturbation that is made on a model: the swept one, or for transfer the one of another card."""

    source: str | None = None
    """The card of the model that the examples are made on, from this card's folder; left out: the swept one."""

    @property
    def source_card(self) -> str | None:
        """The card of the model that this is made on; None for the swept one."""
        return self.source


class NormBoundedAttack(Attack):
    """An attack within a ball of radius ε around the image."""

    norm: Norm = "linf"
    """The norm of the ball."""
    strength_name: ClassVar[str] = "ε"

    @property
    def ball(self) -> Norm:
        """Its norm."""
        return self.norm

    @property
    def strength_range(self) -> tuple[float, float]:
        """The least and the largest ε."""
        return self.limits if self.norm == "linf" else (0.0, float("inf"))


class GradientAttack(Attack):
    """
    An attack by the gradient of a loss with respect to the images.

    Untargeted, the loss of the true label is raised. With ``target``, that of one class is lowered: its index, or
    ``least_likely`` or ``runner_up`` (the likeliest wrong class) of each clean image by the attacked model.
    """

    loss: Loss = "cross_entropy"
    """
    What is raised: ``margin`` is the largest other score less the true one, ``dlr`` their ratio to the spread of the
    scores; ``adaptive`` and ``selective`` also ask to stay undetected.
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


def model_logits(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return a module's logits, (N, outputs), in float32; it gets a copy, which it may edit or return."""
    import torch

    logits = module(inputs.clone())  # autograd refuses an edit of a leaf, and the sweep goes on with its images
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != len(inputs):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise GradientError(f"the attacked model must return logits of shape (images, outputs), got {got}")
    return logits.float()


def attack_loss(
    logits: Tensor,
    labels: Tensor,
    loss: Loss,
    targets: Tensor | None = None,
    decision: Decision | None = None,
    weight: float = 1.0,
) -> Tensor:
    """
    Return what an attacker raises, (N,): the loss of the true class, or less the loss of the target.

    ``margin`` is the largest other log-probability less the true one's: it has a gradient where cross-entropy's
    has underflowed. ``dlr`` is the `difference_of_logits_ratio`. ``adaptive`` is cross-entropy plus
    ``weight``·log(1 − p), p the probability that the image was attacked: it misleads the classifier and its detector
    together. ``selective`` is the margin plus ``weight``·log(1 − p), and of these only what is not reached yet: a sum
    spends most steps on what is (docs/attacks.md).

    >>> import torch
    >>> attack_loss(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]), "margin").item()
    -2.0
    """
    import torch
    from torch.nn import functional as F

    decision = decision or Argmax()
    # The logits themselves where they are the decision's: their difference is that of the logarithms, unrounded.
    plain = isinstance(decision, Argmax)
    chosen = labels if targets is None else targets
    sign = 1 if targets is None else -1
    if loss in ("margin", "selective"):
        scores = logits if plain else decision.log_probabilities(logits)
        own = scores.gather(1, chosen[:, None]).squeeze(1)
        others = scores.scatter(1, chosen[:, None], -torch.inf).amax(1)
        value = sign * (others - own)
    elif loss == "dlr":
        value = difference_of_logits_ratio(logits if plain else decision.log_probabilities(logits), labels, targets)
    elif plain:
        value = sign * F.cross_entropy(logits, chosen, reduction="none")
    else:
        value = -sign * decision.log_probabilities(logits).gather(1, chosen[:, None]).squeeze(1)
    if loss not in DETECTOR_LOSSES:
        return value
    if not isinstance(decision, Filtering):
        raise GradientError(
            f'loss = "{loss}" needs a decision with an attack probability, got {decision.kind}'
            f"; use cross_entropy or margin"
        )
    passed = decision.log_passed(logits)
    if loss == "adaptive":
        return value + weight * passed
    misleads, undetected = value > 0, passed >= decision.log_threshold
    # What is reached already is left out, unless both are: then both may grow.
    apart = misleads != undetected
    return value.masked_fill(misleads & apart, 0) + weight * passed.masked_fill(undetected & apart, 0)


def difference_of_logits_ratio(scores: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """
    Return the DLR loss, (N,), or towards targets the targeted one (Croce and Hein 2020, section 4).

    With the scores in descending order z_π: (max_{i≠y} z_i − z_y) / (z_π1 − z_π3), and
    (z_t − z_y) / (z_π1 − (z_π3 + z_π4) / 2). Neither shift nor scale of the scores changes it.

    >>> import torch
    >>> difference_of_logits_ratio(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0])).item()
    -0.6666666865348816
    """
    import torch

    needed = 3 if targets is None else 4
    if scores.shape[1] < needed:
        raise GradientError(
            f'loss = "dlr" needs at least {needed} classes{"" if targets is None else " with a target"}, got '
            f"{scores.shape[1]}; use margin or cross_entropy"
        )
    own = scores.gather(1, labels[:, None]).squeeze(1)
    ordered = scores.topk(needed, dim=1).values
    if targets is None:
        others = scores.scatter(1, labels[:, None], -torch.inf).amax(1)
        return (others - own) / (ordered[:, 0] - ordered[:, 2] + 1e-12)
    aimed = scores.gather(1, targets[:, None]).squeeze(1)
    return (aimed - own) / (ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3]) + 1e-12)


def misleads(logits: Tensor, labels: Tensor, targets: Tensor | None, decision: Decision, loss: Loss) -> Tensor:
    """Return whether an attack has what it is to reach, (N,): another class, or its target's; ``adaptive``: kept."""
    predictions = decision.predictions(logits)
    misled = predictions != labels if targets is None else predictions == targets
    if loss in DETECTOR_LOSSES and isinstance(decision, Filtering):
        misled &= decision.log_passed(logits) >= decision.log_threshold
    return misled
