"""Damage done on purpose, in steps: what a gate should catch, and from which step on it does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn


class Adapted(nn.Module):
    """A module with something done to its inputs or outputs."""

    def __init__(
        self,
        module: nn.Module,
        inputs: Callable[[Tensor], Tensor] | None = None,
        outputs: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.module, self._inputs, self._outputs = module, inputs, outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Give the module's logits, adapted."""
        logits: Tensor = self.module(inputs if self._inputs is None else self._inputs(inputs))
        return logits if self._outputs is None else self._outputs(logits)


def noised(module: nn.Module, deviations: float, seed: int = 0) -> nn.Module:
    """
    Add normal noise to every parameter, of ``deviations`` times its own standard deviation.

    >>> layer = nn.Linear(100, 100)
    >>> change = noised(layer, 0.5).weight - layer.weight
    >>> bool(0.48 < change.std() / layer.weight.std() < 0.52)
    True
    """
    damaged = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in damaged.parameters():
            spread = parameter.std(correction=0)
            parameter.add_(torch.randn(parameter.shape, generator=generator) * deviations * spread)
    return damaged


def pruned(module: nn.Module, share: float) -> nn.Module:
    """
    Set the smallest ``share`` of every weight matrix or kernel to zero.

    >>> int((pruned(nn.Linear(10, 10), 0.5).weight == 0).sum())
    50
    """
    damaged = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in damaged.parameters():
            if parameter.dim() > 1:
                smallest = parameter.abs().flatten().argsort()[: round(share * parameter.numel())]
                parameter.view(-1)[smallest] = 0
    return damaged


def shifted_labels(module: nn.Module, classes: int) -> nn.Module:
    """
    Rotate the first ``classes`` outputs by one, as a label list that lost its order does.

    >>> identity = nn.Identity()
    >>> shifted_labels(identity, 2)(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[2., 1., 3.]])
    """

    def rotated(logits: Tensor) -> Tensor:
        return torch.cat([logits[:, :classes].roll(1, dims=1), logits[:, classes:]], dim=1)

    return Adapted(module, outputs=rotated)


def wrong_normalisation(module: nn.Module, mean: float, deviation: float = 1.0) -> nn.Module:
    """
    Subtract a mean and divide by a deviation that the module was not trained with.

    A mere scale is no damage to a network of ReLUs without biases, nor much to one with them; an offset is.

    >>> wrong_normalisation(nn.Identity(), 0.5, 0.5)(torch.ones(1, 1))
    tensor([[1.]])
    """
    return Adapted(module, inputs=lambda inputs: (inputs - mean) / deviation)


def reinitialised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Forget everything that was trained: every layer draws its parameters anew."""
    damaged = copy.deepcopy(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in damaged.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
    return damaged


@dataclass(frozen=True)
class Step:
    """One kind of damage at one level."""

    kind: str
    level: str
    apply: Callable[[nn.Module], nn.Module]


def ladder(classes: int) -> Iterator[Step]:
    """Give every kind of damage in rising levels, ending with weights that know nothing."""
    for deviations in (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2):
        yield Step("weight noise", f"{deviations:g} deviations", partial(noised, deviations=deviations))
    for share in (0.3, 0.5, 0.7, 0.8, 0.85, 0.9):
        yield Step("pruned", f"{share:.0%} of the weights", partial(pruned, share=share))
    for count in (2, 3, classes):
        yield Step("labels shifted", f"{count} of {classes} classes", partial(shifted_labels, classes=count))
    for mean in (0.05, 0.1, 0.2, 0.3, 0.5):
        yield Step("normalisation wrong", f"mean {mean:g} subtracted", partial(wrong_normalisation, mean=mean))
    yield Step("normalisation wrong", "mean 0.5, deviation 0.5", partial(wrong_normalisation, mean=0.5, deviation=0.5))
    yield Step("re-initialised", "all layers", reinitialised)
