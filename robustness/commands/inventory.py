"""What evidence a store holds: find it, remove it. Links in the store are left alone, never followed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustness.errors import StoreError
from robustness.evidence import Evidence
from robustness.store import Store

SHORT = 12
"""Characters of a key that a list shows."""

HOUR = 3600


@dataclass(frozen=True)
class Entry:
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
        """Give what it holds; StoreError where that is not whole, or not its own."""
        try:
            evidence = Evidence.from_bytes(self.path.read_bytes())
        except OSError as error:
            raise StoreError(error.strerror or str(error)) from error
        if evidence.provenance.get("key") != self.key:
            raise StoreError("holds the evidence of another key")
        return evidence

    def remove(self) -> None:
        """Remove it; StoreError where it stays."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path} could not be removed: {error.strerror or error}") from error


def entries(store: Store) -> list[Entry]:
    """Give all entries in the order of their keys."""
    return [entry for entry in _files(store) if not entry.half]


def _files(store: Store) -> Iterator[Entry]:
    for folder in _within(store.root / "evidence"):
        if folder.is_dir(follow_symlinks=False) and len(folder.name) == 2:
            for file in _within(Path(folder.path)):
                if file.is_file(follow_symlinks=False) and file.name.startswith((folder.name, ".writing-")):
                    found = file.stat(follow_symlinks=False)
                    yield Entry(Path(file.path), found.st_size, found.st_mtime)


def _within(folder: Path) -> list[os.DirEntry[str]]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: entry.name)


def find(store: Store, prefix: str) -> Entry:
    """Give the entry whose key begins so; StoreError where there is none, or more than one."""
    found = [entry for entry in entries(store) if entry.key.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise StoreError(f"no evidence in {store.root} has a key that begins with {prefix!r}")
    several = ", ".join(entry.key[:SHORT] for entry in found[:5]) + (", …" if len(found) > 5 else "")
    raise StoreError(f"{prefix!r} begins the keys of {len(found)} entries ({several}); write more of it")


def to_prune(
    store: Store, *, broken: bool = False, older_than: float | None = None, every: bool = False
) -> list[Entry]:
    """
    Give the entries that are to go: ``broken`` ones, those written more than so many days ago, or every one.

    What is half written counts as broken once it is an hour old: until then somebody may be at it.
    """
    now = time.time()

    def goes(entry: Entry) -> bool:
        age = now - entry.written
        if entry.half:
            return (broken or every) and age > HOUR
        return every or (older_than is not None and age > older_than * 24 * HOUR) or (broken and _broken(entry))

    return [entry for entry in _files(store) if goes(entry)]


def _broken(entry: Entry) -> bool:
    try:
        entry.read()
    except StoreError:
        return True
    return False
