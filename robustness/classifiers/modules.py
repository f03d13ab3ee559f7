"""Run a user's module and leave it unchanged; memory formats, copies and hashes of modules."""

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
    Yield a module in evaluation mode on a device; restore every mode, gradient, buffer and attribute afterwards.

    The state of the process is restored too (`robustness.classifiers.process_state`). Inside, parameters require no
    gradient: an attack differentiates with respect to the images alone, and autograd saves nothing for more.
    Inference mode is off, and this package uses `no_grad` instead: a table that a model computes in its first pass
    and caches (positions, rotary embeddings) could not be differentiated through later.

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
        with torch.inference_mode(False), process_state.restore_state():
            yield module.to(device).eval()
    except KeyboardInterrupt:  # the user's
        raise
    except BaseException as error:
        if not call_factory.is_foreign(error):
            raise
        raise ModelError(
            f"the model raised {call_factory.describe_error(error)}; a forward pass must return logits: call what "
            "skips or ends tests in tests only"
        ) from error
    finally:
        for buffer, value in values:
            buffer.detach().copy_(value)
        for submodule, training, attributes in modules:
            _restore(vars(submodule), attributes)
            submodule.training = training
        for registry, entries in registries:  # parameters, buffers, submodules, hooks
            _restore(registry, entries)
        for parameter, data, requires_grad, gradient in parameters:
            parameter.data = data  # on the device it came from
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


def _restore(mapping: dict[Any, Any], entries: dict[Any, Any]) -> None:
    mapping.clear()
    mapping.update(entries)


def replicas(module: M, count: int) -> list[M]:
    """
    Return copies of a module that threads can run in parallel: they share parameters and no other attribute.

    A ``forward`` may store values on its module, which two threads in one module would mix up. A module that cannot
    be copied is returned alone: fewer threads, the same numbers. A copy may still write elsewhere (a hook that holds
    the original, a global dictionary): `robustness.sweep.trials` detects that.

    >>> one, other = replicas(nn.Linear(2, 2), 2)
    >>> one is other, one.weight is other.weight
    (False, True)
    """
    shared = {id(parameter): parameter for parameter in module.parameters()}
    try:
        return [copy.deepcopy(module, dict(shared)) for _ in range(count)]
    except Exception:  # copying runs the module's own code, which may raise anything
        return [module]


# Pixels of a feature map below which channels-last convolutions are slower on CPUs: twice at 2x2, 512 channels.
MIN_MAP_PIXELS = 64

# Channels that oneDNN's kernels for AVX2 process together.
ONEDNN_BLOCK = 8


def has_convolutions(module: nn.Module) -> bool:
    """Return whether a module has 2-d convolutions."""
    return any(isinstance(submodule, nn.Conv2d) for submodule in module.modules())


def channels_last(module: nn.Module, accepts: Callable[[], bool]) -> bool:
    """
    Convert a module's convolutions to channels-last, up to twice as fast on CPUs and GPUs; return whether it was done.

    Convolutions on small maps keep their layout. The module stays unchanged if it has no convolutions, or if
    ``accepts()`` is false afterwards (a `view` of a tensor that is not contiguous). Call it inside
    `restored_afterwards`.
    """
    if not has_convolutions(module):
        return False
    small: set[nn.Module] = set()

    def find_small(convolution: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[-2:].numel() < MIN_MAP_PIXELS:
            small.add(convolution)

    hooks = [
        convolution.register_forward_pre_hook(find_small)
        for convolution in module.modules()
        if isinstance(convolution, nn.Conv2d)
    ]
    hooks += lay_out(module)
    accepted = accepts()
    for hook in hooks:
        hook.remove()
    hooks = lay_out(module, small) if accepted else []
    accepted = accepted and (not small or accepts())
    if not accepted:
        for hook in hooks:
            hook.remove()
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return accepted


def lay_out(module: nn.Module, excluded: Collection[nn.Module] = ()) -> list[RemovableHandle]:
    """
    Convert a module's convolutions to channels-last, except ``excluded`` ones and those that it is not safe for.

    Return the hooks that make the inputs of the exceptions contiguous; remove them to end the layout.
    """
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch documents it
    hooks = []
    for submodule in module.modules():
        if isinstance(submodule, nn.Conv2d) and (submodule in excluded or not is_channels_last_safe(submodule)):
            submodule.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            hooks.append(submodule.register_forward_pre_hook(_contiguous))
    return hooks


def is_channels_last_safe(convolution: nn.Conv2d) -> bool:
    """
    Return whether a convolution's gradients are correct in channels-last on this machine.

    On x86-64 without AVX-512, oneDNN writes past a buffer when it computes the weight gradient of a strided 1×1
    convolution whose number of input channels is no multiple of 8 (`benchmarks/onednn.py` shows it): the process
    crashes, or continues with wrong numbers. Outputs and input gradients are correct, so only training is affected.
    """
    weight = convolution.weight
    return not (
        weight.requires_grad
        and weight.device.type == "cpu"
        and convolution.kernel_size == (1, 1)
        and convolution.stride != (1, 1)
        and convolution.in_channels % ONEDNN_BLOCK
        and not _has_avx512()
    )


def _has_avx512() -> bool:
    """Return whether oneDNN uses AVX-512; the environment may limit it."""
    limits = (os.environ.get(name) for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"))
    limit = next((value.upper() for value in limits if value), "DEFAULT")
    allowed = limit.startswith(("AVX512", "AVX10", "DEFAULT", "ALL"))
    return allowed and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _contiguous(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    inputs = arguments[0].contiguous()
    if inputs.shape[1] == 1:  # both layouts are contiguous then; only a copy has the strides of the contiguous format
        inputs = inputs.clone(memory_format=torch.contiguous_format)
    return (inputs, *arguments[1:])


def state_hash(module: nn.Module) -> str:
    """Return the SHA-256 of the names and values of all parameters and buffers."""
    named = chain(module.named_parameters(), module.named_buffers())
    return checksum({name: value.detach().cpu() for name, value in named})


class Bfloat16(nn.Module):
    """A module that runs under torch's autocast to bfloat16."""

    def __init__(self, module: nn.Module, device: str) -> None:
        super().__init__()
        self.module, self.device = module, device

    def forward(self, inputs: Tensor) -> Any:
        """Return the module's outputs, logits in float32."""
        # No cache of bfloat16 weights: it would outlive a change of the weights.
        with torch.autocast(self.device, torch.bfloat16, cache_enabled=False):
            outputs = self.module(inputs)
        return outputs.float() if isinstance(outputs, Tensor) else outputs
