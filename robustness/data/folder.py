"""A folder of pictures with a folder for each class, or with such folders for training and for testing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from robustness.data import image_source
from robustness.data.decoding import Decoding
from robustness.data.image_source import Files, some
from robustness.data.images import TESTS, Images, LazyParts
from robustness.data.npz_cache import Progress
from robustness.data.readers import DatasetReader
from robustness.errors import DataError, DataMissing, plain, shown

if TYPE_CHECKING:
    from robustness.data.spec import DataSpec

KINDS = (
    ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif",
    ".tiff", ".webp",
)  # fmt: skip
LITTER = ("thumbs.db", "desktop.ini")
"""Files that a file manager leaves, of which nothing is said."""
PARTS = ("train", *TESTS)


def parts(*, spec: DataSpec, root: Path, cache: Path, progress: Progress | None = None) -> Mapping[str, Images]:
    """
    Return the parts of the folder that ``spec`` names: train and test, or all.

    Classes are sorted by their folders' names; pictures may lie below these at any depth. Names that begin with a dot
    are ignored; so are files without a picture's suffix, which a note counts.
    """
    top = require_folder(root, str(spec.folder))
    decoding, title = spec.decoding, top.name or str(top)
    names = [path.name for path in _folders(top)]
    there = [name for name in names if name in PARTS or name == spec.part]
    if {"train"} < set(there) and len(there) < len(names) and spec.part is None:
        other = some([i for i, name in enumerate(names) if name not in there], lambda i: shown(names[i]))
        raise DataError(
            f"{top} must have only parts or only classes, but beside {' and '.join(there)} lies {other}; move it, or "
            "choose the part for testing, as `part` = "
            f'"{next(name for name in TESTS if name in there)}" in [data]'
        )
    if not there or (len(there) < len(names) and spec.part is None):
        return LazyParts({"all": partial(_part, title, top, None, decoding, cache, progress)})
    classes = tuple(path.name for path in _folders(top / "train")) if "train" in there else None
    return LazyParts(
        {
            name: partial(
                _part, f"{title} {name}", top / name, None if name == "train" else classes, decoding, cache, progress
            )
            for name in sorted(there, key=lambda name: (*PARTS, name).index(name))
        }
    )


def require_folder(root: Path, folder: str) -> Path:
    """Return a folder below a root; DataMissing if there is none, DataError if it is no folder."""
    path = Path(os.path.normpath((root / folder).absolute()))
    if not path.exists():
        raise DataMissing(f"no {folder} in {root}: {path} does not exist; put it there, or use another folder")
    if not path.is_dir():
        raise DataError(f"`folder` must be a folder, got the file {path}; for an .npz or .parquet file name `file`")
    return path


def _part(
    title: str, top: Path, classes: tuple[str, ...] | None, decoding: Decoding, cache: Path, progress: Progress | None
) -> Images:
    """Return the pictures of a folder that has one for each class; ``classes`` are those of the training part."""
    if stray := [entry.name for entry in _visible(top) if entry.name.lower().endswith(KINDS) and entry.is_file()]:
        listed = some(range(len(stray)), lambda i: shown(stray[i]))
        raise DataError(
            f"{top} must have pictures only in its folders of classes, but {len(stray):,} lie beside them: {listed}; "
            "move them"
        )
    class_names = [path.name for path in _folders(top)]
    _check_classes(top, class_names, classes)
    known = tuple(class_names) if classes is None else classes
    names: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    passed = Counter[str]()
    for name in class_names:
        there = sorted(_pictures(top, name, decoding.follow_links, passed))
        if not there:
            empty.append(name)
        names += there
        labels += [known.index(name)] * len(there)
    kinds = ", ".join(KINDS)
    if not names:
        raise DataError(
            f"{top}: its folders of classes have no pictures ({kinds}); use the folder above or below, or add pictures"
        )
    notes: list[str] = []
    if empty:
        listed = some(range(len(empty)), lambda i: shown(empty[i]))
        notes.append(
            f"{title}: {len(empty):,} of {len(known):,} classes have no pictures, but count as classes: {listed}"
        )
    if passed:
        listed = ", ".join(f"{kind} ({count:,})" for kind, count in passed.most_common(5))
        notes.append(
            f"{title}: {passed.total():,} files were ignored because of their names: {listed}; pictures are {kinds}"
        )
    files = Files(top, names)
    looks = files.looks(cache, progress)
    return image_source.images(title, files, looks, np.array(labels), known, decoding, notes=tuple(notes))


def _check_classes(top: Path, names: list[str], classes: tuple[str, ...] | None) -> None:
    if len(names) < 2:
        one = f", {shown(names[0])}" if names else ""
        raise DataError(
            f"{top} must have folders of at least two classes, it has {len(names)}{one}; use the folder above it, or "
            "one in it"
        )
    for name in names:
        if not name.isprintable() or name != name.strip():
            raise DataError(f"{top}: names of classes must be printable text, got {shown(name)}; rename that folder")
    folded: dict[str, str] = {}
    for name in names:
        if (other := folded.setdefault(name.casefold(), name)) != name:
            raise DataError(
                f"{top}: classes must differ by more than capital letters, got {shown(other)} and {shown(name)}; merge "
                "the two folders, or rename one"
            )
    if classes is not None and (unknown := [name for name in names if name not in classes]):
        listed = some(range(len(unknown)), lambda i: shown(unknown[i]))
        raise DataError(
            f"{top}: classes must be among those of the training part, but {len(unknown):,} are not: {listed}; "
            "rename or remove their folders"
        )


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return a folder's visible entries, in order; each knows its type without another system call."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith((".", "__MACOSX"))), key=lambda e: e.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}; check its permissions") from error


def _folders(folder: Path) -> list[os.DirEntry[str]]:
    return [entry for entry in _visible(folder) if entry.is_dir()]


def _pictures(top: Path, name: str, follow: bool, passed: Counter[str]) -> Iterator[str]:
    """
    Yield the pictures below a class's folder, relative to ``top``; links that lead out of it are refused.

    Other files are counted in ``passed`` by their suffix.
    """
    _check_link(top, name, follow)
    waiting, been = [name], set()
    while waiting:
        below = waiting.pop()
        if (place := (top / below).resolve()) in been:  # a link to a folder that holds it
            continue
        been.add(place)
        for entry in _visible(top / below):
            path = f"{below}/{entry.name}"
            if entry.is_symlink():
                _check_link(top, path, follow)
            if entry.is_dir():
                waiting.append(path)
            elif entry.name.lower().endswith(KINDS):
                yield path
            elif entry.name.lower() not in LITTER:
                passed[plain(PurePath(entry.name).suffix.lower()) or "no suffix"] += 1


def _check_link(top: Path, name: str, follow: bool) -> None:
    target = (top / name).resolve()
    if not follow and not target.is_relative_to(top.resolve()):
        raise DataError(
            f"{top}: {shown(name)} is a link to {target}, which lies outside; copy the pictures, or set `follow_links` "
            "= true in [data.images]"
        )


READER = DatasetReader(parts, needs=("folder",), takes=("images", "part"))
