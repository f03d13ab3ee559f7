"""Running somebody else's module without leaving a trace on it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from robustness.weights import checksum

M = TypeVar("M", bound=nn.Module)


@contextmanager
def undisturbed(module: M, device: str = "cpu") -> Iterator[M]:
    """
    Lend a module in evaluation mode on a device; afterwards every mode, gradient, buffer and flag is as it was.

    So is what its ``forward`` sets on it. Gradients are out of reach meanwhile, and parameters ask for none: an attack
    differentiates with respect to the images alone, and nothing is kept for more. Torch's inference mode is off, for
    good reason `no_grad` stands in its place in this package: a table that a model makes in its first pass and keeps
    (positions, rotary embeddings, in attributes, closures or globals) could not be differentiated through later.

    >>> module = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    >>> _ = module[0].eval()  # a frozen batch norm inside a model in training
    >>> with undisturbed(module) as lent:
    ...     lent[1].training
    False
    >>> module[0].training, module[1].training
    (False, True)
    """
    modules = [(m, m.training, dict(vars(m))) for m in module.modules()]
    registries = [(d, dict(d)) for m in module.modules() for d in vars(m).values() if isinstance(d, dict)]
    parameters = [(p, p.data, p.requires_grad, p.grad) for p in module.parameters()]
    values = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        for parameter, *_ in parameters:
            parameter.grad = None
            parameter.requires_grad_(False)
        with torch.inference_mode(False):
            yield module.to(device).eval()
    finally:
        for buffer, value in values:
            buffer.detach().copy_(value)
        for each, training, attributes in modules:
            _refill(vars(each), attributes)
            each.training = training
        for registry, entries in registries:  # of parameters, buffers, submodules, hooks
            _refill(registry, entries)
        for parameter, data, requires_grad, gradient in parameters:
            parameter.data = data  # on the device it came from
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


def _refill(changed: dict[Any, Any], before: dict[Any, Any]) -> None:
    changed.clear()
    changed.update(before)


def replicas(module: M, count: int) -> list[M]:
    """
    Return modules that threads can run side by side: they share the parameters and nothing else that lies on them.

    A module may keep things on itself in ``forward``; two threads in one module would mix them up.
    One that cannot be copied is returned alone: fewer threads, the same numbers. A copy may still write elsewhere (a
    hook that holds the original, a global dictionary): `robustness.sweep.trials` finds out.

    >>> one, other = replicas(nn.Linear(2, 2), 2)
    >>> one is other, one.weight is other.weight
    (False, True)
    """
    shared = {id(parameter): parameter for parameter in module.parameters()}
    try:
        return [copy.deepcopy(module, dict(shared)) for _ in range(count)]
    except Exception:  # copying runs the module's own code, which may raise anything
        return [module]


class Sparing(nn.Module):
    """A module that is handed copies: what it edits in place, or returns, is nobody else's."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.train(module.training)

    def forward(self, inputs: Tensor) -> Any:
        """Return what the module returns for a copy of the images."""
        return self.module(inputs.clone())


SMALL = 64
"""Pixels of a map below which convolutions are slower channels-last, on CPUs: twice at 2x2 with 512 channels."""


def convolutional(module: nn.Module) -> bool:
    """Say whether a module has convolutions."""
    return any(isinstance(each, nn.Conv2d) for each in module.modules())


def channels_last(module: nn.Module, works: Callable[[], bool]) -> bool:
    """
    Lay out a module's convolutions channels-last, some twice as fast on CPUs and GPUs; say whether that was done.

    Those on small maps keep their layout. One without convolutions, or with which ``works()`` does not work then (a
    `view` of what is not contiguous), is left as it was. For a module that is lent (`undisturbed`).
    """
    if not convolutional(module):
        return False
    small: set[nn.Module] = set()

    def look(each: nn.Module, given: tuple[Tensor, ...]) -> None:
        if given[0].shape[-2:].numel() < SMALL:
            small.add(each)

    hooks = [each.register_forward_pre_hook(look) for each in module.modules() if isinstance(each, nn.Conv2d)]
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fine = works()
    for hook in hooks:
        hook.remove()
    if fine and small:
        for each in small:
            each.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            each.register_forward_pre_hook(_contiguous)
        fine = works()
    if not fine:
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return fine


def _contiguous(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (given[0].contiguous(), *given[1:])


def state_hash(module: nn.Module) -> str:
    """Give the sha256 over names and values of all parameters and buffers."""
    named = chain(module.named_parameters(), module.named_buffers())
    return checksum({name: value.detach().cpu() for name, value in named})


class Bfloat16(nn.Module):
    """A module whose products are computed in bfloat16, and the rest as torch's autocast holds for sound."""

    def __init__(self, module: nn.Module, device: str) -> None:
        super().__init__()
        self.module, self.device = module, device

    def forward(self, inputs: Tensor) -> Any:
        """Give what the module gives, logits in float32."""
        # Weights are not kept in bfloat16 from pass to pass: a cache would outlive a change of them.
        with torch.autocast(self.device, torch.bfloat16, cache_enabled=False):
            found = self.module(inputs)
        return found.float() if isinstance(found, Tensor) else found
