"""Mutate a module: a copy of its weights, or its inputs and outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from robustness.errors import ModelError
from robustness.mutations.kinds import ALL, Mutation, MutationOperator


class MutatedModel(nn.Module):
    """A module with mutated inputs or outputs."""

    def __init__(
        self,
        module: nn.Module,
        inputs: Callable[[Tensor], Tensor] | None = None,
        outputs: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.module, self._inputs, self._outputs = module, inputs, outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mutated logits."""
        logits: Tensor = self.module(inputs if self._inputs is None else self._inputs(inputs))
        return logits if self._outputs is None else self._outputs(logits)


def not_applicable(module: nn.Module, kind: MutationOperator) -> str:
    """Return why an operator does not apply to a module, empty if it does."""
    if kind.target != "weights" or next(_matrices(module), None) is not None:
        return ""
    return "the model has no accessible weights; exported files (ONNX, frozen TorchScript) have none"


def mutate(module: nn.Module, mutation: Mutation, classes: int, outputs: int) -> nn.Module:
    """
    Return a mutated copy of a module; mutations of training data return the module itself.

    ``classes`` is the data's number of classes, ``outputs`` the model's number of outputs.
    """
    match mutation.kind:
        case "noise":
            return add_weight_noise(module, mutation.level, mutation.seed)
        case "pruning":
            return prune(module, mutation.level)
        case "rounding":
            return quantize(module, int(mutation.level))
        case "layer":
            return reinitialize_last_layer(module, mutation.level, outputs, mutation.seed)
        case "classes":
            return permute_classes(module, classes if mutation.level == ALL else int(mutation.level))
        case "normalisation":
            return shift_input_mean(module, mutation.level)
    return module


def add_weight_noise(module: nn.Module, deviations: float, seed: int = 0) -> nn.Module:
    """
    Add normal noise to every parameter, with ``deviations`` times its own standard deviation.

    >>> layer = nn.Linear(100, 100)
    >>> change = add_weight_noise(layer, 0.5).weight - layer.weight
    >>> bool(0.48 < change.std() / layer.weight.std() < 0.52)
    True
    """
    mutated, generator = _copy(module), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in mutated.parameters():
            if parameter.is_floating_point():
                parameter.add_(_noise(parameter, generator) * deviations)
    return mutated


def prune(module: nn.Module, fraction: float) -> nn.Module:
    """
    Set the smallest ``fraction`` of every weight matrix or kernel to zero.

    >>> int((prune(nn.Linear(10, 10), 0.5).weight == 0).sum())
    50
    """
    mutated = _copy(module)
    with torch.no_grad():
        for _, weight in _matrices(mutated):
            smallest = weight.abs().flatten().argsort()[: round(fraction * weight.numel())]
            mask = torch.ones(weight.numel(), dtype=weight.dtype)
            mask[smallest] = 0
            weight.mul_(mask.view_as(weight))
    return mutated


def quantize(module: nn.Module, bits: int) -> nn.Module:
    """
    Quantise every weight matrix or kernel to integers of ``bits`` bits, with one scale each.

    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 0.4]]))
    >>> quantize(layer, 2).weight.tolist()
    [[1.0, 0.0]]
    """
    mutated, maximum = _copy(module), 2 ** (bits - 1) - 1
    with torch.no_grad():
        for _, weight in _matrices(mutated):
            scale = weight.abs().max() / maximum
            if scale > 0:
                weight.copy_((weight / scale).round() * scale)
    return mutated


def reinitialize_last_layer(module: nn.Module, fraction: float, outputs: int, seed: int = 0) -> nn.Module:
    """
    Interpolate the last layer towards a random one, drawn from a normal distribution with the layer's own spread.

    The last layer is that of the last weight matrix with one row per output, or of the last matrix if there is none.

    >>> layer = nn.Linear(3, 2)
    >>> [torch.equal(reinitialize_last_layer(layer, share, 2).weight, layer.weight) for share in (0.0, 1.0)]
    [True, False]
    """
    mutated, generator = _copy(module), torch.Generator().manual_seed(seed)
    matrices = list(_matrices(mutated))
    name = next((name for name, weight in reversed(matrices) if len(weight) == outputs), matrices[-1][0])
    layer = name.rpartition(".")[0]
    with torch.no_grad():
        for parameter_name, parameter in mutated.named_parameters():
            if parameter_name.rpartition(".")[0] == layer and parameter.is_floating_point():
                noise = _noise(module.get_parameter(parameter_name), generator)  # with the spread of the original
                parameter.mul_(1 - fraction).add_(noise * fraction)
    return mutated


def permute_classes(module: nn.Module, classes: int) -> nn.Module:
    """
    Rotate the first ``classes`` outputs by one, as a class list in another order does; two are swapped.

    >>> permute_classes(nn.Identity(), 2)(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[2., 1., 3.]])
    """

    def rotate(logits: Tensor) -> Tensor:
        return torch.cat([logits[:, :classes].roll(1, dims=1), logits[:, classes:]], dim=1)

    return MutatedModel(module, outputs=rotate)


def shift_input_mean(module: nn.Module, mean: float) -> nn.Module:
    """
    Subtract a mean that the module was not trained with.

    A scale would not change the decisions of a ReLU network without biases, and hardly those of one with biases.

    >>> shift_input_mean(nn.Identity(), 0.5)(torch.ones(1, 1))
    tensor([[0.5000]])
    """
    return MutatedModel(module, inputs=lambda inputs: inputs - mean)


def _copy(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:  # copying runs the module's own code, which may raise anything
        raise ModelError(
            f"the model cannot be mutated, because it cannot be copied: {type(error).__name__}: {error}"
        ) from error


def _matrices(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Return name and value of every weight matrix and kernel, without biases."""
    return ((name, p) for name, p in module.named_parameters() if p.dim() > 1 and p.is_floating_point())


def _noise(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Return normal noise with a parameter's own standard deviation."""
    deviation = parameter.detach().float().std(correction=0)
    return (torch.randn(parameter.shape, generator=generator) * deviation).to(parameter.dtype)
