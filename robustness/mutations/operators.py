"""Damage to a module: to a copy of its weights, or to what goes in and comes out of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from robustness.errors import ModelError
from robustness.mutations.kinds import ALL, Mutation, MutationOperator


class MutatedModel(nn.Module):
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
        """Return the module's logits, spoilt."""
        logits: Tensor = self.module(inputs if self._inputs is None else self._inputs(inputs))
        return logits if self._outputs is None else self._outputs(logits)


def not_applicable(module: nn.Module, kind: MutationOperator) -> str:
    """Say why a module cannot be damaged so; nothing where it can."""
    if kind.done != "weights" or next(_matrices(module), None) is not None:
        return ""
    return "the model has no weights that can be reached, as exported files (ONNX, frozen TorchScript) have none"


def mutate(module: nn.Module, damage: Mutation, classes: int, outputs: int) -> nn.Module:
    """
    Return a damaged module; the given one is as it was. Of a training's data nothing is left to do.

    ``classes`` are the data's, ``outputs`` what the decision makes them of.
    """
    match damage.kind:
        case "noise":
            return add_weight_noise(module, damage.level, damage.seed)
        case "pruning":
            return prune(module, damage.level)
        case "rounding":
            return quantize(module, int(damage.level))
        case "layer":
            return reinitialize_last_layer(module, damage.level, outputs, damage.seed)
        case "classes":
            return permute_classes(module, classes if damage.level == ALL else int(damage.level))
        case "normalisation":
            return shift_input_mean(module, damage.level)
    return module


def add_weight_noise(module: nn.Module, deviations: float, seed: int = 0) -> nn.Module:
    """
    Add normal noise to every parameter, of ``deviations`` times its own standard deviation.

    >>> layer = nn.Linear(100, 100)
    >>> change = add_weight_noise(layer, 0.5).weight - layer.weight
    >>> bool(0.48 < change.std() / layer.weight.std() < 0.52)
    True
    """
    spoilt, generator = _copied(module), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in spoilt.parameters():
            if parameter.is_floating_point():
                parameter.add_(_noise(parameter, generator) * deviations)
    return spoilt


def prune(module: nn.Module, share: float) -> nn.Module:
    """
    Set the smallest ``share`` of every weight matrix or kernel to zero.

    >>> int((prune(nn.Linear(10, 10), 0.5).weight == 0).sum())
    50
    """
    spoilt = _copied(module)
    with torch.no_grad():
        for _, weight in _matrices(spoilt):
            smallest = weight.abs().flatten().argsort()[: round(share * weight.numel())]
            kept = torch.ones(weight.numel(), dtype=weight.dtype)
            kept[smallest] = 0
            weight.mul_(kept.view_as(weight))
    return spoilt


def quantize(module: nn.Module, bits: int) -> nn.Module:
    """
    Round every weight matrix or kernel to whole numbers of ``bits``, of one scale each, as quantisation does.

    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 0.4]]))
    >>> quantize(layer, 2).weight.tolist()
    [[1.0, 0.0]]
    """
    spoilt, most = _copied(module), 2 ** (bits - 1) - 1
    with torch.no_grad():
        for _, weight in _matrices(spoilt):
            scale = weight.abs().max() / most
            if scale > 0:
                weight.copy_((weight / scale).round() * scale)
    return spoilt


def reinitialize_last_layer(module: nn.Module, share: float, outputs: int, seed: int = 0) -> nn.Module:
    """
    Move the last layer a share of the way to one that was drawn anew, from the normal distribution of its own spread.

    The last is the last weight matrix that has as many rows as there are outputs, else the last of all.

    >>> layer = nn.Linear(3, 2)
    >>> [torch.equal(reinitialize_last_layer(layer, share, 2).weight, layer.weight) for share in (0.0, 1.0)]
    [True, False]
    """
    spoilt, generator = _copied(module), torch.Generator().manual_seed(seed)
    every = list(_matrices(spoilt))
    name = next((name for name, weight in reversed(every) if len(weight) == outputs), every[-1][0])
    layer = name.rpartition(".")[0]
    with torch.no_grad():
        for each, parameter in spoilt.named_parameters():
            if each.rpartition(".")[0] == layer and parameter.is_floating_point():
                parameter.mul_(1 - share).add_(_noise(parameter, generator, of=module.get_parameter(each)) * share)
    return spoilt


def permute_classes(module: nn.Module, classes: int) -> nn.Module:
    """
    Move the first ``classes`` outputs on by one place, as a list of classes in another order does; two change places.

    >>> permute_classes(nn.Identity(), 2)(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[2., 1., 3.]])
    """

    def rolled(logits: Tensor) -> Tensor:
        return torch.cat([logits[:, :classes].roll(1, dims=1), logits[:, classes:]], dim=1)

    return MutatedModel(module, outputs=rolled)


def shift_input_mean(module: nn.Module, mean: float) -> nn.Module:
    """
    Subtract a mean that the module was not trained with.

    A mere scale is no damage to a network of ReLUs without biases, nor much to one with them; an offset is.

    >>> shift_input_mean(nn.Identity(), 0.5)(torch.ones(1, 1))
    tensor([[0.5000]])
    """
    return MutatedModel(module, inputs=lambda inputs: inputs - mean)


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:  # copying runs the module's own code, which may raise anything
        raise ModelError(
            f"the model's weights cannot be damaged, for it cannot be copied: {type(error).__name__}: {error}"
        ) from error


def _matrices(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Return name and value of every parameter that weighs inputs: matrices and kernels, no biases."""
    return ((name, p) for name, p in module.named_parameters() if p.dim() > 1 and p.is_floating_point())


def _noise(parameter: Tensor, generator: torch.Generator, of: Tensor | None = None) -> Tensor:
    """Draw normal numbers as spread as a parameter's own are."""
    spread = (parameter if of is None else of).detach().float().std(correction=0)
    return (torch.randn(parameter.shape, generator=generator) * spread).to(parameter.dtype)
