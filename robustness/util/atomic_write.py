"""Write a file completely or not at all, whenever the process ends."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from robustness.errors import CardError
from robustness.util import paths

BEGUN = ".writing-"
"""What a file that is being written is called; one that an ended process left is litter."""


@contextmanager
def atomic_writer(path: Path, *, durable: bool = True, below: Path | None = None) -> Iterator[IO[bytes]]:
    """
    Return a stream whose bytes become a file when all of them are written; permissions stay.

    If it ends earlier for any reason, the file is unchanged and no temporary file remains.

    Args:
        path: The file, or a link to it, which stays a link.
        durable: Whether it survives a crash of the machine; else its content must have a checksum.
        below: The folder of this program's own files that it lies in: there a link is replaced and never followed,
            and so is a folder in a file's place.

    Raises:
        OSError: The disk does not take it, or a folder between ``below`` and the file is a link.
    """
    if below is None:
        path = path.resolve()
    else:
        paths.check_no_link(path.parent, below)
        if path.parent != below and path.is_dir() and not path.is_symlink():  # what lies in folders of a kind is files
            shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{BEGUN}{uuid.uuid4().hex}"
    try:
        with temporary.open("x+b") as stream:
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        if path.exists() and not path.is_symlink():
            temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)
    except BaseException:  # also where the user interrupted
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


ASIDE = "_PYTEST_ROBUST_ASIDE"
"""The folder of `aside`, for the processes that this one starts."""


def aside() -> Path:
    """
    Return a temporary folder that is removed with this process, for files that cannot be stored in their place.

    Raises:
        OSError: There is no place for temporary files.
    """
    if ASIDE not in os.environ:
        folder = tempfile.mkdtemp(prefix="robustness-")
        os.environ[ASIDE] = folder
        atexit.register(_remove, folder, os.getpid())
    return Path(os.environ[ASIDE])


def is_aside(path: Path) -> bool:
    """Return whether a path lies in the folder of `aside`."""
    return ASIDE in os.environ and path.is_relative_to(os.environ[ASIDE])


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and no process that it forked
        shutil.rmtree(folder, ignore_errors=True)


def replace(path: Path, content: bytes) -> None:
    """Replace a file, or a link's target, atomically; its permissions stay. CardError if it cannot be written."""
    try:
        with atomic_writer(path) as stream:
            stream.write(content)
    except OSError as error:
        raise CardError(f"{path} could not be written ({error.strerror or error}) and is unchanged") from error
