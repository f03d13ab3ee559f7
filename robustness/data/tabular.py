"""Tables with a picture and a label per row: columns, classes and properties of the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustness.data import decoding as decoding_
from robustness.data import file_index, validation
from robustness.data.decoding import ImageInfo, inspect_image
from robustness.data.images import TESTS
from robustness.data.lazy_images import Source
from robustness.data.npz_cache import Progress
from robustness.data.validation import Array
from robustness.errors import DataError, shown

PICTURES = ("image", "img", "picture", "jpg", "png", "bytes")
LABELS = ("label", "labels", "fine_label", "class", "target", "y")
"""Default columns: the first of these that exists."""


def find_column(title: str, what: str, named: str | None, usual: Sequence[str], there: Sequence[str]) -> str:
    """
    Return the name of a column: the one asked for, else the usual one.

    >>> find_column("pets", "`labels`", None, LABELS, ["img", "fine_label", "coarse_label"])
    'fine_label'
    """
    column = named if named is not None else next((name for name in usual if name in there), None)
    if column is None or column not in there:
        requested = f", got {named!r}" if named is not None else ""
        raise DataError(
            f"{title}: {what} must name a column{requested}; there are {', '.join(map(repr, there)) or 'none'}"
        )
    return column


def encode_labels(
    title: str, values: Sequence[Any], names: Sequence[str] | None, others: Sequence[Any] = ()
) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    """
    Return labels as numbers, class names, and notes; texts are classes in alphabetical order.

    ``others`` are the labels of other parts: their classes are those of this one, too.

    >>> encode_labels("pets", ["dog", "cat", "dog"], None, ["ant"])
    (array([2, 1, 2]), ('ant', 'cat', 'dog'), ())
    """
    kinds = {type(value) for value in values}
    if type(None) in kinds:
        row = next(row for row, value in enumerate(values) if value is None)
        raise DataError(f"{title}: every row must have a label, row {row} has none; label it, or remove it")
    if kinds == {str}:
        classes = sorted({*values, *(value for value in others if isinstance(value, str))})
        places = {name: place for place, name in enumerate(classes)}
        return np.array([places[value] for value in values]), tuple(classes), ()
    if kinds != {int}:
        types = ", ".join(sorted(kind.__name__ for kind in kinds)) or "none"
        several = "several labels per image are not supported" if list in kinds else "cast the column"
        raise DataError(
            f"{title}: labels must be whole numbers or texts, got {types}; {several}, or name another in `labels`"
        )
    if names is not None and not all(isinstance(name, str) for name in names):
        raise DataError(f"{title}: names of classes must be text, got {shown(list(names))}; write the data set again")
    numbers, more = np.array(values), np.array([value for value in others if isinstance(value, int)], np.int64)
    notes = () if names is not None else validation.note_from_one(title, numbers, more)
    return (
        numbers,
        validation.validate_class_names(None if names is None else np.array(list(names)), numbers, more),
        notes,
    )


def has_parts(there: Sequence[str], part: str | None = None) -> bool:
    """
    Return whether names are those of parts: one is a training part, a test part or the requested one.

    >>> has_parts(["train", "validation", "extra"]), has_parts(["0001", "0002"])
    (True, False)
    """
    return any(name in ("train", *TESTS, part) for name in there)


class Rows(Source):
    """Pictures in a table, one per row."""

    def __len__(self) -> int:
        raise NotImplementedError

    def named(self, place: int) -> str:
        """Return the name of a picture, for messages."""
        return f"row {place:,}"

    def looks(self, file: Path, progress: Progress | None) -> list[ImageInfo]:
        """Inspect all pictures; results are cached for the content, by which ``file`` is named."""

        def one(place: int) -> ImageInfo:
            content = self.read(place)
            return (
                inspect_image(content)
                if len(content)
                else ImageInfo("", 0, 0, "", 1, 1, "the row has no picture's bytes")
            )

        what = "inspecting new pictures"
        return [
            ImageInfo(*each)
            for each in file_index.cached_per_row(file, decoding_.version(), one, len(self), what, progress)
        ]


def cell_bytes(value: Any, title: str, name: str) -> bytes | memoryview:
    """Return the bytes of a cell: bytes themselves, or a structure that has them."""
    inner = value.get("bytes") if isinstance(value, dict) else value
    if inner is None:
        return b""
    if not isinstance(inner, bytes | memoryview):
        raise DataError(
            f"{title}: the column {name!r} must contain pictures as bytes, or as {{bytes, path}}, got "
            f"{type(inner).__name__}; name another in `column` of [data.images]"
        )
    return inner
