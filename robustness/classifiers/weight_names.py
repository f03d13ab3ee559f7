"""Match the names of weights in a checkpoint to those in a module; imports no torch until weights are compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robustness.classifiers.weights import abbreviate, wrong_shapes

if TYPE_CHECKING:
    from torch import Tensor

# Entries and prefixes of weights in checkpoints, in the order of preference: averaged ones first, as in timm.
NESTED = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema", "ema_model", "averaged_model",
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module",
)  # fmt: skip
# The rank of any other entry.
UNKNOWN_RANK = len(NESTED)
# Prefixes that parallel, compiled and sharded modules add to the names of the module that they wrap.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
# Counters, not weights: of averaged models, of tools that count operations, of batch norms in training.
COUNTERS = re.compile(r"(.*\.)?(n_averaged|total_ops|total_params|num_batches_tracked)")
# Names of losses and metrics whose state is stored next to a model's weights.
METRIC_NAMES = re.compile(
    r"(.*_)?(criterion|crit|loss(es)?|metrics?|acc(uracy)?|auroc|f1|precision|recall|confmat)(_.*|\d*)"
)
# Old and current names of the tensors of weight norm and spectral norm, by the suffix that identifies each.
NORM_NAMES = {
    "_g": {"_g": "parametrizations.{}.original0", "_v": "parametrizations.{}.original1"},
    "_u": {
        "_orig": "parametrizations.{}.original",
        "_u": "parametrizations.{}.0._u",
        "_v": "parametrizations.{}.0._v",
    },
}


@dataclass(frozen=True)
class Fit:
    """A match of a checkpoint's tensors to a module's names, with what is missing and notes on renaming."""

    keys: tuple[str, ...]
    """The keys that lead to them in the file."""
    prefix: str
    """The prefix that was removed from all names, without its final point."""
    state: dict[str, Tensor]
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_shapes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether every required tensor has a match, and no weight of the checkpoint is left over."""
        return not (self.missing or self.wrong_shapes or self.unexpected)

    @property
    def count(self) -> int:
        """The number of the module's tensors with a match."""
        return len(self.state)

    @property
    def steps(self) -> tuple[str, ...]:
        """The keys and the parts of the prefix, in order."""
        return (*self.keys, *filter(None, self.prefix.split(".")))

    @property
    def title(self) -> str:
        """Its name in a card's ``model.checkpoint_key``."""
        return ".".join(self.steps) or "the top-level tensors"

    @property
    def entries(self) -> set[str]:
        """All names that a card may use for it."""
        return {".".join(self.steps[: i + 1]) for i in range(len(self.steps))}

    @property
    def rank(self) -> int:
        """The order of preference among several fits: averaged weights first."""
        if not self.steps:
            return NESTED.index("state_dict")
        return min((NESTED.index(step) for step in self.steps if step in NESTED), default=UNKNOWN_RANK)


def is_weights_entry(keys: Sequence[str]) -> bool:
    """Return whether one of the keys is a usual name of weights."""
    return any(key in NESTED for key in keys)


def find_fits(
    keys: tuple[str, ...], tensors: Mapping[str, Tensor], state: Mapping[str, Any], others: Sequence[str] = ()
) -> Iterator[Fit]:
    """
    Yield the best ways to match a table of tensors to a module; ``state`` is the module's state_dict().

    >>> import torch
    >>> state = {"module.weight": torch.ones(2), "module.bias": torch.ones(1)}
    >>> (fit,) = find_fits((), state, {"weight": torch.zeros(2), "bias": torch.zeros(1)})
    >>> sorted(fit.state), fit.notes
    (['bias', 'weight'], ['removed from all names: `module.`'])
    """
    stripped, module_names = {name: name for name in tensors}, {name: name for name in state}
    if any(_is_required(name) and name not in stripped for name in state):
        stripped, module_names = _strip_wrappers(tensors), _strip_wrappers(state)
    original = {name: original_name for original_name, name in stripped.items()}
    for removed, added in _best_prefixes(original, set(module_names.values())):
        pairs = {
            name: original[key]
            for name, module_name in module_names.items()
            if module_name.startswith(added) and (key := removed + module_name.removeprefix(added)) in original
        }
        matched = set(pairs.values())
        unused = [name for name in tensors if name not in matched]
        ignored = [name for name in unused if _can_be_ignored(stripped[name], removed)]
        fit = Fit(keys, removed.rstrip("."), {name: tensors[original_name] for name, original_name in pairs.items()})
        fit.unexpected.extend(name for name in unused if name not in ignored)
        fit.notes.extend(_renaming_notes(pairs, removed, added))
        _add_tied_weights(fit, state, [*ignored, *others])
        yield fit


