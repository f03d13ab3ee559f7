"""Weights files: read without executing code, checked against what they say of themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustness.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn


def metadata(path: Path) -> dict[str, str]:
    """Give what a safetensors file says of itself, reading its header alone; nothing for other files."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > 2**26:
                raise ValueError("no header")
            return dict(json.loads(stream.read(size)).get("__metadata__", {}))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: not a safetensors file (torn, or of another format): {error}") from error


def to_bytes(state: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """Write tensors as safetensors with a checksum of the tensors in the header."""
    import safetensors.torch

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return bytes(safetensors.torch.save(tensors, {**about, "checksum": checksum(tensors)}))


def read(path: Path) -> dict[str, Tensor]:
    """
    Read the tensors of a ``.safetensors`` file, or of one that ``torch.load(weights_only=True)`` takes.

    ModelError where the file is missing, torn, changed after it was written, or would execute code.
    """
    import torch

    if not path.is_file():
        raise ModelError(f"{path}: there is no such weights file")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            state = safetensors.torch.load(path.read_bytes())
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the parsers raise many kinds; to the user it is one
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path}: cannot be read without executing code, or is torn: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path}: must hold tensors by name, got {type(state).__name__}; save module.state_dict()")
    said = metadata(path).get("checksum")
    if said is not None and said != checksum(state):
        raise ModelError(f"{path}: its tensors do not fit its checksum (damaged, or edited after it was written)")
    return state


def verify(path: Path) -> None:
    """
    Check a safetensors file that this project wrote against its checksum, with NumPy alone.

    ModelError where it is torn, foreign or changed.
    """
    import safetensors.numpy

    try:
        said = metadata(path).get("checksum")
        arrays = safetensors.numpy.load(path.read_bytes())
    except Exception as error:  # the parser raises many kinds
        raise ModelError(f"{path}: not a whole weights file (torn or foreign)") from error
    if said != checksum(arrays):
        raise ModelError(f"{path}: its tensors do not fit its checksum (damaged, or edited after it was written)")


def put(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a module; ModelError lists what is missing, unexpected or of another shape."""
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing or unexpected or misshapen:
        kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
        listed = "; ".join(f"{kind}: {_five(names)}" for kind, names in kinds.items() if names)
        raise ModelError(f"{path}: these are weights of another architecture: {listed}")
    module.load_state_dict(dict(state))


def _five(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def checksum(tensors: Mapping[str, Any]) -> str:
    """
    Give the sha256 over names, types, shapes and values of tensors on the CPU, torch's or NumPy's.

    >>> import numpy as np
    >>> checksum({"w": np.zeros(2, np.float32)}) == checksum({"w": np.zeros((2, 1), np.float32)})
    False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}{dtype}{tuple(tensor.shape)}".encode())
        if not isinstance(tensor, np.ndarray):
            import torch

            tensor = tensor.contiguous().flatten().view(torch.uint8).numpy()
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()
