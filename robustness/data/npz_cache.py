"""Archives of arrays, unpacked once to files that can be mapped to memory."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import lzma
import re
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from robustness.data.validation import Array
from robustness.errors import AGAIN, DataError
from robustness.util import atomic_write, file_formats, locks, paths
from robustness.util.source_files import sha256_file

PATIENCE = 2.0
"""Seconds without a word."""
CHUNK = 2**20
INDEX = "index.json"
TORN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError, RuntimeError)
"""What the standard library raises for archives that are cut off, damaged, encrypted or something else."""

Progress = Callable[[str], None]
T = TypeVar("T")


class Unpacked(dict[str, Array]):
    """Arrays by name; ``notes`` for the run's report."""

    notes: tuple[str, ...] = ()


def memory_mapped_arrays(file: Path, cache: Path, progress: Progress | None = None) -> Unpacked:
    """
    Return the arrays of an ``.npz`` or ``.npz.xz`` file as read-only memory maps, unpacked below ``cache`` if need be.

    The folder is named by the file's SHA-256, which is computed each time. Its files are verified by their checksums,
    and unpacked again if these differ.
    """
    try:
        digest = sha256_file(file)[:32]
        paths.check_no_link(cache / "arrays" / digest, cache)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    try:
        return stored_or_temporary(
            lambda root: _arrays(file, root / "arrays" / digest, progress), cache, file.name, progress
        )
    except OSError as error:
        raise DataError(
            f"{file} could not be unpacked to {cache}: {error}; check the disk space and permissions"
        ) from error


def stored_or_temporary(make: Callable[[Path], T], cache: Path, what: str, progress: Progress | None) -> T:
    """
    Return the unpacked arrays from the store; if that cannot be written, from a temporary folder of this run.

    Raises:
        OSError: Neither can be written, or what is unpacked cannot be read.
    """
    try:
        return make(cache)
    except OSError as error:
        if progress is not None:
            why = error.strerror or error
            progress(f"{what} is unpacked for this run only, because {cache} cannot be written ({why})")
    return make(atomic_write.aside())


def _arrays(file: Path, folder: Path, progress: Progress | None) -> Unpacked:
    def make() -> Unpacked:
        damaged = folder.exists()
        _unpack(file, folder, RateLimitedReporter(progress))
        arrays = _read(folder)
        if arrays is None:
            raise DataError(f"{file} was unpacked to {folder}, which then changed; remove that folder")
        if damaged:
            arrays.notes = (f"the store's copy of {file.name} was damaged ({folder}); it was unpacked again",)
        return arrays

    return locks.get_or_make(make, read=lambda: _read(folder), exclusive=_exclusive(file, folder, progress))


@contextlib.contextmanager
def _exclusive(file: Path, folder: Path, progress: Progress | None) -> Iterator[None]:
    """Hold the lock of a folder to unpack, and remove leftovers of a killed process."""
    with exclusive(folder, f"unpacks {file.name}", progress) as locked:
        for leftover in folder.parent.glob(f".{folder.name}-*") if locked else ():
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _read(folder: Path) -> Unpacked | None:
    """Open unpacked arrays, or return None if they are incomplete or changed."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        unpacked = Unpacked()
        for name, entry in index.items():
            path = folder / f"{name}.npy"
            paths.check_regular(path, follow=False)
            unpacked[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            if _entry(path, unpacked[name]) | {"sha256": sha256_file(path)} != entry:
                return None
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        return None
    return unpacked


def _unpack(file: Path, folder: Path, say: RateLimitedReporter) -> None:
    """Unpack beside ``folder``, and rename."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        archive, unpacked = file, Path(scratch) / "made"
        unpacked.mkdir()
        try:
            if file.suffix == ".xz":  # a zip file is read from its end, which needs a file
                archive = Path(scratch) / "archive.npz"
                with lzma.open(file) as source, archive.open("wb") as target:
                    _copy(source, target, say, f"decompressing {file.name}")
            _check_room(archive, unpacked)
            index = _extract(archive, unpacked, say, f"of {file.name}")
        except TORN as error:
            why = file_formats.mistaken_file(file) or f"{error}; download or write it again"
            raise DataError(f"{file} must be a complete .npz or .npz.xz file, but: {why}") from error
        refuse_other(file, folder.name)
        (unpacked / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
        if folder.is_dir():  # damaged, or the caller would not unpack; maps of it that are open stay valid
            folder.rename(Path(scratch) / "damaged")
        elif folder.exists():
            folder.unlink()
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.exists():
                raise  # else another process, on a file system without locks, has just made the same


def _check_room(archive: Path, folder: Path) -> None:
    """Raise OSError if the disk has no room for an archive's declared size, before unpacking."""
    with zipfile.ZipFile(archive) as opened:
        size = sum(member.file_size for member in opened.infolist())
    if size > (free := shutil.disk_usage(folder).free):
        raise OSError(errno.ENOSPC, f"it needs {size:,} bytes, but only {free:,} are free")


def refuse_other(file: Path, digest: str) -> None:
    """Raise DataError if a file has changed since its SHA-256 was computed."""
    if not sha256_file(file).startswith(digest):
        raise DataError(f"{file} changed while it was read; {AGAIN}")


def _extract(archive: Path, folder: Path, say: Progress, of: str) -> dict[str, Any]:
    """Write every array of an archive to its own file; return their sizes, types, shapes and checksums."""
    index: dict[str, Any] = {}
    with zipfile.ZipFile(archive) as opened:
        for member in opened.namelist():
            name = re.fullmatch(r"(\w[\w.-]*)\.npy", member)
            if name is None:
                raise ValueError(f"it contains {member!r}, which is no array")
            path = folder / member
            with opened.open(member) as source, path.open("wb") as target:
                digest = _copy(source, target, say, f"unpacking {member} {of}")
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except Exception as error:  # whatever a torn file makes NumPy's parser of headers say
                raise ValueError(f"array {name[1]!r} contains Python objects, or is truncated ({error})") from error
            index[name[1]] = _entry(path, array) | {"sha256": digest}
    return index


def _entry(path: Path, array: Array) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "dtype": array.dtype.str, "shape": list(array.shape)}


def _copy(source: IO[bytes], target: IO[bytes], say: Progress, doing: str) -> str:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        target.write(chunk)
        digest.update(chunk)
        size += len(chunk)
        say(f"{doing}, {size >> 20} MB")
    return digest.hexdigest()


class RateLimitedReporter:
    """Pass on messages, at most every two seconds."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        """Report it if enough time has passed."""
        if self._progress is not None and time.monotonic() - self._last >= PATIENCE:
            self._last = time.monotonic()
            self._progress(text)


def exclusive(file: Path, what: str, progress: Progress | None) -> AbstractContextManager[bool]:
    """
    Let one process make a file or folder of the store, so that eight workers do not make the same eight times.

    On a file system without locks every process makes it, and False is yielded.

    Args:
        file: What is made, in a folder of its kind in the store; the lock lies beside it.
        what: What the other process does, as in "unpacks digits.npz", for those who wait.
        progress: Shows that sentence.
    """

    def on_wait() -> None:
        if progress is not None:
            progress(f"waiting for another process that {what}")

    return locks.exclusive(file.with_suffix(".lock"), file.parent.parent, on_wait)
