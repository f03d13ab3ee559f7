"""Checkpoints as trainings leave them: nested, prefixed, with other things beside; what was done is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness.classifiers import weight_names, weights
from robustness.classifiers.pickles import Placeholder
from robustness.classifiers.weight_names import Fit
from robustness.errors import ModelError, nearest
from robustness.util import file_formats

if TYPE_CHECKING:
    from torch import Tensor, nn

DEPTH = 3
"""Keys, one in the other, under which tensors are looked for."""
OPTIMIZER = {"state", "param_groups"}
"""Entries of what an optimizer's state_dict() gives."""

Table = tuple[tuple[str, ...], dict[str, "Tensor"], list[str]]
"""Tensors by name, the keys that lead to them, and the names of what lies beside them."""


def load_checkpoint(module: nn.Module, path: Path, entry: str | None = None) -> list[str]:
    """
    Load a checkpoint into a module, and return what had to be done for that.

    Raise ModelError where it cannot be read without executing code, or is of another architecture: keys that are
    missing, unexpected and misshapen are listed.
    """
    content, notes = _content(path)
    own = module.state_dict()
    fit, said = _chosen(path, content, own, entry)
    weights.check_state_dict_keys(path, fit.missing, fit.unexpected, fit.misshapen)
    _refuse_apart(path, fit, own)
    weights.load_into(module, {**own, **fit.state}, path)
    return [*notes, *said, *fit.notes, *_cast(fit.state, module.state_dict())]


def _content(path: Path) -> tuple[Any, list[str]]:
    if file_formats.is_index(path):
        return _shards(path), [f"{path.name}: read {len(file_formats.shards(path))} shards"]
    return weights.load_untyped(path), []


def _chosen(path: Path, content: Any, own: Mapping[str, Any], entry: str | None) -> tuple[Fit, list[str]]:
    """Return the weights of a checkpoint that fit a module, or come nearest, and what to say of the choice."""
    tables = [table for table in _tables(content) if table[1]]
    fits = [fit for where, tensors, beside in tables for fit in weight_names.fits(where, tensors, own, beside)]
    whole = [fit for fit in fits if fit.is_whole]
    if entry is not None:
        known = sorted({name for fit in whole or fits for name in fit.entries})
        whole = [fit for fit in whole if entry in fit.entries]
        fits = [fit for fit in fits if entry in fit.entries]
        if not fits:
            raise ModelError(
                f"model.entry = {entry!r}: allowed in {path.name}: {', '.join(known) or 'none'}{nearest(entry, known)}"
            )
    if not any(fit.hits for fit in fits):
        _refuse_what_holds_none(path, content, tables)
    # Of those that are alike the first.
    best = min(whole, key=lambda fit: fit.rank) if whole else max(fits, key=lambda fit: (fit.hits, -fit.rank))
    others = [fit.title for fit in whole if fit is not best]
    if best.is_whole and others and best.rank == weight_names.UNKNOWN:
        raise ModelError(
            f"{path}: the weights of several entries fit the model: {_five([best.title, *others])}; say which are "
            f'meant by entry = "{best.title}" in the card\'s [model]'
        )
    weights.check_checksum(path, dict(next(tensors for where, tensors, _ in tables if where == best.where)))
    return best, _said(path, best, others)


def _said(path: Path, fit: Fit, others: list[str]) -> list[str]:
    """Say which entry was taken, and which others could have been."""
    taken = ".".join(fit.where) if fit.where and not others else fit.title
    also = f" (also there: {', '.join(others)}; `entry` in the card's [model] takes another)" if others else ""
    return [f"{path.name}: took the entry `{taken}`{also}"] if fit.where or others else []


def _refuse_apart(path: Path, fit: Fit, own: Mapping[str, Any]) -> None:
    """Raise ModelError where weights that are one tensor in the module are two in the file."""
    for first, *others in weight_names.ties(own):
        if other := [name for name in others if not fit.state[name].equal(fit.state[first])]:
            raise ModelError(f"{path}: {_five([first, *other])} are one tensor in the model, and differ here")


def _tables(content: Any, where: tuple[str, ...] = ()) -> Iterator[Table]:
    """Yield all tensors by name, and what lies among them, with the keys that lead there."""
    import torch

    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    nested = {str(name): value for name, value in content.items() if isinstance(value, Mapping)}
    yield where, tensors, [str(name) for name in content if str(name) not in tensors and str(name) not in nested]
    if len(where) < DEPTH:
        for name, value in nested.items():
            yield from _tables(value, (*where, name))


def _refuse_what_holds_none(path: Path, content: Any, tables: list[Table]) -> None:
    """Raise ModelError where a file holds nothing that could be weights by name, and say what it is instead."""
    must = f"{path}: must hold tensors by name"
    inside = {"": content, **content} if isinstance(content, Mapping) else {"": content}
    for key, value in inside.items():
        if isinstance(value, Placeholder) and value.is_module:
            taken = f"[{key!r}]" if key else ""
            raise ModelError(
                f"{must}, but {f'its entry {key!r}' if key else 'it'} is a whole pickled model ({value.stands_for}), "
                "which only its own code can read; where you trust the file, write its weights by: python -c "
                f"\"import torch; torch.save(torch.load('{path.name}', weights_only=False){taken}.state_dict(), "
                f"'weights.pt')\""
            )
    if isinstance(content, Mapping) and set(content) >= OPTIMIZER:
        raise ModelError(f"{must}, got an optimizer's state; save module.state_dict() of the model")
    if not isinstance(content, Mapping):
        kind = content.stands_for if isinstance(content, Placeholder) else type(content).__name__
        raise ModelError(f"{must}, got {kind}; save module.state_dict()")
    if any("numpy" in value.stands_for for value in content.values() if isinstance(value, Placeholder)):
        raise ModelError(f"{must}, got NumPy's arrays; save tensors, or write them by numpy.savez as an .npz file")
    if not any(where == () or weight_names.is_usual(where) for where, *_ in tables):
        raise ModelError(
            f"{must}, or have them in one of {', '.join(weight_names.NESTED)}, got the entries {_five(content)}; "
            "name another in model.entry, or save module.state_dict()"
        )


def _shards(path: Path) -> dict[str, Tensor]:
    """Read the files that an index names, and from each what the index says is in it."""
    placed = file_formats.shards(path)
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
    return weights.abbreviate([str(name) for name in names])
