"""What a store holds: evidence, and what killed processes left; find it, remove it. Links are left alone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustness.data import mnist
from robustness.errors import StoreError
from robustness.metrics.evidence import Evidence
from robustness.util import atomic_write, locks, paths
from robustness.workspace.store import KEY, Store

SHORT = 12
"""Characters of a key that a list shows."""

HOUR = 3600


@dataclass(frozen=True)
class StoreEntry:
    """A file of the store that holds, or should hold, evidence; its size in bytes and when it was written."""

    path: Path
    size: int
    written: float

    @property
    def key(self) -> str:
        """The key that its name says it has."""
        return self.path.stem

    @property
    def half(self) -> bool:
        """Whether a process is writing it, or died while it was."""
        return self.path.suffix != ".safetensors"

    def read(self) -> Evidence:
        """Return what it holds; StoreError where that is not whole, or not its own."""
        try:
            evidence = Evidence.from_bytes(paths.read_bytes(self.path, follow=False))
        except OSError as error:
            raise StoreError(error.strerror or str(error)) from error
        if evidence.provenance.get("key") != self.key:
            raise StoreError("contains the evidence of another key")
        return evidence

    def remove(self) -> None:
        """Remove it; StoreError where it stays."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path} could not be removed: {error.strerror or error}") from error


def entries(store: Store) -> list[StoreEntry]:
    """Return all entries in the order of their keys."""
    return [entry for entry in _files(store) if not entry.half]


def _files(store: Store) -> Iterator[StoreEntry]:
    for folder in _within(store.root / "evidence"):
        if folder.is_dir(follow_symlinks=False) and len(folder.name) == 2:
            for file in _within(Path(folder.path)):
                if file.is_file(follow_symlinks=False) and file.name.startswith((folder.name, ".writing-")):
                    found = file.stat(follow_symlinks=False)
                    yield StoreEntry(Path(file.path), found.st_size, found.st_mtime)


def _within(folder: Path) -> list[os.DirEntry[str]]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: entry.name)


def find(store: Store, prefix: str) -> StoreEntry:
    """Return the entry whose key begins so; StoreError where there is none, or more than one."""
    found = [entry for entry in entries(store) if entry.key.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise StoreError(f"no evidence in {store.root} has a key that begins with {prefix!r}")
    several = ", ".join(entry.key[:SHORT] for entry in found[:5]) + (", …" if len(found) > 5 else "")
    raise StoreError(f"{prefix!r} is the prefix of {len(found)} keys ({several}); use a longer prefix")


def to_prune(
    store: Store, *, broken: bool = False, older_than: float | None = None, every: bool = False
) -> list[StoreEntry]:
    """
    Return the entries that are to go: ``broken`` ones, those written more than so many days ago, or every one.

    What is half written counts as broken once it is an hour old: until then somebody may be at it.
    """
    now = time.time()

    def goes(entry: StoreEntry) -> bool:
        age = now - entry.written
        if entry.half:
            return (broken or every) and abs(age) > HOUR
        return every or (older_than is not None and age > older_than * 24 * HOUR) or (broken and _broken(entry))

    return [entry for entry in _files(store) if goes(entry)]


def _broken(entry: StoreEntry) -> bool:
    try:
        entry.read()
    except StoreError:
        return True
    return False


@dataclass(frozen=True)
class Litter:
    """A file or folder that a process which has ended left, and nobody will read; its size, and what it is."""

    path: Path
    size: int
    what: str

    def remove(self) -> None:
        """Remove it; StoreError where it stays."""
        try:
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path} could not be removed: {error.strerror or error}") from error


def litter(store: Store, data: Path) -> list[Litter]:
    """
    Return what killed processes left in a store, and killed downloads in a data root: all that is an hour old.

    A checkpoint, or a finished chunk, is left where its training or sweep may still go on from it.
    """
    every = (*_half(store.root, data), *_ended(store))
    found = [Litter(path, _size(path), what) for path, what in every if _old(path)]
    return sorted(found, key=lambda each: each.path)


def _half(root: Path, data: Path) -> Iterator[tuple[Path, str]]:
    """Return what was being written, unpacked or downloaded."""
    for folder in (Path(entry.path) for entry in _within(root) if entry.is_dir(follow_symlinks=False)):
        if folder.name not in ("arrays", "parquet"):
            half = [path for path in folder.rglob(f"{atomic_write.BEGUN}*") if folder.name != "evidence"]
            yield from ((path, "an incomplete file") for path in half)
    for entry in [*_within(root / "arrays"), *_within(root / "parquet")]:
        if entry.is_dir(follow_symlinks=False) and entry.name.startswith((".", "tmp")):
            yield Path(entry.path), "half unpacked"
    for entry in _within(data):
        if entry.is_dir(follow_symlinks=False) and entry.name.startswith(mnist.DOWNLOADING):
            yield Path(entry.path), "an incomplete download"


def _ended(store: Store) -> Iterator[tuple[Path, str]]:
    """Return what a process noted for itself, or to go on from, where it has ended or what it made is whole."""
    root = store.root
    for entry in _within(root / "attempts"):
        if not locks.is_held(root / "locks" / f"{Path(entry.name).stem}.lock"):
            yield Path(entry.path), "the marker of a process that has ended"
    for entry in _within(root / "checkpoints"):
        key = Path(entry.name).stem
        if KEY.fullmatch(key) and any(store.holds(store.path(kind, key)) for kind in ("weights", "generators")):
            yield Path(entry.path), "the checkpoint of a training that has ended"
    for prefix in _within(root / "chunks"):
        for entry in _within(Path(prefix.path)):
            if KEY.fullmatch(entry.name) and store.holds(store.path("evidence", entry.name)):
                yield Path(entry.path), "chunks of evidence that is complete"


def _old(path: Path) -> bool:
    """Return whether nobody can be at it any more; a clock that was set back makes a file that lies in the future."""
    try:
        return abs(time.time() - path.lstat().st_mtime) > HOUR
    except OSError:
        return False


def _size(path: Path) -> int:
    every = [path] if not path.is_dir() or path.is_symlink() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.lstat().st_size for each in every)
