"""Tasks side by side, each in a process and one thread of its own, all kept in one store."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from robustness.errors import RobustnessError, TrainingError
from robustness.workspace.store import Store
from robustness.workspace.workspace import Progress, Workspace

GLANCE = 0.2
"""Seconds between two looks at how far the tasks are."""

Show = Callable[[int, int], None]
"""Called with the percent that are done of all, and 100."""


class Job(Protocol):
    """What is done in a process of its own, which it is sent to: it makes one file of the store."""

    @property
    def name(self) -> str:
        """Say what it is, where it has failed."""

    def __call__(self, harness: Workspace) -> Path:
        """Make the file, unless it is there, and give its path."""


def run_in_processes(tasks: Sequence[Job], here: Workspace, workers: int, show: Show | None) -> list[Path]:
    """
    Do tasks in spawned processes (a fork of a process that has used torch's threads may hang), and give their files.

    A script that calls this needs ``if __name__ == "__main__":``. The first failure ends all and is raised,
    TrainingError or what the task met; what was finished is in the store.
    """
    spawn = multiprocessing.get_context("spawn")
    # No lock: every task writes its own number only, and a process that is killed can hold none.
    parts = spawn.RawArray("d", len(tasks))
    others = set(multiprocessing.active_children())
    settings = (here.store.root, here.store.run, here.data_root, here.device, here.seed, parts)
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin, initargs=settings)
    try:
        futures = [pool.submit(_do, i, task) for i, task in enumerate(tasks)]
        pending: set[Future[tuple[Path, list[str]]]] = set(futures)
        while pending and not any(map(_failed, futures)):
            pending = wait(pending, timeout=GLANCE, return_when=FIRST_EXCEPTION).not_done
            if show:
                show(_percent(parts), 100)
        in_turn = sorted(range(len(tasks)), key=lambda i: not _failed(futures[i]))  # a failure first
        made = {i: _outcome(futures[i], tasks[i]) for i in in_turn}
    except BaseException:
        # The executor waits for what runs, which may take minutes: what was asked to end ends now.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    for _, notices in made.values():
        for notice in notices:
            here.notice(notice)
    return [made[i][0] for i in range(len(tasks))]


def run_in_order(tasks: Sequence[Job], here: Workspace, show: Show | None, progress: Progress) -> list[Path]:
    """Do tasks in this process, in their order, and give their files; failures are raised as side by side."""
    parts = [0.0] * len(tasks)
    made = []
    for i, task in enumerate(tasks):
        here.progress = _sharing(parts, i, show) if show else progress
        with _telling(task):
            made.append(task(here))
        parts[i] = 1.0
    return made


def _sharing(parts: Any, i: int, show: Show | None = None) -> Progress:
    """Return a progress that keeps the share that is done of one task among others."""

    def report(done: int, total: int) -> None:
        parts[i] = done / max(total, 1)
        if show:
            show(_percent(parts), 100)

    @contextmanager
    def begin(what: str) -> Iterator[Callable[[int, int], None]]:
        yield report

    return begin


def _percent(parts: Any) -> int:
    return int(100 * sum(parts) / len(parts))


def _failed(future: Future[Any]) -> bool:
    return future.done() and future.exception() is not None


def _outcome(future: Future[tuple[Path, list[str]]], task: Job) -> tuple[Path, list[str]]:
    with _telling(task):
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "its process, or one beside it, died (out of memory? killed?); what is finished is kept, "
                "and the same command goes on"
            ) from error


@contextmanager
def _telling(task: Job) -> Iterator[None]:
    """Say which task it was that failed, in one sentence, whatever a process raised."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{task.name}: {error}") from error
    except RobustnessError:
        raise
    except Exception as error:
        raise TrainingError(f"{task.name} raised {type(error).__name__}: {error}") from error


_settings: tuple[Any, ...] = ()


def _begin(*settings: Any) -> None:
    """Prepare a worker: it leaves Ctrl-C to its parent, and ends when that has died."""
    global _settings
    _settings = settings
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait until the parent process has died, then end this one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(i: int, task: Job) -> tuple[Path, list[str]]:
    root, run, data_root, device, seed, parts = _settings
    harness = Workspace(Store(root, run), data_root, device, seed, progress=_sharing(parts, i))
    path = task(harness)
    parts[i] = 1.0
    return path, harness.notices
