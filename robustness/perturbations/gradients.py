"""Gradients of an attacker's objective with respect to the images alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustness.decisions import Decision
from robustness.errors import GradientError
from robustness.perturbations.attack import Loss, attack_loss, misleads, model_logits
from robustness.perturbations.base import Batch

ZERO, NON_FINITE, MARGIN = "zero gradients", "non-finite gradients", "margin gradients"
"""What is counted of a sweep: images without any gradient, with one that is no number, with the margin's instead."""
STUCK, SURVIVED = "zero gradients, stuck", "zero gradients, searched"
"""And of those without any: images that are not misled yet, and those that a search without gradients left so."""

NOT_DIFFERENTIABLE = (
    "the model's outputs do not depend on the images differentiably (a step, an argmax, a detach, NumPy?); use noise, "
    "natural changes or examples computed on another model, not gradient attacks"
)


def gradient(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    loss: Loss = "cross_entropy",
    targets: Tensor | None = None,
    decision: Decision | None = None,
) -> tuple[Tensor, Tensor]:
    """
    Return the gradient of the summed objective, shaped as ``inputs``, and the logits; parameters are not touched.

    GradientError if the logits do not depend on the images in a way that can be differentiated; ValueError for a
    label below 0, which torch's cross-entropy would pass over.
    """
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is not None and len(classes) and int(classes.min()) < 0:
            raise ValueError(f"`{name}` must be classes, from 0 on, got {int(classes.min())}; use one per image")
    with torch.inference_mode(False), torch.enable_grad():
        leaf, labels = _apart(inputs).requires_grad_(), _apart(labels)
        logits = model_logits(module, leaf)
        return input_gradient(attack_loss(logits, labels, loss, targets, decision), leaf), logits.detach()


def sweep_gradient(
    batch: Batch,
    inputs: Tensor | None = None,
    *,
    loss: Loss = "cross_entropy",
    targets: Tensor | None = None,
    weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """
    Return the gradient for a sweep, and the logits: `gradient`, with counts of zero and non-finite gradients.

    If cross-entropy's gradient is exactly zero, the margin's gradient of the same forward pass replaces it. Gradients
    that are not finite become zero: a sign of NaN would look like an image that nothing could change. ``batch.at_once``
    images are differentiated at once, because the saved activations are most of a sweep's memory.
    """
    inputs = batch.inputs if inputs is None else inputs
    size = batch.at_once or len(inputs)
    rows = [slice(start, start + size) for start in range(0, len(inputs), size)]
    parts = [_swept(batch, inputs, some, loss, targets, weight) for some in rows]
    if len(parts) == 1:
        return parts[0]
    gradients, logits = zip(*parts, strict=True)
    return torch.cat(gradients), torch.cat(logits)


def row_gradient(
    batch: Batch,
    inputs: Tensor,
    rows: Tensor | None,
    *,
    loss: Loss,
    targets: Tensor | None = None,
    weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return `sweep_gradient` for the images of some rows, (len(rows), C, H, W), or for all."""
    if rows is None:
        return sweep_gradient(batch, inputs, loss=loss, targets=targets, weight=weight)
    some = batch.some(rows)
    result = sweep_gradient(some, inputs, loss=loss, targets=None if targets is None else targets[rows], weight=weight)
    batch.counted(some, rows)
    return result


def _swept(
    batch: Batch, inputs: Tensor, rows: slice, loss: Loss, targets: Tensor | None, weight: float
) -> tuple[Tensor, Tensor]:
    """Return gradient and logits of some rows."""
    labels, targets = batch.labels[rows], None if targets is None else targets[rows]
    with torch.enable_grad():
        leaf = inputs[rows].detach().requires_grad_()
        logits = model_logits(batch.attacked, leaf)
        value = attack_loss(logits, labels, loss, targets, batch.decision, weight)
        # Retaining the graph costs memory and time: only if a loss has rounded to 0 is a second gradient needed.
        retain = loss != "margin" and bool((value == 0).any())
        gradient = input_gradient(value, leaf, keep=retain)
        size = _size(gradient)
        if loss != "margin" and bool((zero := size == 0).any()):
            again = logits if retain else model_logits(batch.attacked, leaf)
            value = attack_loss(again, labels, "margin", targets, batch.decision)[zero].sum()
            margin = input_gradient(value, leaf)
            gradient = torch.where(zero.view(-1, *(1,) * (gradient.dim() - 1)), margin, gradient)
            size = _size(gradient)
            batch.count(MARGIN, zero & (size != 0), rows.start)
    if bool((bad := ~size.isfinite()).any()):
        batch.count(NON_FINITE, bad, rows.start)
        gradient = gradient.masked_fill(bad.view(-1, *(1,) * (gradient.dim() - 1)), 0)
    if bool((zero := size == 0).any()):
        batch.count(ZERO, zero, rows.start)
        stuck = zero & ~misleads(logits.detach(), labels, targets, batch.decision, loss)  # the others need none
        if bool(stuck.any()):
            batch.count(STUCK, stuck, rows.start)
    return gradient, logits.detach()


def _size(gradient: Tensor) -> Tensor:
    """Return the largest entry of each image's gradient, (N,): NaN if any is."""
    flat = gradient.flatten(1)
    return torch.maximum(flat.amax(1), -flat.amin(1))


def _apart(values: Tensor) -> Tensor:
    """Return a leaf for autograd; a tensor from inference mode must be copied."""
    return values.clone() if values.is_inference() else values.detach()


def input_gradient(value: Tensor, leaf: Tensor, keep: bool = False) -> Tensor:
    """
    Return the gradient of the sum of values, in its own memory; GradientError if there is none.

    What autograd returns may be one number for many pixels (an expanded tensor), or a tensor that a derivative of the
    model's own keeps: neither may be written into.
    """
    if not value.requires_grad:
        raise GradientError(NOT_DIFFERENTIABLE)
    try:
        (gradient,) = torch.autograd.grad(value.sum(), leaf, retain_graph=keep, allow_unused=True)
    except NotImplementedError as error:
        raise GradientError(f"a part of the model has no derivative: {error}") from error
    if gradient is None:
        raise GradientError(NOT_DIFFERENTIABLE)
    return gradient.clone()


class InputCopier(nn.Module):
    """A module that gets copies of its inputs, which it may edit in place or return."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.train(module.training)

    def forward(self, inputs: Tensor) -> Any:
        """Return what the module returns for a copy of the images."""
        return self.module(inputs.clone())
