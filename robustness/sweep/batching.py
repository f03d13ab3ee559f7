"""Batches of a sweep: their order, their size, and the threads that run them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial
from itertools import islice, zip_longest
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from robustness.classifiers import process_state, time_limit
from robustness.errors import ModelError
from robustness.util.rng import CHUNK

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")

# Called with the number of finished images and of all images.
Progress = Callable[[int, int], None]


def batch_ranges(
    total: int, batch_size: int, workers: int = 1, chunks: Sequence[int] | None = None
) -> Iterator[tuple[int, int]]:
    """
    Yield (start, stop) of every batch, or of those in ``chunks``; no batch crosses the end of a chunk of draws.

    The batches of ``workers`` chunks alternate, so that as many threads draw in parallel.

    >>> list(batch_ranges(2300, 500, workers=2))
    [(0, 500), (1000, 1500), (500, 1000), (1500, 2000), (2000, 2300)]
    """
    ranges = [
        [(s, min(s + batch_size, start + CHUNK, total)) for s in range(start, min(start + CHUNK, total), batch_size)]
        for start in (range(0, total, CHUNK) if chunks is None else [CHUNK * chunk for chunk in chunks])
    ]
    for i in range(0, len(ranges), workers):
        for row in zip_longest(*ranges[i : i + workers]):
            yield from (batch for batch in row if batch)


def batch_count(total: int, batch_size: int, chunks: Sequence[int] | None = None) -> int:
    """Return the number of batches."""
    return sum(1 for _ in batch_ranges(total, batch_size, chunks=chunks))


def pad_batch(array: np.ndarray, batch_size: int, device: str) -> Tensor:
    """
    Pad a last, smaller batch to the size of the others: another size would change the last bits of the results.

    >>> pad_batch(np.array([1, 2]), 4, "cpu")
    tensor([1, 2, 1, 1])
    """
    if missing := batch_size - len(array):
        array = np.concatenate([array, np.repeat(array[:1], missing, axis=0)])
    elif not array.flags.writeable:
        array = array.copy()  # no model or perturbation may change the data
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Use one torch thread inside the context: small operations are faster, and the last bits reproducible."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_batches(
    run_batch: Callable[[M, int, int], None],
    models: list[M],
    total: int,
    batch_size: int,
    device: str,
    progress: Progress | None = None,
    prefetch: Callable[[int, int], None] = lambda start, stop: None,
    chunks: Sequence[int] | None = None,
    max_batches: int | None = None,
    in_order: bool = False,
) -> None:
    """
    Call ``run_batch(model, start, stop)`` for every batch in ``chunks``, or for the first ``max_batches`` of them.

    There are as many worker threads as models. ``prefetch(start, stop)`` is called as many batches ahead. On a CPU
    each worker uses one torch thread; the caller's setting is restored. ``in_order`` begins batches in the order of the
    images, and not in several chunks at once.
    """
    free_models: SimpleQueue[M] = SimpleQueue()
    watch = time_limit.Watchdog()
    for model in models:
        free_models.put(model)

    workers = len(models)
    batches = list(islice(batch_ranges(total, batch_size, 1 if in_order else workers, chunks), max_batches))
    started: set[int] = set()
    starting = threading.Lock()

    def run_one(i: int) -> int:
        start, stop = batches[i]
        with starting:  # another thread may have started that batch already, and would not take a prefetched one
            started.add(i)
            if i + workers < len(batches) and i + workers not in started:
                prefetch(*batches[i + workers])
        if device == "cpu":
            torch.set_num_threads(1)  # per thread; for parts of torch, until the next call
            torch.set_flush_denormal(False)  # the caller may have set it for training
        model = free_models.get()
        try:
            with process_state.restore_state(process_state.THREAD_STATE):  # this thread also runs other models
                run_batch(model, start, stop)
        finally:
            free_models.put(model)
        return stop - start

    before, pool = torch.get_num_threads(), _thread_pool(workers)
    done = total - sum(stop - start for start, stop in batches)
    for batch in batches[:workers]:
        prefetch(*batch)
    futures = [pool.submit(run_one, i) for i in range(len(batches))]
    try:
        for future in _as_completed(futures, watch):
            done += future.result()
            if progress:
                progress(done, total)
    finally:
        for future in futures:
            future.cancel()
        wait(futures, None if _thread_pool(workers) is pool else 0)
        torch.set_num_threads(before)


def _as_completed(futures: list[Future[T]], watch: time_limit.Watchdog) -> Iterator[Future[T]]:
    """Yield futures as they finish; if a pass hangs, abandon the threads, so that later sweeps get new ones."""
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, watch.poll_seconds, FIRST_COMPLETED)
        yield from finished
        if finished:
            continue
        try:
            watch.check()
        except ModelError:
            _thread_pool.cache_clear()
            raise


def out_of_memory(error: BaseException) -> bool:
    """
    Return whether an error means that memory ran out, on a GPU or for torch's CPU tensors.

    >>> out_of_memory(torch.OutOfMemoryError()), out_of_memory(RuntimeError("shapes do not match"))
    (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def retry_with_smaller_batches(work: Callable[[int], T], batch_size: int) -> tuple[T, int]:
    """
    Call ``work(batch_size)``; halve the size and retry while memory runs out. Return the result and the final size.

    Draws do not depend on the batch size, so a smaller one costs only time.

    >>> def work(size):
    ...     if size > 30:
    ...         raise torch.OutOfMemoryError
    ...     return "done"
    >>> retry_with_smaller_batches(work, 100)
    ('done', 25)
    """
    while True:
        try:
            return work(batch_size), batch_size
        except Exception as error:
            if batch_size == 1 or not out_of_memory(error):
                raise
        # Outside the handler: the error's traceback references what fills the memory.
        batch_size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class ThreadPool:
    """A pool of daemon threads, which do not keep a process from exiting."""

    def __init__(self, size: int) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        for i in range(size):
            threading.Thread(target=self._serve, name=f"sweep-{i}", daemon=True).start()

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Schedule a call on the next free thread."""
        future = Future[T]()
        self._work.put((future, partial(call, *arguments)))
        return future

    def _serve(self) -> None:
        while True:
            time_limit.run_future(*self._work.get())


@cache
def _thread_pool(size: int) -> ThreadPool:
    """Return a cached pool: the first batch of a new thread takes a third longer, to allocate memory."""
    return ThreadPool(size)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_thread_pool.cache_clear)  # a forked process has none of its parent's threads


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
