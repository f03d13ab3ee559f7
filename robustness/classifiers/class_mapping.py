"""Match a model's outputs to the classes of the data: by name, by WordNet id or by index, one or several per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StrictInt, StrictStr, Tag

from robustness.classifiers.weights import abbreviate
from robustness.errors import ModelError, nearest

Output = Annotated[StrictStr | Annotated[StrictInt, Field(ge=0)], Field()]


def _form(value: Any) -> str:
    return "table" if isinstance(value, Mapping) else "list" if isinstance(value, list | tuple) else "word"


# ``[model] classes``: "index" (output i is class i), the names of all outputs, or for each class of the data the
# model's: names, WordNet ids or indices.
Classes = Annotated[
    Annotated[Literal["index"], Tag("word")]
    | Annotated[tuple[StrictStr, ...], Tag("list")]
    | Annotated[dict[str, Output | tuple[Output, ...]], Tag("table")],
    Discriminator(_form),
]

# For each class of the data, the outputs that stand for it.
Groups = tuple[tuple[int, ...], ...]


def match_classes(
    classes: Sequence[str], mapping: Classes | None, names: Sequence[tuple[str, ...]], outputs: int | None
) -> tuple[Groups | None, str]:
    """
    Return the outputs of each class of the data, or None if the model has the same order; and a note.

    ``classes`` are the data's classes, ``mapping`` is the card's, ``names`` are the library's names of each output
    (several words each), ``outputs`` is their number, if it is known. ModelError names the classes that the model
    does not know.

    >>> match_classes(["dog", "cat"], ("cat", "dog", "fish"), [], 3)
    (((1,), (0,)), "2 of the model's 3 classes are used, matched by name")
    >>> match_classes(["pet"], {"pet": ("cat", 1)}, [("cat",), ("dog",)], 2)[0]
    ((0, 1),)
    """
    if mapping == "index":
        return None, ""
    if isinstance(mapping, tuple):
        if outputs is not None and len(mapping) != outputs:
            raise ModelError(
                f"model.classes must name each of the model's {outputs} outputs, in their order, "
                f"got {len(mapping)} names"
            )
        names = [(name,) for name in mapping]
    if isinstance(mapping, dict):
        return _match_by_table(classes, mapping, names, outputs)
    if not names:
        return None, ""
    by_name = _outputs_by_name(names)
    matches = [by_name.get(_normalize_name(name), ()) for name in classes]
    unknown = [name for name, indices in zip(classes, matches, strict=True) if not indices]
    if len(unknown) == len(classes) and mapping is None:
        return _match_by_index(classes, len(names))
    if unknown:
        raise ModelError(_unknown_classes_message(unknown, names))
    pairs = zip(classes, matches, strict=True)
    if ambiguous := [f"{name} ({', '.join(map(str, indices))})" for name, indices in pairs if len(indices) > 1]:
        raise ModelError(
            f"classes of the data that name several outputs of the model: {abbreviate(ambiguous)}; "
            "name the output's index in [model.classes]"
        )
    return _groups_with_note(tuple(matches), len(names), "matched by name")


def _match_by_index(classes: Sequence[str], outputs: int) -> tuple[Groups | None, str]:
    """Match classes whose names the model does not know: by number, or in order if there are as many."""
    if all(name.isascii() and name.isdecimal() and int(name) < outputs for name in classes):
        return _groups_with_note(tuple((int(name),) for name in classes), outputs, "matched by index")
    if len(classes) == outputs:
        return None, "classes matched by index: the model knows none of the data's names"
    raise ModelError(
        f"none of the data's {len(classes)} classes ({abbreviate(list(classes))}) is one of the model's {outputs}; "
        "map them in [model.classes]"
    )


def _match_by_table(
    classes: Sequence[str], mapping: Mapping[str, Any], names: Sequence[tuple[str, ...]], outputs: int | None
) -> tuple[Groups | None, str]:
    if unknown := [name for name in classes if name not in mapping]:
        raise ModelError(
            "classes of the data that [model.classes] does not name: "
            f"{abbreviate(unknown)}{nearest(unknown[0], mapping)}"
        )
    by_name, groups = _outputs_by_name(names), []
    for name in classes:
        listed = mapping[name] if isinstance(mapping[name], tuple) else (mapping[name],)
        groups.append(tuple(_output_index(name, output, by_name, names, outputs) for output in listed))
    flat = [index for group in groups for index in group]
    if duplicates := sorted({index for index in flat if flat.count(index) > 1}):
        raise ModelError(
            f"model.classes names outputs more than once: {abbreviate([str(index) for index in duplicates])}"
        )
    if not all(groups):
        raise ModelError("model.classes must name at least one output for each class of the data")
    return _groups_with_note(tuple(groups), outputs, "matched as the card says")


def _output_index(
    name: str,
    output: str | int,
    by_name: Mapping[str, tuple[int, ...]],
    names: Sequence[tuple[str, ...]],
    outputs: int | None,
) -> int:
    """Return the output that a card names for a class; ``names`` are for the message."""
    if isinstance(output, int):
        if outputs is not None and output >= outputs:
            raise ModelError(f"model.classes.{name} must be below the model's {outputs} outputs, got {output}")
        return output
    indices = by_name.get(_normalize_name(output), ())
    if not indices:
        raise ModelError(f"model.classes.{name}: {_unknown_classes_message([output], names)}")
    if len(indices) > 1:
        raise ModelError(
            f"model.classes.{name}: {output!r} names the outputs {', '.join(map(str, indices))}; write one index"
        )
    return indices[0]


def _groups_with_note(groups: Groups, outputs: int | None, how: str) -> tuple[Groups | None, str]:
    if groups == tuple((i,) for i in range(outputs or -1)):
        return None, ""
    used = sum(map(len, groups))
    if used > len(groups):
        return groups, f"{used} outputs of the model stand for {len(groups)} classes, their probabilities are summed"
    total = "" if outputs is None else f" of the model's {outputs}"
    return groups, f"{used}{total} classes are used, {how}" if used != outputs else f"classes {how}, in another order"


def _unknown_classes_message(unknown: Sequence[str], names: Sequence[tuple[str, ...]]) -> str:
    words = [word for synonyms in names for word in synonyms]
    if not words:
        return f"the model does not name its classes, so {abbreviate(list(unknown))} cannot be looked up; write indices"
    return (
        f"classes that the model does not know: {abbreviate(list(unknown))}{nearest(unknown[0], words)}; "
        "map them to outputs in [model.classes]"
    )


def _outputs_by_name(names: Sequence[tuple[str, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the outputs by each of their names; whole names take precedence over the synonyms between their commas."""
    whole: dict[str, tuple[int, ...]] = {}
    parts: dict[str, tuple[int, ...]] = {}
    for index, words in enumerate(names):
        for word in {_normalize_name(word) for word in words}:
            whole[word] = (*whole.get(word, ()), index)
        for part in {_normalize_name(part) for word in words for part in word.split(",")}:
            parts[part] = (*parts.get(part, ()), index)
    return parts | whole


def _normalize_name(name: str) -> str:
    """Normalise a class name for comparison: case, underscores and surrounding space do not count."""
    return " ".join(name.replace("_", " ").casefold().split())
