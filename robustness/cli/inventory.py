"""Lists and removes a store's evidence and leftovers of killed processes. Ignores links."""

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
"""Characters of a key in a list."""

HOUR = 3600


@dataclass(frozen=True)
class StoreEntry:
    """A file of evidence in the store, possibly broken; its size in bytes and when it was written."""

    path: Path
    size: int
    written: float

    @property
    def key(self) -> str:
        """The key in its name."""
        return self.path.stem

    @property
    def half(self) -> bool:
        """Whether a process is writing it, or died while writing it."""
        return self.path.suffix != ".safetensors"

    def read(self) -> Evidence:
        """Return its evidence; StoreError if it is incomplete or of another key."""
        try:
            evidence = Evidence.from_bytes(paths.read_bytes(self.path, follow=False))
        except OSError as error:
            raise StoreError(error.strerror or str(error)) from error
        if evidence.provenance.get("key") != self.key:
            raise StoreError("holds the evidence of another key")
        return evidence

    def remove(self) -> None:
        """Remove it; StoreError if that fails."""
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
                    status = file.stat(follow_symlinks=False)
                    yield StoreEntry(Path(file.path), status.st_size, status.st_mtime)


def _within(folder: Path) -> list[os.DirEntry[str]]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    with os.scandir(folder) as listing:
        return sorted(listing, key=lambda entry: entry.name)


def find(store: Store, prefix: str) -> StoreEntry:
    """Return the entry whose key has this prefix; StoreError if there is none, or more than one."""
    matches = [entry for entry in entries(store) if entry.key.startswith(prefix)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise StoreError(f"no evidence in {store.root} has a key that begins with {prefix!r}")
    several = ", ".join(entry.key[:SHORT] for entry in matches[:5]) + (", …" if len(matches) > 5 else "")
    raise StoreError(f"{prefix!r} is the prefix of {len(matches)} keys ({several}); use a longer prefix")


def to_prune(
    store: Store, *, broken: bool = False, older_than: float | None = None, every: bool = False
) -> list[StoreEntry]:
    """
    Return the entries to remove: ``broken`` ones, those older than a number of days, or all.

    An incomplete file counts as broken after an hour: until then a process may be writing it.
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
    """A leftover file or folder of a process that has ended; its size, and what it is."""

    path: Path
    size: int
    what: str

    def remove(self) -> None:
        """Remove it; StoreError if it stays."""
        try:
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path} could not be removed: {error.strerror or error}") from error


def litter(store: Store, data: Path) -> list[Litter]:
    """
    Return leftovers of killed processes in a store, and of killed downloads in a data root, older than an hour.

    A checkpoint or a finished chunk stays if its training or sweep may still continue from it.
    """
    every = (*_half(store.root, data), *_ended(store))
    leftovers = [Litter(path, _size(path), what) for path, what in every if _old(path)]
    return sorted(leftovers, key=lambda each: each.path)


def _half(root: Path, data: Path) -> Iterator[tuple[Path, str]]:
    """Return incomplete writes, unpackings and downloads."""
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
    """Return markers, checkpoints and chunks whose process has ended or whose result is complete."""
    root = store.root
    for entry in _within(root / "attempts"):
        if not locks.is_locked(root / "locks" / f"{Path(entry.name).stem}.lock"):
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
    """Return whether no process can still use a file; a clock that was set back gives times in the future."""
    try:
        return abs(time.time() - path.lstat().st_mtime) > HOUR
    except OSError:
        return False


def _size(path: Path) -> int:
    every = [path] if not path.is_dir() or path.is_symlink() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.lstat().st_size for each in every)
