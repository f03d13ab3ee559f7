"""Names of weights in a checkpoint and in a module, brought together; imports no torch until weights are compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robustness.classifiers.weights import abbreviate, misshapen

if TYPE_CHECKING:
    from torch import Tensor

NESTED = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema", "ema_model", "averaged_model",
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module",
)  # fmt: skip
"""Entries and prefixes under which trainings keep weights, in the order in which they are taken: averaged ones first,
as timm does."""
UNKNOWN = len(NESTED)
"""The rank of an entry that is none of these."""
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""What parallel, compiled and sharded modules put before the names of the part that they wrap."""
COUNTERS = re.compile(r"(.*\.)?(n_averaged|total_ops|total_params|num_batches_tracked)")
"""Entries that are no weights: of averaged models, of tools that count operations, of batch norms in training."""
BESIDE = re.compile(r"(.*_)?(criterion|crit|loss(es)?|metrics?|acc(uracy)?|auroc|f1|precision|recall|confmat)(_.*|\d*)")
"""What losses and metrics are called that have a state, beside the weights of a model."""
NORMED = {
    "_g": {"_g": "parametrizations.{}.original0", "_v": "parametrizations.{}.original1"},
    "_u": {
        "_orig": "parametrizations.{}.original",
        "_u": "parametrizations.{}.0._u",
        "_v": "parametrizations.{}.0._v",
    },
}
"""Names of weight norm's and spectral norm's tensors, told by the ending that only the one has, and today's names."""


@dataclass(frozen=True)
class Fit:
    """The tensors of a checkpoint by a module's names, as far as it has them, and what had to be done for that."""

    where: tuple[str, ...]
    """The keys that lead to them in the file."""
    prefix: str
    """What was left out before all names, without the point at its end."""
    state: dict[str, Tensor]
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether the module gets all that it needs, and nothing is left that it should have."""
        return not (self.missing or self.misshapen or self.unexpected)

    @property
    def hits(self) -> int:
        """How many of the module's tensors are there."""
        return len(self.state)

    @property
    def steps(self) -> tuple[str, ...]:
        """The keys and the parts of the prefix, in order."""
        return (*self.where, *filter(None, self.prefix.split(".")))

    @property
    def title(self) -> str:
        """What a card calls it in ``model.entry``."""
        return ".".join(self.steps) or "the tensors beside them"

    @property
    def entries(self) -> set[str]:
        """All that a card may call it."""
        return {".".join(self.steps[: i + 1]) for i in range(len(self.steps))}

    @property
    def rank(self) -> int:
        """The order in which one is taken of several that fit: averaged ones first."""
        if not self.steps:
            return NESTED.index("state_dict")
        return min((NESTED.index(step) for step in self.steps if step in NESTED), default=UNKNOWN)


def is_usual(where: Sequence[str]) -> bool:
    """Return whether keys lead to where trainings keep weights."""
    return any(step in NESTED for step in where)


def fits(
    where: tuple[str, ...], tensors: Mapping[str, Tensor], own: Mapping[str, Any], beside: Sequence[str] = ()
) -> Iterator[Fit]:
    """
    Yield the ways in which a table of tensors goes into a module, best ones alone; ``own`` is its state_dict().

    >>> import torch
    >>> state = {"module.weight": torch.ones(2), "module.bias": torch.ones(1)}
    >>> (fit,) = fits((), state, {"weight": torch.zeros(2), "bias": torch.zeros(1)})
    >>> sorted(fit.state), fit.notes
    (['bias', 'weight'], ['left out of all names: `module.`'])
    """
    names = {name: name for name in tensors}
    if any(_needed(name) and name not in names for name in own):
        names, due = _unwrapped(tensors), _unwrapped(own)
    else:
        due = {name: name for name in own}
    by_name = {name: old for old, name in names.items()}
    for removed, added in _prefixes(by_name, set(due.values())):
        pairs = {
            name: by_name[key]
            for name, plain in due.items()
            if plain.startswith(added) and (key := removed + plain.removeprefix(added)) in by_name
        }
        used = set(pairs.values())
        rest = [name for name in tensors if name not in used]
        left = [name for name in rest if _may_be_left(names[name], removed)]
        fit = Fit(where, removed.rstrip("."), {name: tensors[old] for name, old in pairs.items()})
        fit.unexpected.extend(name for name in rest if name not in left)
        fit.notes.extend(_renamed(pairs, removed, added))
        _complete(fit, own, [*left, *beside])
        yield fit


