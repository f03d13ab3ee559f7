"""The finished chunks of a sweep, stored until its evidence is whole."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from robustness.errors import StoreError
from robustness.sweep.chunk_result import ChunkResult
from robustness.util import atomic_write, paths, source_files
from robustness.workspace.store import Store

EVERY = 2.0
"""Seconds between two writings: a sweep that takes less writes none, and one that dies loses no more than that."""
WAITING = 2**22
"""Bytes that wait for the next writing at most."""


class StoredChunks:
    """
    The finished chunks of one sweep, kept in the store until its evidence is whole.

    ``key`` is that of the evidence; ``behind`` tells what is known to stand behind it when a chunk is written. A chunk
    is believed as evidence is: while the ``sources`` that it lists, relative to the project, and the ``distributions``
    are what they were; where code failed in it, in its own run only. One that cannot be written is lost to the next
    run, and to nobody else.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        project: Path,
        *,
        behind: Callable[[], Mapping[str, Mapping[str, str]]] = dict,
        every: float | None = None,
        notice: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.folder = store.root / "chunks" / key[:2] / key
        self._store = store
        self._key, self._behind = key, behind
        self._project = project
        self._reasons: dict[str, str] = {}
        self._run = store.run
        self._every = EVERY if every is None else every
        self._notice = notice
        self._waiting: list[ChunkResult] = []
        self._written = time.monotonic()
        self._lock = threading.Lock()

    def get(self, chunk: int) -> ChunkResult | None:
        """Return a finished chunk, if it can be believed."""
        path = self._path(chunk)
        try:
            part, about = ChunkResult.from_bytes(self._store.read(path))
        except FileNotFoundError:
            return None
        except (OSError, StoreError) as error:
            self._notice(f"{path}: {error}; swept again")
            return None
        if part.chunk != chunk or (part.failed and part.metadata.get("run") != self._run):
            return None
        if reason := self._older(about):
            self._notice(f"finished chunks in {self.folder} {reason}; swept again")
            return None
        return part

    def _older(self, about: Mapping[str, Any]) -> str:
        """Say why a chunk is not believed: it is another key's, or of other code."""
        text = json.dumps(about, sort_keys=True)
        if text not in self._reasons:
            if about.get("key") != self._key:
                self._reasons[text] = "are those of another key"
            elif other := source_files.changed_files(about.get("sources", {}), self._project):
                self._reasons[text] = f"are older than {', '.join(other)}"
            elif other := source_files.changed_distributions(about.get("distributions", {})):
                self._reasons[text] = f"were made with another version of {', '.join(other)}"
            else:
                self._reasons[text] = ""
        return self._reasons[text]

    def batch_size(self, asked: int) -> int:
        """Return the size of batches to go on with: smaller than asked where memory ran out before."""
        sizes = [asked]
        for path in sorted(self.folder.glob("*.safetensors")):
            with suppress(OSError, StoreError, ValueError, KeyError, TypeError):
                part, about = ChunkResult.from_bytes(self._store.read(path))
                if not self._older(about):
                    sizes.append(part.batch_size)
        return min(sizes)

    def put(self, part: ChunkResult) -> None:
        """Keep a finished chunk: with those that wait, once these are large or the last were written some time ago."""
        with self._lock:
            self._waiting.append(part)
            waiting = sum(array.nbytes for each in self._waiting for array in each.arrays.values())
            if time.monotonic() - self._written < self._every and waiting < WAITING:
                return
            try:
                for each in self._waiting:
                    self.write(each)
            except StoreError as error:
                self._notice(f"finished chunks were not kept: {error}")
            self._waiting.clear()
            self._written = time.monotonic()

    def write(self, part: ChunkResult) -> None:
        """Keep a finished chunk now; StoreError where the disk does not take it."""
        told, path = {**part.metadata, "run": self._run} if part.failed else part.metadata, self._path(part.chunk)
        try:
            # Not forced to the disk: one that a power cut tears does not fit its checksum, and is swept again.
            with atomic_write.atomic_writer(path, durable=False, below=self._store.root) as stream:
                stream.write(ChunkResult(part.chunk, part.arrays, told).to_bytes({"key": self._key, **self._behind()}))
        except OSError as error:
            raise StoreError(f"{path} could not be written ({error.strerror or error}); make room") from error

    def remove(self) -> None:
        """Remove all chunks: what they were kept for is whole."""
        self._waiting.clear()
        with suppress(OSError):
            paths.check_no_link(self.folder, self._store.root)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, chunk: int) -> Path:
        return self.folder / f"{chunk}.safetensors"
