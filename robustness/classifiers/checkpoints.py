"""Load training checkpoints: nested, with prefixes, with other entries; notes say what was done."""

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

# Levels of nested keys that are searched for tensors.
DEPTH = 3
# Entries of an optimizer's state_dict().
OPTIMIZER = {"state", "param_groups"}

# The keys that lead to a table of tensors, the tensors by name, and the names of the other entries.
Table = tuple[tuple[str, ...], dict[str, "Tensor"], list[str]]


def load_checkpoint(module: nn.Module, path: Path, checkpoint_key: str | None = None) -> list[str]:
    """
    Load a checkpoint into a module; return notes on how its entries were matched.

    Raise ModelError if it cannot be read without executing code, or belongs to another architecture: the message
    lists missing and unexpected keys, and those of another shape.
    """
    content, notes = _read_content(path)
    state = module.state_dict()
    fit, entry_notes = _select_fit(path, content, state, checkpoint_key)
    weights.check_state_dict_keys(path, fit.missing, fit.unexpected, fit.wrong_shapes)
    _check_tied_weights(path, fit, state)
    weights.load_into(module, {**state, **fit.state}, path)
    return [*notes, *entry_notes, *fit.notes, *_dtype_notes(fit.state, module.state_dict())]


def _read_content(path: Path) -> tuple[Any, list[str]]:
    if file_formats.is_index(path):
        return _read_shards(path), [f"{path.name}: read {len(file_formats.shards(path))} shards"]
    return weights.load_untyped(path), []


def _select_fit(
    path: Path, content: Any, state: Mapping[str, Any], checkpoint_key: str | None
) -> tuple[Fit, list[str]]:
    """Return the table of a checkpoint that fits a module best, and a note on the choice."""
    tables = [table for table in _tables(content) if table[1]]
    fits = [fit for keys, tensors, others in tables for fit in weight_names.find_fits(keys, tensors, state, others)]
    complete = [fit for fit in fits if fit.is_complete]
    if checkpoint_key is not None:
        names = sorted({name for fit in complete or fits for name in fit.entries})
        complete = [fit for fit in complete if checkpoint_key in fit.entries]
        fits = [fit for fit in fits if checkpoint_key in fit.entries]
        if not fits:
            raise ModelError(
                f"model.checkpoint_key = {checkpoint_key!r}: allowed in {path.name}: {', '.join(names) or 'none'}"
                f"{nearest(checkpoint_key, names)}"
            )
    if not any(fit.count for fit in fits):
        _raise_no_weights(path, content, tables)
    # On a tie the first wins.
    best = min(complete, key=lambda fit: fit.rank) if complete else max(fits, key=lambda fit: (fit.count, -fit.rank))
    alternatives = [fit.title for fit in complete if fit is not best]
    if best.is_complete and alternatives and best.rank == weight_names.UNKNOWN_RANK:
        raise ModelError(
            f"{path}: the weights of several entries fit the model: {_abbreviate([best.title, *alternatives])}; choose "
            f'one, as checkpoint_key = "{best.title}" in the card\'s [model]'
        )
    weights.check_checksum(path, dict(next(tensors for keys, tensors, _ in tables if keys == best.keys)))
    return best, _entry_note(path, best, alternatives)


def _entry_note(path: Path, fit: Fit, others: list[str]) -> list[str]:
    """Return a note on the entry that was chosen and the alternatives to it."""
    chosen = ".".join(fit.keys) if fit.keys and not others else fit.title
    also = f" (also there: {', '.join(others)}; `checkpoint_key` in the card's [model] takes another)" if others else ""
    return [f"{path.name}: took the entry `{chosen}`{also}"] if fit.keys or others else []


def _check_tied_weights(path: Path, fit: Fit, state: Mapping[str, Any]) -> None:
    """Raise ModelError if weights that are tied in the module differ in the file."""
    for first, *others in weight_names.tied_names(state):
        if differing := [name for name in others if not fit.state[name].equal(fit.state[first])]:
            raise ModelError(f"{path}: {_abbreviate([first, *differing])} are one tensor in the model, and differ here")


def _tables(content: Any, keys: tuple[str, ...] = ()) -> Iterator[Table]:
    """Yield every table of a nested checkpoint: its keys, its tensors by name, the names of its other entries."""
    import torch

    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    nested = {str(name): value for name, value in content.items() if isinstance(value, Mapping)}
    yield keys, tensors, [str(name) for name in content if str(name) not in tensors and str(name) not in nested]
    if len(keys) < DEPTH:
        for name, value in nested.items():
            yield from _tables(value, (*keys, name))


def _raise_no_weights(path: Path, content: Any, tables: list[Table]) -> None:
    """Raise ModelError for a file without weights by name; the message says what the file holds instead."""
    requirement = f"{path}: must hold tensors by name"
    entries = {"": content, **content} if isinstance(content, Mapping) else {"": content}
    for key, value in entries.items():
        if isinstance(value, Placeholder) and value.is_module:
            index = f"[{key!r}]" if key else ""
            raise ModelError(
                f"{requirement}, but {f'its entry {key!r}' if key else 'it'} is a whole pickled model "
                f"({value.class_name}), which only its own code can read; if you trust the file, extract its weights "
                "by: python -c "
                f"\"import torch; torch.save(torch.load('{path.name}', weights_only=False){index}.state_dict(), "
                f"'weights.pt')\""
            )
    if isinstance(content, Mapping) and set(content) >= OPTIMIZER:
        raise ModelError(f"{requirement}, got an optimizer's state; save module.state_dict() of the model")
    if not isinstance(content, Mapping):
        kind = content.class_name if isinstance(content, Placeholder) else type(content).__name__
        raise ModelError(f"{requirement}, got {kind}; save module.state_dict()")
    if any("numpy" in value.class_name for value in content.values() if isinstance(value, Placeholder)):
        raise ModelError(
            f"{requirement}, got NumPy's arrays; save tensors, or write them by numpy.savez as an .npz file"
        )
    if not any(keys == () or weight_names.is_weights_entry(keys) for keys, *_ in tables):
        raise ModelError(
            f"{requirement}, or have them in one of {', '.join(weight_names.NESTED)}, got the entries "
            f"{_abbreviate(content)}; name another in model.checkpoint_key, or save module.state_dict()"
        )


def _read_shards(path: Path) -> dict[str, Tensor]:
    """Read the shards that an index lists, and from each the tensors that the index assigns to it."""
    shards = file_formats.shards(path)
    tensors: dict[str, Tensor] = {}
    for file, names in shards.items():
        state = weights.read(file)
        if missing := [name for name in names if name not in state]:
            raise ModelError(
                f"{file}: {path.name} assigns {_abbreviate(missing)} to it, which it does not hold; "
                "copy the shards again"
            )
        tensors |= {name: state[name] for name in names}
    return tensors


def _dtype_notes(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Return a note on weights that are stored in another floating-point type than the module's."""
    dtypes = {
        str(tensor.dtype).removeprefix("torch.")
        for name, tensor in state.items()
        if tensor.is_floating_point() and tensor.dtype != own[name].dtype
    }
    return [f"weights of {', '.join(sorted(dtypes))} are converted to float32"] if dtypes else []


def _abbreviate(names: Iterable[Any]) -> str:
    return weights.abbreviate([str(name) for name in names])
