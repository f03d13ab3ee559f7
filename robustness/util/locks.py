"""Locks between processes, and the one way to make a value once: read it, or take its lock, read again, make it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import BaseFileLock, FileLock, Timeout

from robustness.errors import Busy
from robustness.util import paths

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds of waiting for a lock after which the user is told; it is repeated every 15 times as long."""


def get_or_make(
    make: Callable[[], T],
    *,
    read: Callable[[], T | None],
    exclusive: AbstractContextManager[object],
    prepare: Callable[[], object] | None = None,
) -> T:
    """Return the stored value; else make it in one process, while the others wait and then read it.

    Args:
        make: Makes the value, writes it atomically to where `read` looks, and returns it. Runs while the lock is held.
        read: Returns the stored value, or None if there is none that can be trusted. Called before the lock is taken
            and, if that returned None, again while it is held: another process may have made the value meanwhile.
        exclusive: The lock, entered only if there is something to make.
        prepare: Called before the lock is taken if there is something to make. What waits for other locks belongs
            here: of two processes, each could otherwise wait for the lock that the other one holds.
    """
    value = read()
    if value is not None:
        return value
    if prepare is not None:
        prepare()
    with exclusive:
        value = read()
        return make() if value is None else value


@contextmanager
def exclusive(
    path: Path, root: Path, on_wait: Callable[[], object], *, patience: float | None = None
) -> Iterator[bool]:
    """Hold a lock file while one process works; the lock of a process that died is free.

    Yields False, and lets the process work without the lock, if there can be none: the folder cannot be written, its
    file system has no locks, or a link lies where the file should. Whatever is written must therefore be written
    atomically, and be the same whoever writes it.

    Args:
        path: The lock file; the folder is created.
        root: The folder of this program's own files; links below it are not followed.
        on_wait: Called when another process has held the lock for `patience` seconds, and then every 15 `PATIENCE`.
            What it raises ends the wait.
        patience: Seconds until the first call, `PATIENCE` by default.
    """
    lock = _acquire(path, root, on_wait, PATIENCE if patience is None else patience)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


def is_locked(path: Path) -> bool:
    """Return whether a process holds a lock file; False if the file system has no locks."""

    def on_wait() -> None:
        raise Busy(f"another process holds {path}")

    if not path.is_file():
        return False
    try:
        with exclusive(path, path.parent, on_wait, patience=0.0):
            return False
    except Busy:
        return True


def _acquire(path: Path, root: Path, on_wait: Callable[[], object], patience: float) -> BaseFileLock | None:
    lock = _file_lock(path)
    while True:
        try:
            paths.check_no_link(path, root)
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=patience)
            return lock
        except Timeout:
            pass
        except (OSError, NotImplementedError):  # the latter: a file system without locks
            return None
        on_wait()  # outside of the handlers: an OSError of a closed terminal must not let two processes in
        patience = 15 * PATIENCE


def _file_lock(path: Path) -> FileLock:
    """Return a lock that raises OSError or NotImplementedError when acquired where the file system has no locks."""
    try:
        return FileLock(path, fallback_to_soft=False)  # a soft lock would outlive a process that is killed
    except TypeError:  # an older filelock, which never falls back
        return FileLock(path)
