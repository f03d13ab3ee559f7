"""Run jobs side by side, each in a process of its own, with one store, one progress bar and a clean shutdown."""

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
from robustness.workspace.context import Progress
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

GLANCE = 0.2
"""Seconds between two updates of the progress."""

Show = Callable[[int, int], None]
"""Called with the percentage of all jobs that is done, and 100."""


class Job(Protocol):
    """A picklable job that makes one file of the store."""

    @property
    def name(self) -> str:
        """The name of the job for error messages."""

    def __call__(self, workspace: Workspace) -> Path:
        """Make the file unless it is there; return its path."""


def run_in_processes(tasks: Sequence[Job], here: Workspace, workers: int, show: Show | None) -> list[Path]:
    """
    Run jobs in spawned processes and return their files in order; finished ones stay in the store after a failure.

    Processes are spawned, because a fork of a process that has used torch's threads can hang. A script that calls this
    needs ``if __name__ == "__main__":``.

    Args:
        tasks: The jobs.
        here: The workspace of this process; the others get its store, data, device and seed.
        workers: The number of processes.
        show: Shows the progress of all jobs.

    Raises:
        RobustnessError: The first failure, which ends all jobs; TrainingError for any other exception in a job.
    """
    spawn = multiprocessing.get_context("spawn")
    # No lock: each job writes its own number only, and a killed process would never release one.
    fractions = spawn.RawArray("d", len(tasks))
    others = set(multiprocessing.active_children())
    settings = (here.store.root, here.store.run, here.data_root, here.device, here.seed, fractions)
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_init_worker, initargs=settings)
    try:
        futures = [pool.submit(_run_job, i, task) for i, task in enumerate(tasks)]
        pending: set[Future[tuple[Path, list[str]]]] = set(futures)
        while pending and not any(map(_failed, futures)):
            pending = wait(pending, timeout=GLANCE, return_when=FIRST_EXCEPTION).not_done
            if show:
                show(_percent(fractions), 100)
        order = sorted(range(len(tasks)), key=lambda i: not _failed(futures[i]))  # failures first
        results = {i: _outcome(futures[i], tasks[i]) for i in order}
    except BaseException:
        # The executor would wait for running jobs, which may take minutes.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    for _, notices in results.values():
        for notice in notices:
            here.notice(notice)
    return [results[i][0] for i in range(len(tasks))]


def run_in_order(tasks: Sequence[Job], here: Workspace, show: Show | None, progress: Progress) -> list[Path]:
    """Run jobs in this process, one after the other; files and failures are as in `run_in_processes`."""
    fractions = [0.0] * len(tasks)
    files = []
    for i, task in enumerate(tasks):
        here.progress = _progress_of(fractions, i, show) if show else progress
        with _label_errors(task):
            files.append(task(here))
        fractions[i] = 1.0
    return files


def _progress_of(fractions: Any, i: int, show: Show | None = None) -> Progress:
    """Return a progress that records which fraction of job `i` is done."""

    def report(done: int, total: int) -> None:
        fractions[i] = done / max(total, 1)
        if show:
            show(_percent(fractions), 100)

    @contextmanager
    def begin(what: str) -> Iterator[Callable[[int, int], None]]:
        yield report

    return begin


def _percent(fractions: Any) -> int:
    return int(100 * sum(fractions) / len(fractions))


def _failed(future: Future[Any]) -> bool:
    return future.done() and future.exception() is not None


def _outcome(future: Future[tuple[Path, list[str]]], task: Job) -> tuple[Path, list[str]]:
    with _label_errors(task):
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "its process, or one beside it, died (out of memory? killed?); what is finished is kept, "
                "and the same command goes on"
            ) from error


@contextmanager
def _label_errors(task: Job) -> Iterator[None]:
    """Turn any exception of a job into one that names the job."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{task.name}: {error}") from error
    except RobustnessError:
        raise
    except Exception as error:
        raise TrainingError(f"{task.name} raised {type(error).__name__}: {error}") from error


_settings: tuple[Any, ...] = ()


def _init_worker(*settings: Any) -> None:
    """Set up a worker process: it leaves Ctrl-C to its parent, and exits if the parent dies."""
    global _settings
    _settings = settings
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, daemon=True).start()


def exit_with_parent() -> None:
    """Wait until the parent process has died, then end this one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_job(i: int, task: Job) -> tuple[Path, list[str]]:
    root, run, data_root, device, seed, fractions = _settings
    workspace = Workspace(Store(root, run), data_root, device, seed, progress=_progress_of(fractions, i))
    path = task(workspace)
    fractions[i] = 1.0
    return path, workspace.notices
