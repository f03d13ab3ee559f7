"""Files that are there whole or not at all, whenever a process ends."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def writing(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """
    Give a stream whose bytes become a file, or what a link names, when all of them are written; permissions stay.

    Whatever ends it earlier leaves the file as it was, and nothing beside it. OSError where the disk does not take it.
    One that is not ``durable`` may be torn where the machine itself stops: for files that say whether they are whole.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".writing-{uuid.uuid4().hex}"
    try:
        with temporary.open("x+b") as stream:
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)
    except BaseException:  # also where the user interrupted
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
