"""Running somebody else's module without leaving a trace on it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from robustness.weights import checksum


@contextmanager
def undisturbed(module: nn.Module, device: str = "cpu") -> Iterator[nn.Module]:
    """
    Lend a module in evaluation mode on a device; afterwards every mode, gradient, buffer and flag is as it was.

    >>> module = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    >>> _ = module[0].eval()  # a frozen batch norm inside a model in training
    >>> with undisturbed(module) as lent:
    ...     lent[1].training
    False
    >>> module[0].training, module[1].training
    (False, True)
    """
    modes = [(m, m.training) for m in module.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in module.parameters()]
    home = next((p.device for p in module.parameters()), torch.device(device))
    module.to(device)
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    module.eval()
    try:
        yield module
    finally:
        for each, training in modes:
            each.training = training
        for parameter, requires_grad, gradient in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
        for buffer, before in buffers:
            buffer.detach().copy_(before)
        module.to(home)


def replicas(module: nn.Module, count: int) -> list[nn.Module]:
    """
    Give modules that threads can run side by side: they share the parameters and nothing else.

    A module may keep things on itself in ``forward``; two threads in one module would mix them up.
    One that cannot be copied is given alone: fewer threads, the same numbers.

    >>> one, other = replicas(nn.Linear(2, 2), 2)
    >>> one is other, one.weight is other.weight
    (False, True)
    """
    if count == 1:
        return [module]
    shared = {id(parameter): parameter for parameter in module.parameters()}
    try:
        return [copy.deepcopy(module, dict(shared)) for _ in range(count)]
    except Exception:  # copying runs the module's own code, which may raise anything
        return [module]


def state_hash(module: nn.Module) -> str:
    """Give the sha256 over names and values of all parameters and buffers."""
    return checksum({name: value.detach().cpu() for name, value in module.state_dict().items()})
