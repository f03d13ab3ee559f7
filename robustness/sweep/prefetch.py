"""Load batches on the CPU in a thread while the device computes."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

from torch import Tensor


class HostBatch(NamedTuple):
    """One batch in host memory: images, labels, draws, and precomputed directions."""

    inputs: Tensor
    labels: Tensor
    drawn: Tensor | None
    directions: Tensor | None

    def pinned(self) -> HostBatch:
        """Return the batch in pinned memory, which a GPU copies asynchronously."""
        return HostBatch(*(None if tensor is None else tensor.pin_memory() for tensor in self))  # type: ignore[arg-type]


class Prefetcher:
    """Loads batches in advance, one after the other; a batch that was not begun is loaded when it is taken."""

    def __init__(self, load: Callable[[int, int], HostBatch]) -> None:
        self._load = load
        self._pending: dict[int, Future[HostBatch]] = {}

    def begin(self, start: int, stop: int) -> None:
        """Start loading a batch."""
        self._pending[start] = _prefetch_thread().submit(self._load, start, stop)

    def take(self, start: int, stop: int) -> HostBatch:
        """Return a batch; an error of loading it is raised here."""
        pending = self._pending.pop(start, None)
        return self._load(start, stop) if pending is None else pending.result()

    def drop(self, start: int) -> None:
        """Discard a batch that is no longer needed."""
        if (pending := self._pending.pop(start, None)) is not None:
            pending.cancel()


@cache
def _prefetch_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="ahead")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        after_in_child=_prefetch_thread.cache_clear
    )  # a forked process has none of its parent's threads
