"""Checkpoints as they are found: sharded, nested in other things, with prefixed names; what was done is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness import weights
from robustness.errors import ModelError, nearest
from robustness.found import formats

if TYPE_CHECKING:
    from torch import Tensor, nn

NESTED = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema",
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module",
)  # fmt: skip
"""Entries in which trainings keep weights, in the order in which they are taken: averaged ones first, as timm does."""
PREFIXES = ("module.", "model.", "net.", "network.")
"""What parallel, compiled and wrapped modules put before every name."""
COMPILED = "_orig_mod."
DEPTH = 3


def put(module: nn.Module, path: Path, entry: str | None = None) -> list[str]:
    """
    Load a checkpoint into a module, and say what had to be done for that.

    ModelError where it cannot be read without executing code, or is of another architecture: keys that are missing,
    unexpected and misshapen are listed.
    """
    state, notes = read(path, entry)
    state, said = renamed(state, module.state_dict())
    weights.put(module, state, path)
    return [*notes, *said, *_cast(state, module.state_dict())]


def read(path: Path, entry: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Give the tensors of a checkpoint by name, and what had to be done; ``entry`` names the one that is nested."""
    found: Any = _shards(path) if formats.is_index(path) else weights.raw(path)
    notes = [f"{path.name}: read {len(formats.shards(path))} shards"] if formats.is_index(path) else []
    for _ in range(DEPTH):
        if entry is None and _is_state(found):
            break
        key, others = _nested(path, found, entry)
        notes.append(f"{path.name}: took the entry `{key}`" + (f" (also there: {', '.join(others)})" if others else ""))
        found, entry = found[key], None
    if not _is_state(found):
        raise ModelError(f"{path}: must hold tensors by name, got {type(found).__name__}; save module.state_dict()")
    weights.check(path, found)
    return {str(name): value for name, value in found.items()}, notes


def _nested(path: Path, found: Any, entry: str | None) -> tuple[str, list[str]]:
    """Give the entry in which a training's file keeps weights, and the others that it might be."""
    if not isinstance(found, Mapping):
        raise ModelError(f"{path}: must hold tensors by name, got {type(found).__name__}; save module.state_dict()")
    keys = [key for key in NESTED if _holds(found.get(key))]
    if entry is not None:
        if not _holds(found.get(entry)):
            known = f"{', '.join(keys)}{nearest(entry, keys)}"
            raise ModelError(f"model.entry = {entry!r}: allowed in {path.name}: {known}")
        return entry, []
    if not keys:
        raise ModelError(
            f"{path}: must hold tensors by name, or have them in one of {', '.join(NESTED)}, got the entries "
            f"{_five(found)}; name another in model.entry, or save module.state_dict()"
        )
    return keys[0], keys[1:]


def renamed(state: Mapping[str, Tensor], own: Iterable[str]) -> tuple[dict[str, Tensor], list[str]]:
    """
    Leave out what all names begin with, where more of them are the module's own without it; say what was left out.

    >>> renamed({"module.weight": 1, "module.bias": 2}, ["weight", "bias"])
    ({'weight': 1, 'bias': 2}, ['left out of all names: `module.`'])
    """
    known, names = set(own), list(state)
    best, most = names, _hits(names, known)
    left_out: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    if any(COMPILED in name for name in names) and not any(COMPILED in name for name in known):
        names, gone = [name.replace(COMPILED, "") for name in names], (COMPILED,)
    while True:
        if _hits(names, known) > most:
            best, most, left_out = names, _hits(names, known), gone
        prefix = next((each for each in PREFIXES if names and all(name.startswith(each) for name in names)), None)
        if prefix is None:
            break
        names, gone = [name.removeprefix(prefix) for name in names], (*gone, prefix)
    if not left_out or len(set(best)) < len(best):
        return dict(state), []
    return dict(zip(best, state.values(), strict=True)), [
        f"left out of all names: {', '.join(f'`{each}`' for each in left_out)}"
    ]


def _hits(names: Iterable[str], known: set[str]) -> int:
    return sum(name in known for name in names)


def _is_state(found: Any) -> bool:
    import torch

    return isinstance(found, Mapping) and all(isinstance(value, torch.Tensor) for value in found.values())


def _holds(found: Any) -> bool:
    """Say whether something is, or has in it, tensors by name."""
    return isinstance(found, Mapping) and bool(found) and (_is_state(found) or any(key in found for key in NESTED))


def _shards(path: Path) -> dict[str, Tensor]:
    """Read the files that an index names, and from each what the index says is in it."""
    placed = formats.shards(path)
    found: dict[str, Tensor] = {}
    for file, names in placed.items():
        state = weights.read(file)
        if absent := [name for name in names if name not in state]:
            raise ModelError(f"{file}: {path.name} says that it holds {_five(absent)}, which it does not")
        found |= {name: state[name] for name in names}
    return found


def _cast(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Say which weights were kept in another floating type than the module computes in."""
    other = {
        str(tensor.dtype).removeprefix("torch.")
        for name, tensor in state.items()
        if tensor.is_floating_point() and tensor.dtype != own[name].dtype
    }
    return [f"weights of {', '.join(sorted(other))} are computed with in float32"] if other else []


def _five(names: Iterable[Any]) -> str:
    return weights.five([str(name) for name in names])
