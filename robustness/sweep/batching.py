"""The order, the size and the threads in which a sweep works through its images."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import cache, partial
from itertools import islice, zip_longest
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from robustness.classifiers import process_state, time_limit
from robustness.errors import ModelError
from robustness.util.rng import CHUNK

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with the images done and all images."""


def batch_ranges(
    total: int, batch_size: int, abreast: int = 1, wanted: Sequence[int] | None = None
) -> Iterator[tuple[int, int]]:
    """
    Return (start, stop) of every batch, or of the ``wanted`` chunks of draws; none reaches over the end of a chunk.

    Of ``abreast`` chunks the batches take turns, so that as many threads draw side by side.

    >>> list(batch_ranges(2300, 500, abreast=2))
    [(0, 500), (1000, 1500), (500, 1000), (1500, 2000), (2000, 2300)]
    """
    chunks = [
        [(s, min(s + batch_size, start + CHUNK, total)) for s in range(start, min(start + CHUNK, total), batch_size)]
        for start in (range(0, total, CHUNK) if wanted is None else [CHUNK * chunk for chunk in wanted])
    ]
    for i in range(0, len(chunks), abreast):
        for row in zip_longest(*chunks[i : i + abreast]):
            yield from (batch for batch in row if batch)


def count(total: int, batch_size: int, wanted: Sequence[int] | None = None) -> int:
    """Return the number of batches."""
    return sum(1 for _ in batch_ranges(total, batch_size, wanted=wanted))


def pad_batch(array: np.ndarray, batch_size: int, device: str) -> Tensor:
    """
    Bring a last, smaller batch to the size of the others: another size would give other last bits.

    >>> pad_batch(np.array([1, 2]), 4, "cpu")
    tensor([1, 2, 1, 1])
    """
    if missing := batch_size - len(array):
        array = np.concatenate([array, np.repeat(array[:1], missing, axis=0)])
    elif not array.flags.writeable:
        array = array.copy()  # nothing that a model or a perturbation does may reach the data
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Compute with one torch thread meanwhile: small steps are faster so, and their last bits the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_batches(
    work: Callable[[M, int, int], None],
    models: list[M],
    total: int,
    batch_size: int,
    device: str,
    progress: Progress | None = None,
    prefetch: Callable[[int, int], None] = lambda start, stop: None,
    wanted: Sequence[int] | None = None,
    most: int | None = None,
) -> None:
    """
    Call ``work(model, start, stop)`` for every batch of the ``wanted`` chunks, or for the ``most`` first of them.

    As many are at work at once as there are models. ``prefetch(start, stop)`` is called while as many batches are
    still before that one. On a CPU each computes with one torch thread; the caller's number stays.
    """
    free: SimpleQueue[M] = SimpleQueue()
    watch = time_limit.Watchdog()
    for model in models:
        free.put(model)

    abreast = len(models)
    every = list(islice(batch_ranges(total, batch_size, abreast, wanted), most))
    started: set[int] = set()
    starting = threading.Lock()

    def one(i: int) -> int:
        start, stop = every[i]
        with starting:  # another thread may be past that batch already: begun then, it would be made for nobody
            started.add(i)
            if i + abreast < len(every) and i + abreast not in started:
                prefetch(*every[i + abreast])
        if device == "cpu":
            torch.set_num_threads(1)  # holds for the thread that calls it; for parts of torch, until the next call
            torch.set_flush_denormal(False)  # inherited from the caller, who may have trained with it
        model = free.get()
        try:
            with process_state.restore_state(process_state.THREAD_STATE):  # this thread works for other models, too
                work(model, start, stop)
        finally:
            free.put(model)
        return stop - start

    before, pool = torch.get_num_threads(), _threads(abreast)
    done = total - sum(stop - start for start, stop in every)
    for batch in every[:abreast]:
        prefetch(*batch)
    futures = [pool.submit(one, i) for i in range(len(every))]
    try:
        for future in _finished(futures, watch):
            done += future.result()
            if progress:
                progress(done, total)
    finally:
        for future in futures:
            future.cancel()
        wait(futures, None if _threads(abreast) is pool else 0)
        torch.set_num_threads(before)


def _finished(futures: list[Future[T]], watch: time_limit.Watchdog) -> Iterator[Future[T]]:
    """Give futures as they finish; threads in which a pass hangs are left behind, and sweeps that follow get others."""
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, watch.poll_seconds, FIRST_COMPLETED)
        yield from finished
        if finished:
            continue
        try:
            watch.check()
        except ModelError:
            _threads.cache_clear()
            raise


def out_of_memory(error: BaseException) -> bool:
    """
    Return whether an error means that there is no memory left, on a GPU or for torch's CPU tensors.

    >>> out_of_memory(torch.OutOfMemoryError()), out_of_memory(RuntimeError("shapes do not match"))
    (True, False)
    """
    full = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return full or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def retry_with_smaller_batches(work: Callable[[int], T], batch_size: int) -> tuple[T, int]:
    """
    Call ``work(batch_size)``, anew with half of it as often as memory runs out; give its result and the last size.

    Draws do not depend on the size of batches, so that less memory costs time alone.

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
        # Outside of the handler: the error's traceback holds what fills the memory.
        batch_size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Threads:
    """Threads that work in turn on what is submitted; they hold no process that wants to end."""

    def __init__(self, size: int) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        for i in range(size):
            threading.Thread(target=self._serve, name=f"sweep-{i}", daemon=True).start()

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have a call made by the next thread that is free."""
        future = Future[T]()
        self._work.put((future, partial(call, *arguments)))
        return future

    def _serve(self) -> None:
        while True:
            time_limit.run_future(*self._work.get())


@cache
def _threads(size: int) -> Threads:
    """Return threads that are kept: the first batch of a new one waits for its memory, a third of its time again."""
    return Threads(size)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a forked process has none of its parent's threads