def _add_tied_weights(fit: Fit, state: Mapping[str, Any], ignored: list[str]) -> None:
    """Complete a fit by tied weights; list what is missing, and note what of the file is not used."""
    tied: list[str] = []
    for group in tied_names(state):
        if present := [name for name in group if name in fit.state]:
            tied += (absent := [name for name in group if name not in fit.state])
            fit.state.update((name, fit.state[present[0]]) for name in absent)
    missing = [name for name in state if name not in fit.state]
    fit.missing.extend(filter(_is_required, missing))
    fit.wrong_shapes.extend(wrong_shapes(fit.state, state))
    for names, note in (
        (ignored, "ignored, not part of the model"),
        (tied, "copied from the weights that they are tied to"),
        ([name for name in missing if not _is_required(name)], "missing, not needed in evaluation"),
    ):
        if names:
            fit.notes.append(f"{note}: {abbreviate(sorted(names))}")


def _is_required(name: str) -> bool:
    return COUNTERS.fullmatch(name) is None and not name.endswith("_extra_state")


def _can_be_ignored(name: str, removed: str) -> bool:
    """Return whether a tensor that the module does not have is no weight of a model."""
    outside = bool(removed) and not name.startswith(removed)
    return outside or COUNTERS.fullmatch(name) is not None or METRIC_NAMES.fullmatch(name.partition(".")[0]) is not None


def _renaming_notes(pairs: Mapping[str, str], removed: str, added: str) -> list[str]:
    """Return notes on how the names in the file differ from the module's."""
    if all(name == original for name, original in pairs.items()):
        return []
    dropped, inserted = Counter[str](), Counter[str]()
    for name, original in pairs.items():
        dropped.update(_name_parts(original) - _name_parts(name))
        inserted.update(_name_parts(name) - _name_parts(original))
    notes = []
    for parts, verb, prefix in ((dropped, "removed from", removed), (inserted, "added to", added)):
        words = [word for word in parts if word in WRAPPERS or word in prefix.split(".")]
        if words:
            scope = "all names" if all(parts[word] >= len(pairs) for word in words) else "names"
            notes.append(f"{verb} {scope}: {', '.join(f'`{word}.`' for word in words)}")
    if any("parametrizations" in name.split(".") for name in (*dropped, *inserted)):
        notes.append("weight norm or spectral norm has the names of another version of torch")
    return notes


def _name_parts(name: str) -> Counter[str]:
    return Counter(name.split("."))


def _strip_wrappers(names: Iterable[str]) -> dict[str, str]:
    """
    Map names to names without wrappers' prefixes, and with the current names of normed weights.

    The names stay unchanged if two of them would become equal.

    >>> list(_strip_wrappers(["features.module.0.weight", "_orig_mod.weight_g", "_orig_mod.weight_v"]).values())[:2]
    ['features.0.weight', 'parametrizations.weight.original0']
    """
    result = {name: ".".join(step for step in name.split(".") if step not in WRAPPERS) for name in names}
    present = set(result.values())
    for suffix, renaming in NORM_NAMES.items():
        for base in [name.removesuffix(suffix) for name in present if name.endswith(suffix)]:
            module_name, _, parameter = base.rpartition(".")
            if all(base + old_suffix in present for old_suffix in renaming):
                current = {base + old_suffix: new.format(parameter) for old_suffix, new in renaming.items()}
                for name, stripped in result.items():
                    if stripped in current:
                        result[name] = ".".join(filter(None, (module_name, current[stripped])))
    is_unique = len(set(result.values())) == len(result)
    return result if is_unique else {name: name for name in result}


def _best_prefixes(names: Iterable[str], module_names: set[str]) -> list[tuple[str, str]]:
    """Return the pairs of prefixes, to remove and to add, that match most of a module's names."""
    present, votes = set(names), Counter({("", ""): 0})
    for name in present:
        votes.update(
            (prefix, "") for prefix, rest in _prefix_splits(name) if rest in module_names and _is_required(rest)
        )
    for name in module_names:
        votes.update(
            ("", prefix) for prefix, rest in _prefix_splits(name) if prefix and rest in present and _is_required(rest)
        )
    maximum = max(votes.values())
    best = [prefixes for prefixes, count in votes.items() if count == maximum]
    return [("", "")] if ("", "") in best else best


def _prefix_splits(name: str) -> Iterator[tuple[str, str]]:
    """Yield every split of a name into prefix and rest: undivided, then after each point."""
    yield "", name
    for i, letter in enumerate(name):
        if letter == ".":
            yield name[: i + 1], name[i + 1 :]


def tied_names(state: Mapping[str, Any]) -> list[list[str]]:
    """Return the groups of a module's names that share one tensor."""
    from torch.nn.parameter import is_lazy

    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in state.items():
        if hasattr(tensor, "data_ptr") and not is_lazy(tensor) and tensor.numel() and tensor.device.type != "meta":
            storage = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            groups.setdefault(storage, []).append(name)
    return [group for group in groups.values() if len(group) > 1]