def _complete(fit: Fit, own: Mapping[str, Any], left: list[str]) -> None:
    """Add to a fit what is tied to what it has; list what it lacks and what is left out of the file."""
    tied: list[str] = []
    for group in ties(own):
        if there := [name for name in group if name in fit.state]:
            tied += (more := [name for name in group if name not in fit.state])
            fit.state.update((name, fit.state[there[0]]) for name in more)
    absent = [name for name in own if name not in fit.state]
    fit.missing.extend(filter(_needed, absent))
    fit.misshapen.extend(misshapen(fit.state, own))
    for names, what in (
        (left, "left out, no part of the model"),
        (tied, "taken from the weights that they are tied to"),
        ([name for name in absent if not _needed(name)], "not there, and of no use in evaluation"),
    ):
        if names:
            fit.notes.append(f"{what}: {abbreviate(sorted(names))}")


def _needed(name: str) -> bool:
    return COUNTERS.fullmatch(name) is None and not name.endswith("_extra_state")


def _may_be_left(name: str, removed: str) -> bool:
    """Return whether a tensor that the module has no place for is none of its weights."""
    outside = bool(removed) and not name.startswith(removed)
    return outside or COUNTERS.fullmatch(name) is not None or BESIDE.fullmatch(name.partition(".")[0]) is not None


def _renamed(pairs: Mapping[str, str], removed: str, added: str) -> list[str]:
    """Say how the names of the file differ from the module's."""
    if all(name == old for name, old in pairs.items()):
        return []
    gone, put = Counter[str](), Counter[str]()
    for name, old in pairs.items():
        gone.update(_steps(old) - _steps(name))
        put.update(_steps(name) - _steps(old))
    notes = []
    for steps, how, prefix in ((gone, "left out of", removed), (put, "put into", added)):
        words = [word for word in steps if word in WRAPPERS or word in prefix.split(".")]
        if words:
            every = "all names" if all(steps[word] >= len(pairs) for word in words) else "names"
            notes.append(f"{how} {every}: {', '.join(f'`{word}.`' for word in words)}")
    if any("parametrizations" in name.split(".") for name in (*gone, *put)):
        notes.append("names of weight norm or spectral norm are those of another version of torch")
    return notes


def _steps(name: str) -> Counter[str]:
    return Counter(name.split("."))


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    """
    Return names without what wraps a module or a part of it, and with today's names of normed weights.

    They stay as they are where two would be one.

    >>> list(_unwrapped(["features.module.0.weight", "_orig_mod.weight_g", "_orig_mod.weight_v"]).values())[:2]
    ['features.0.weight', 'parametrizations.weight.original0']
    """
    plain = {name: ".".join(step for step in name.split(".") if step not in WRAPPERS) for name in names}
    there = set(plain.values())
    for mark, endings in NORMED.items():
        for base in [name.removesuffix(mark) for name in there if name.endswith(mark)]:
            part, _, last = base.rpartition(".")
            if all(base + ending in there for ending in endings):
                today = {base + ending: new.format(last) for ending, new in endings.items()}
                for name, old in plain.items():
                    if old in today:
                        plain[name] = f"{part}.{today[old]}" if part else today[old]
    return plain if len(set(plain.values())) == len(plain) else {name: name for name in plain}


def _prefixes(names: Iterable[str], own: set[str]) -> list[tuple[str, str]]:
    """Return the prefixes by which most of a module's names are found: to be left out, and to be put before."""
    there, votes = set(names), Counter({("", ""): 0})
    for name in there:
        votes.update((prefix, "") for prefix, rest in _splits(name) if rest in own and _needed(rest))
    for name in own:
        votes.update(("", prefix) for prefix, rest in _splits(name) if prefix and rest in there and _needed(rest))
    most = max(votes.values())
    best = [prefixes for prefixes, count in votes.items() if count == most]
    return [("", "")] if ("", "") in best else best


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Yield a name whole, and parted after each of its points."""
    yield "", name
    for i, letter in enumerate(name):
        if letter == ".":
            yield name[: i + 1], name[i + 1 :]


def ties(own: Mapping[str, Any]) -> list[list[str]]:
    """Return the names of a module that are one tensor."""
    from torch.nn.parameter import is_lazy

    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in own.items():
        if hasattr(tensor, "data_ptr") and not is_lazy(tensor) and tensor.numel() and tensor.device.type != "meta":
            place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            groups.setdefault(place, []).append(name)
    return [group for group in groups.values() if len(group) > 1]
