"""The finished chunks of a sweep, stored until its evidence is complete."""

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
from robustness.sweep.recorder import ChunkResult
from robustness.util import atomic_write, paths
from robustness.workspace.store import Store, stale_reason

EVERY = 2.0
"""Seconds between two writes: a shorter sweep writes no chunks, and one that dies loses no more than this."""
WAITING = 2**22
"""Bytes that wait for the next write at most."""


class StoredChunks:
    """
    The finished chunks of one sweep, stored until its evidence is complete.

    A chunk is trusted as evidence is: if the source files and distributions that it lists are unchanged, and, if code
    failed in it, in its own run only. A chunk that cannot be written is lost to the next run, but not to this one.

    Args:
        store: The store.
        key: The key of the evidence.
        project: The folder that the paths of source files are relative to.
        dependencies: Returns the source files and distributions that are known when a chunk is written.
        every: Seconds between two writes.
        notice: Called with a sentence if a chunk cannot be trusted or written.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        project: Path,
        *,
        dependencies: Callable[[], Mapping[str, Mapping[str, str]]] = dict,
        every: float | None = None,
        notice: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.folder = store.root / "chunks" / key[:2] / key
        self._store = store
        self._key, self._dependencies = key, dependencies
        self._project = project
        self._reasons: dict[str, str] = {}
        self._run = store.run
        self._every = EVERY if every is None else every
        self._notice = notice
        self._waiting: list[ChunkResult] = []
        self._written = time.monotonic()
        self._lock = threading.Lock()

    def get(self, chunk: int) -> ChunkResult | None:
        """Return a finished chunk if it can be trusted."""
        path = self._path(chunk)
        try:
            result, metadata = ChunkResult.from_bytes(self._store.read(path))
        except FileNotFoundError:
            return None
        except (OSError, StoreError) as error:
            self._notice(f"{path}: {error}; swept again")
            return None
        if result.chunk != chunk or (result.failed and result.metadata.get("run") != self._run):
            return None
        if reason := self._stale_reason(metadata):
            self._notice(f"{self.folder}: {reason}; swept again")
            return None
        return result

    def _stale_reason(self, metadata: Mapping[str, Any]) -> str:
        """Return why a chunk is stale; "" if it is not. Chunks of one sweep share the answer."""
        text = json.dumps(metadata, sort_keys=True)
        if text not in self._reasons:
            wrong = "" if metadata.get("key") == self._key else "a finished chunk is of another key"
            self._reasons[text] = wrong or stale_reason("a finished chunk", metadata, self._project)
        return self._reasons[text]

    def batch_size(self, requested: int) -> int:
        """Return the batch size to continue with: the requested one, or a smaller one if memory ran out before."""
        sizes = [requested]
        for path in sorted(self.folder.glob("*.safetensors")):
            with suppress(OSError, StoreError, ValueError, KeyError, TypeError):
                result, metadata = ChunkResult.from_bytes(self._store.read(path))
                if not self._stale_reason(metadata):
                    sizes.append(result.batch_size)
        return min(sizes)

    def put(self, result: ChunkResult) -> None:
        """Add a finished chunk; write all that wait if they are large or the last write was some time ago."""
        with self._lock:
            self._waiting.append(result)
            waiting = sum(array.nbytes for chunk in self._waiting for array in chunk.arrays.values())
            if time.monotonic() - self._written < self._every and waiting < WAITING:
                return
            try:
                for chunk in self._waiting:
                    self.write(chunk)
            except StoreError as error:
                self._notice(f"finished chunks were not kept: {error}")
            self._waiting.clear()
            self._written = time.monotonic()

    def write(self, result: ChunkResult) -> None:
        """Write a finished chunk now; StoreError if it cannot be written."""
        metadata = {**result.metadata, "run": self._run} if result.failed else result.metadata
        path = self._path(result.chunk)
        try:
            # Not synced to the disk: a chunk that a power cut tears fails its checksum and is swept again.
            with atomic_write.atomic_writer(path, durable=False, below=self._store.root) as stream:
                stored = ChunkResult(result.chunk, result.arrays, metadata)
                stream.write(stored.to_bytes({"key": self._key, **self._dependencies()}))
        except OSError as error:
            raise StoreError(f"{path} could not be written ({error.strerror or error}); make room") from error

    def remove(self) -> None:
        """Remove all chunks, because the evidence is complete."""
        self._waiting.clear()
        with suppress(OSError):
            paths.check_no_link(self.folder, self._store.root)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, chunk: int) -> Path:
        return self.folder / f"{chunk}.safetensors"
