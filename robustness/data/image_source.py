"""Labelled pictures as images: unusable pictures are counted and listed, unusual ones cause notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from robustness.data import decoding as decoding_
from robustness.data import file_index
from robustness.data.decoding import Decoding, ImageInfo, inspect_image
from robustness.data.images import Images
from robustness.data.lazy_images import LazyImages, Source
from robustness.data.npz_cache import Progress
from robustness.data.validation import Array
from robustness.errors import DataError, shown
from robustness.util import paths as files

NAMED = 3
"""Pictures that a message lists if it counts more."""


class Files:
    """Pictures that are a file each, below one folder."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, names

    def read(self, place: int) -> bytes:
        """Return one picture's bytes."""
        return files.read_bytes(self.folder / self.names[place])

    def named(self, place: int) -> str:
        """Return the name of a picture, for messages."""
        return shown(self.names[place])

    def looks(self, cache: Path, progress: Progress | None) -> list[ImageInfo]:
        """Inspect all pictures; results are cached per file."""
        paths = {name: f"{self.folder}/{name}" for name in self.names}
        inspected = file_index.cached_per_file(
            paths, file_index.index_of(self.folder, cache, "pictures"), _look, decoding_.version(), progress
        )
        return [ImageInfo(*inspected[name]) for name in self.names]


def _look(path: str) -> ImageInfo:
    try:
        return inspect_image(files.read_bytes(Path(path)))
    except OSError as error:
        return ImageInfo("", 0, 0, "", 1, 1, f"it cannot be read: {error.strerror or error}")


def images(
    name: str,
    source: Source,
    looks: Sequence[ImageInfo],
    labels: Array,
    classes: tuple[str, ...],
    decoding: Decoding,
    *,
    groups: Array | None = None,
    notes: tuple[str, ...] = (),
    distributions: tuple[str, ...] = (),
) -> Images:
    """
    Return the pictures of a source as `Images` that decode a batch when it is read.

    DataError if any cannot be used and ``skip_unreadable`` is not asked for, or where they are of several sizes and
    no ``size`` is given.
    """
    bad = [place for place, look in enumerate(looks) if look.problem]
    if bad:
        listed = some(bad, lambda place: f"{source.named(place)}: {looks[place].problem}")
        if not decoding.skip_unreadable:
            raise DataError(
                f"{name}: {len(bad):,} of {len(looks):,} pictures cannot be used: {listed}; fix or remove them, or "
                "skip them with `skip_unreadable` = true in [data.images]"
            )
        notes += (f"{name}: {len(bad):,} of {len(looks):,} pictures cannot be used and are left out: {listed}",)
    places = np.array([place for place, look in enumerate(looks) if not look.problem], np.int64)
    if not places.size:
        raise DataError(f"{name} must have at least one usable picture, it has none among {len(looks):,}")
    usable = [looks[place] for place in places]
    encoded = LazyImages(
        source, places, [each.content for each in usable], decoding, _size(name, source, places, usable, decoding)
    )
    notes += _twice(name, source, places, usable, labels[places])
    notes += _unusual(name, source, places, usable, decoding)
    return Images(
        name,
        encoded,
        labels[places],
        classes,
        groups=None if groups is None else groups[places],
        notes=notes,
        distributions={each: version(each) for each in ("pillow", *distributions)},
    )


def _size(name: str, source: Source, places: Array, looks: Sequence[ImageInfo], decoding: Decoding) -> tuple[int, int]:
    """Return the height and width that all pictures have after decoding."""

    def size(each: ImageInfo) -> tuple[int, int]:
        turned = decoding.exif == "apply" and each.orientation in decoding_.TURNED
        return decoding.shape_of(*((each.height, each.width) if turned else (each.width, each.height)))

    first, sizes = size(looks[0]), [size(each) for each in looks]
    if other := [i for i, each in enumerate(sizes) if each != first]:
        listed = some(other, lambda i: f"{_at(source, places, i)} {sizes[i][0]} x {sizes[i][1]}")
        raise DataError(
            f"{name}: pictures must have one height and width; {_at(source, places, 0)} has {first[0]} x {first[1]}, "
            f"{len(other):,} others differ: {listed}; set `size` = [height, width] in [data.images]"
        )
    if max(first) > decoding_.SIDE:
        raise DataError(f"{name}: pictures must have at most {decoding_.SIDE} pixels per side, got {first}; set `size`")
    return first


def _unusual(
    name: str, source: Source, places: Array, looks: Sequence[ImageInfo], decoding: Decoding
) -> tuple[str, ...]:
    """Return notes on pictures that are unlike the others, and how they are treated."""
    grey = ("1", "L", "LA", "La")
    kinds: list[tuple[str, Callable[[ImageInfo], bool]]] = [
        ("are animated; only their first frame is used", lambda each: each.frames > 1),
        ("have an alpha channel, which is dropped", lambda each: each.mode in ("LA", "La", "PA", "RGBA", "RGBa")),
    ]
    if any(each.mode not in grey for each in looks):
        kinds.append(("are grey, while others are in colour", lambda each: each.mode in grey))
    if decoding.exif == "ignore":
        turned = "are rotated according to EXIF and stay so; `exif` = 'apply' in [data.images] turns them upright"
        kinds.append((turned, lambda each: each.orientation != 1))
    notes = []
    for what, is_so in kinds:
        if rows := [i for i, each in enumerate(looks) if is_so(each)]:
            listed = some(rows, lambda i: _at(source, places, i))
            notes.append(f"{name}: {len(rows):,} of {len(looks):,} pictures {what}: {listed}")
    return tuple(notes)


def _twice(name: str, source: Source, places: Array, looks: Sequence[ImageInfo], labels: Array) -> tuple[str, ...]:
    """Return notes on duplicate pictures; of two with different labels at least one is wrong."""
    first: dict[str, int] = {}
    again = [i for i, each in enumerate(looks) if first.setdefault(each.content, i) != i]
    other = [i for i in again if labels[first[looks[i].content]] != labels[i]]
    notes = []
    for rows, what in (
        (other, "duplicated with another label"),
        ([i for i in again if i not in set(other)], "duplicated"),
    ):
        if rows:
            listed = some(rows, lambda i: f"{_at(source, places, i)} as {_at(source, places, first[looks[i].content])}")
            notes.append(f"{name}: {len(rows):,} of {len(looks):,} pictures are {what}, byte for byte: {listed}")
    return tuple(notes)


def _at(source: Source, places: Array, i: int) -> str:
    return source.named(int(places[i]))


def some(rows: Sequence[int], named: Callable[[int], str]) -> str:
    """Name the first of many."""
    return ", ".join(named(each) for each in rows[:NAMED]) + (", …" if len(rows) > NAMED else "")
