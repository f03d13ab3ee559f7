"""Pictures that stay encoded until a batch of them is read, and are then decoded in threads side by side."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import numpy as np

from robustness.data.decoding import Decoding, decode
from robustness.data.validation import Array, Indices
from robustness.errors import AGAIN, DataError
from robustness.util.hardware import cpu_count

AHEAD = 2**29
"""Bytes of decoded pictures that wait to be asked for, at most, but for one batch."""


class Source(Protocol):
    """A source of encoded pictures, each at its place."""

    def read(self, place: int) -> bytes | memoryview:
        """Return one picture's bytes."""

    def named(self, place: int) -> str:
        """Return the name of a picture, for messages."""


@dataclass(frozen=True, eq=False)
class LazyImages:
    """
    An array of pictures, (N, H, W, 3) or (N, H, W) uint8, that decodes images on request and caches nothing.

    ``contents`` are the SHA-256 of the pictures at ``places``: other bytes are rejected on reading.
    """

    source: Source
    places: Indices
    contents: Sequence[str]
    decoding: Decoding
    size: tuple[int, int]
    _begun: OrderedDict[bytes, list[Future[Array]]] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all images together."""
        return (len(self), *self.size, *((3,) if self.decoding.mode == "RGB" else ()))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: slice | Indices) -> Array:
        """Decode some images, each in its own thread; DataError if one has changed since its inspection."""
        chosen = self._chosen(rows)
        with self._lock:
            begun = self._begun.pop(chosen.tobytes(), None)
        decoded = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for image, future in zip(decoded, begun or self._begin(chosen), strict=True):
            image[:] = future.result()
        return decoded

    def prefetch(self, rows: slice | Indices) -> None:
        """Start decoding images that will soon be requested; the oldest unrequested ones are dropped."""
        chosen = self._chosen(rows)
        with self._lock:
            if chosen.tobytes() not in self._begun:
                self._begun[chosen.tobytes()] = self._begin(chosen)
            most = AHEAD // math.prod(self.shape[1:])
            while len(self._begun) > 1 and sum(map(len, self._begun.values())) > most:
                self._begun.popitem(last=False)

    def hashed(self, rows: Indices | None) -> str:
        """Hash the content of some images, and how they are decoded."""
        digest = hashlib.sha256()
        for row in range(len(self)) if rows is None else rows.tolist():
            digest.update(self.contents[row].encode())
        return digest.hexdigest()

    def _chosen(self, rows: slice | Indices) -> Indices:
        return np.arange(len(self))[rows]

    def _begin(self, rows: Indices) -> list[Future[Array]]:
        return [pool().submit(self._decoded, int(row)) for row in rows]

    def _decoded(self, row: int) -> Array:
        place = int(self.places[row])
        try:
            content = self.source.read(place)
            changed = hashlib.sha256(content).hexdigest() != self.contents[row]
        except OSError as error:
            raise DataError(f"{self.source.named(place)} can no longer be read: {error}") from error
        if changed:
            raise DataError(f"{self.source.named(place)} changed during this run; {AGAIN}")
        try:
            return decode(content, self.decoding)
        except DataError as error:
            raise DataError(f"{self.source.named(place)}: {error}") from error


@dataclass(frozen=True)
class _Joined:
    """The places of two sources, one after the other."""

    first: Source
    second: Source
    count: int

    def read(self, place: int) -> bytes | memoryview:
        return self.first.read(place) if place < self.count else self.second.read(place - self.count)

    def named(self, place: int) -> str:
        return self.first.named(place) if place < self.count else self.second.named(place - self.count)


def joined(first: LazyImages, second: LazyImages) -> LazyImages:
    """Return the pictures of two as one; they have one decoding and size."""
    count = int(first.places.max()) + 1
    return LazyImages(
        _Joined(first.source, second.source, count),
        np.concatenate([first.places, second.places + count]),
        [*first.contents, *second.contents],
        first.decoding,
        first.size,
    )


@cache
def pool() -> ThreadPoolExecutor:
    """Return the threads that decode: Pillow releases the GIL."""
    return ThreadPoolExecutor(cpu_count(), thread_name_prefix="decode")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)  # a forked process has none of its parent's threads
