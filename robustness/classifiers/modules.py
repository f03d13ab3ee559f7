"""Running somebody else's module without leaving a trace on it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from robustness.classifiers import call_factory, process_state
from robustness.classifiers.weights import checksum
from robustness.errors import ModelError

M = TypeVar("M", bound=nn.Module)


@contextmanager
def restored_afterwards(module: M, device: str = "cpu") -> Iterator[M]:
    """
    Lend a module in evaluation mode on a device; afterwards every mode, gradient, buffer and flag is as it was.

    So is what its ``forward`` sets on it, and of what the process has once (`robustness.classifiers.process_state`).
    Gradients are out of reach meanwhile, and parameters ask for none: an attack differentiates with respect to the
    images alone, and nothing is kept for more. Torch's inference mode is off, and `no_grad` stands in its place in this
    package: a table that a model makes in its first pass and keeps (positions, rotary embeddings, in attributes,
    closures or globals) could not be differentiated through later.

    >>> module = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    >>> _ = module[0].eval()  # a frozen batch norm inside a model in training
    >>> with restored_afterwards(module) as lent:
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
        with torch.inference_mode(False), process_state.set_back():
            yield module.to(device).eval()
    except KeyboardInterrupt:  # of whoever runs this
        raise
    except BaseException as error:
        if not call_factory.is_foreign(error):
            raise
        raise ModelError(
            f"the model raised {call_factory.described(error)}; a forward pass must return logits: what skips or ends "
            "tests is for tests"
        ) from error
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


SMALL = 64
"""Pixels of a map below which convolutions are slower channels-last, on CPUs: twice at 2x2 with 512 channels."""


BLOCK = 8
"""Channels that oneDNN's kernels for AVX2 compute at once."""


def has_convolutions(module: nn.Module) -> bool:
    """Return whether a module has convolutions."""
    return any(isinstance(each, nn.Conv2d) for each in module.modules())


def channels_last(module: nn.Module, works: Callable[[], bool]) -> bool:
    """
    Lay out a module's convolutions channels-last, some twice as fast on CPUs and GPUs; say whether that was done.

    Those on small maps keep their layout. One without convolutions, or with which ``works()`` does not work then (a
    `view` of what is not contiguous), is left as it was. For a module that is lent (`undisturbed`).
    """
    if not has_convolutions(module):
        return False
    small: set[nn.Module] = set()

    def look(each: nn.Module, given: tuple[Tensor, ...]) -> None:
        if given[0].shape[-2:].numel() < SMALL:
            small.add(each)

    hooks = [each.register_forward_pre_hook(look) for each in module.modules() if isinstance(each, nn.Conv2d)]
    hooks += lay_out(module)
    fine = works()
    for hook in hooks:
        hook.remove()
    hooks = lay_out(module, small) if fine else []
    fine = fine and (not small or works())
    if not fine:
        for hook in hooks:
            hook.remove()
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return fine


def lay_out(module: nn.Module, apart: Collection[nn.Module] = ()) -> list[RemovableHandle]:
    """
    Lay out a module's convolutions channels-last, but for those ``apart`` and those that are not sound so.

    Return the hooks that give the latter contiguous maps; remove them when the layout is no longer needed.
    """
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch documents it
    hooks = []
    for each in module.modules():
        if isinstance(each, nn.Conv2d) and (each in apart or not sound_channels_last(each)):
            each.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            hooks.append(each.register_forward_pre_hook(_contiguous))
    return hooks


def sound_channels_last(convolution: nn.Conv2d) -> bool:
    """
    Return whether a convolution's gradients are computed soundly channels-last on this machine.

    On x86-64 without AVX-512 oneDNN writes behind a buffer when it computes the weight gradient of a strided 1×1
    convolution whose input channels are no multiple of 8 (`benchmarks/onednn.py` shows it): the process ends, or goes
    on with wrong numbers. Output and input gradient are sound: a module that is not trained is not concerned.
    """
    weight = convolution.weight
    return not (
        weight.requires_grad
        and weight.device.type == "cpu"
        and convolution.kernel_size == (1, 1)
        and convolution.stride != (1, 1)
        and convolution.in_channels % BLOCK
        and not _has_avx512()
    )


def _has_avx512() -> bool:
    """Return whether oneDNN computes with AVX-512; it reads the environment once, and so may whoever limits it."""
    limits = (os.environ.get(name) for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"))
    limit = next((value.upper() for value in limits if value), "DEFAULT")
    allowed = limit.startswith(("AVX512", "AVX10", "DEFAULT", "ALL"))
    return allowed and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _contiguous(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    inputs = given[0].contiguous()
    if inputs.shape[1] == 1:  # both layouts are contiguous then, and only a copy is sure to be laid out as the former
        inputs = inputs.clone(memory_format=torch.contiguous_format)
    return (inputs, *given[1:])


def state_hash(module: nn.Module) -> str:
    """Return the sha256 over names and values of all parameters and buffers."""
    named = chain(module.named_parameters(), module.named_buffers())
    return checksum({name: value.detach().cpu() for name, value in named})


class Bfloat16(nn.Module):
    """A module whose products are computed in bfloat16, and the rest as torch's autocast holds for sound."""

    def __init__(self, module: nn.Module, device: str) -> None:
        super().__init__()
        self.module, self.device = module, device

    def forward(self, inputs: Tensor) -> Any:
        """Return what the module gives, logits in float32."""
        # Weights are not kept in bfloat16 from pass to pass: a cache would outlive a change of them.
        with torch.autocast(self.device, torch.bfloat16, cache_enabled=False):
            found = self.module(inputs)
        return found.float() if isinstance(found, Tensor) else found
