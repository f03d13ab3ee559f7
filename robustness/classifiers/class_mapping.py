"""Which outputs of a model are which classes of the data: by name, by WordNet id, by index, one or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StrictInt, StrictStr, Tag

from robustness.classifiers.weights import abbreviate
from robustness.errors import ModelError, nearest

Output = Annotated[StrictStr | Annotated[StrictInt, Field(ge=0)], Field()]


def _form(value: Any) -> str:
    return "table" if isinstance(value, Mapping) else "list" if isinstance(value, list | tuple) else "word"


Classes = Annotated[
    Annotated[Literal["index"], Tag("word")]
    | Annotated[tuple[StrictStr, ...], Tag("list")]
    | Annotated[dict[str, Output | tuple[Output, ...]], Tag("table")],
    Discriminator(_form),
]
"""
``[model] classes``: "index" (output i is class i), the names of all outputs, or for each class of the data the
model's: names, WordNet ids or indices.
"""

Groups = tuple[tuple[int, ...], ...]
"""For each class of the data the outputs that stand for it."""


def match_classes(
    wanted: Sequence[str], given: Classes | None, names: Sequence[tuple[str, ...]], outputs: int | None
) -> tuple[Groups | None, str]:
    """
    Return the outputs of each class of the data, None where they are the model's in its own order; and what to say.

    ``wanted`` are the data's classes, ``given`` what the card says, ``names`` what the model's library calls each
    output (several words each), ``outputs`` how many there are, if that is known. ModelError names the classes that
    the model does not know.

    >>> match_classes(["dog", "cat"], ("cat", "dog", "fish"), [], 3)
    (((1,), (0,)), "2 of the model's 3 classes count, matched by name")
    >>> match_classes(["pet"], {"pet": ("cat", 1)}, [("cat",), ("dog",)], 2)[0]
    ((0, 1),)
    """
    if given == "index":
        return None, ""
    if isinstance(given, tuple):
        if outputs is not None and len(given) != outputs:
            raise ModelError(
                f"model.classes must name each of the model's {outputs} outputs, in their order, got {len(given)} names"
            )
        names = [(name,) for name in given]
    if isinstance(given, dict):
        return _by_table(wanted, given, names, outputs)
    if not names:
        return None, ""
    known = _known(names)
    found = [known.get(_folded(name), ()) for name in wanted]
    unknown = [name for name, places in zip(wanted, found, strict=True) if not places]
    if len(unknown) == len(wanted) and given is None:
        return _by_index(wanted, len(names))
    if unknown:
        raise ModelError(_unknown(unknown, names))
    if unclear := [f"{name} ({', '.join(map(str, places))})" for name, places in zip(wanted, found, strict=True)
                   if len(places) > 1]:  # fmt: skip
        raise ModelError(
            f"classes of the data that several outputs of the model are called: {abbreviate(unclear)}; "
            "name the output's index in [model.classes]"
        )
    return _placed(tuple(places for places in found), len(names), "matched by name")


def _by_index(wanted: Sequence[str], outputs: int) -> tuple[Groups | None, str]:
    """Match classes that the model calls otherwise: numbers count as its indices, as many as there are in order."""
    if all(name.isascii() and name.isdecimal() and int(name) < outputs for name in wanted):
        return _placed(tuple((int(name),) for name in wanted), outputs, "matched by index")
    if len(wanted) == outputs:
        return None, "classes matched by index: the model calls none of them by the data's names"
    raise ModelError(
        f"none of the data's {len(wanted)} classes ({abbreviate(list(wanted))}) is one of the model's {outputs}; "
        "say in [model.classes] which are which"
    )


def _by_table(
    wanted: Sequence[str], given: Mapping[str, Any], names: Sequence[tuple[str, ...]], outputs: int | None
) -> tuple[Groups | None, str]:
    if unknown := [name for name in wanted if name not in given]:
        raise ModelError(
            f"classes of the data that [model.classes] does not name: {abbreviate(unknown)}{nearest(unknown[0], given)}"
        )
    known, groups = _known(names), []
    for name in wanted:
        listed = given[name] if isinstance(given[name], tuple) else (given[name],)
        groups.append(tuple(_place(name, each, known, names, outputs) for each in listed))
    flat = [place for group in groups for place in group]
    if twice := sorted({place for place in flat if flat.count(place) > 1}):
        raise ModelError(f"model.classes names outputs more than once: {abbreviate([str(place) for place in twice])}")
    if not all(groups):
        raise ModelError("model.classes must name at least one output for each class of the data")
    return _placed(tuple(groups), outputs, "matched as the card says")


def _place(
    name: str, each: str | int, known: Mapping[str, tuple[int, ...]], names: Sequence[tuple[str, ...]],
    outputs: int | None,
) -> int:  # fmt: skip
    if isinstance(each, int):
        if outputs is not None and each >= outputs:
            raise ModelError(f"model.classes.{name} must be below the model's {outputs} outputs, got {each}")
        return each
    places = known.get(_folded(each), ())
    if not places:
        raise ModelError(f"model.classes.{name}: {_unknown([each], names)}")
    if len(places) > 1:
        raise ModelError(
            f"model.classes.{name}: {each!r} is what the outputs {', '.join(map(str, places))} are called; write one"
        )
    return places[0]


def _placed(groups: Groups, outputs: int | None, how: str) -> tuple[Groups | None, str]:
    if groups == tuple((i,) for i in range(outputs or -1)):
        return None, ""
    taken = sum(map(len, groups))
    if taken > len(groups):
        return groups, f"{taken} outputs of the model stand for {len(groups)} classes, their probabilities summed"
    of = "" if outputs is None else f" of the model's {outputs}"
    return groups, f"{taken}{of} classes count, {how}" if taken != outputs else f"classes {how}, in another order"


def _unknown(unknown: Sequence[str], names: Sequence[tuple[str, ...]]) -> str:
    words = [word for each in names for word in each]
    if not words:
        return f"the model names no classes, so that {abbreviate(list(unknown))} cannot be looked up; write indices"
    return (
        f"classes that the model does not know: {abbreviate(list(unknown))}{nearest(unknown[0], words)}; "
        "say in [model.classes] which outputs they are"
    )


def _known(names: Sequence[tuple[str, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the outputs by every word for them; whole names before the synonyms that stand between commas in them."""
    whole: dict[str, tuple[int, ...]] = {}
    parts: dict[str, tuple[int, ...]] = {}
    for place, words in enumerate(names):
        for word in {_folded(word) for word in words}:
            whole[word] = (*whole.get(word, ()), place)
        for part in {_folded(part) for word in words for part in word.split(",")}:
            parts[part] = (*parts.get(part, ()), place)
    return parts | whole


def _folded(name: str) -> str:
    """Return a class name as it is compared: without regard to case, underscores and space around it."""
    return " ".join(name.replace("_", " ").casefold().split())
