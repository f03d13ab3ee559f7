"""What the processor does for a batch before a device works on it, done ahead in a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

from torch import Tensor


class HostBatch(NamedTuple):
    """One batch in the processor's memory: images, labels, what was drawn for them, and directions made before."""

    inputs: Tensor
    labels: Tensor
    drawn: Tensor | None
    made: Tensor | None

    def pinned(self) -> HostBatch:
        """Return it in memory that a GPU reads by itself, so that nobody waits while it does."""
        drawn, made = (None if tensor is None else tensor.pin_memory() for tensor in (self.drawn, self.made))
        return HostBatch(self.inputs.pin_memory(), self.labels.pin_memory(), drawn, made)


class Prefetcher:
    """Makes batches before they are asked for, one after the other; one that was not begun is made when it is."""

    def __init__(self, make: Callable[[int, int], HostBatch]) -> None:
        self._make = make
        self._coming: dict[int, Future[HostBatch]] = {}

    def begin(self, start: int, stop: int) -> None:
        """Begin to make a batch."""
        self._coming[start] = _thread().submit(self._make, start, stop)

    def take(self, start: int, stop: int) -> HostBatch:
        """Return a batch; what making it raised is raised here."""
        coming = self._coming.pop(start, None)
        return self._make(start, stop) if coming is None else coming.result()

    def drop(self, start: int) -> None:
        """Let go of a batch that nobody needs any more."""
        if (coming := self._coming.pop(start, None)) is not None:
            coming.cancel()


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="ahead")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_thread.cache_clear)  # a forked process has none of its parent's threads
