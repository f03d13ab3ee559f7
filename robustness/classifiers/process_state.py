"""Process-wide state that a model's code may change; it is restored, so that other models are unaffected."""

from __future__ import annotations

import contextlib
import gc
import locale
import logging
import os
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch


class StateItem(NamedTuple):
    """One piece of state: its name, and how it is read and set."""

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object]


def _umask() -> int:
    current = os.umask(0o22)
    os.umask(current)
    return current


def _set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _set_streams(streams: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = streams


def _logging() -> tuple[int, tuple[logging.Handler, ...], int]:
    return logging.root.level, tuple(logging.root.handlers), logging.root.manager.disable


def _set_logging(values: tuple[int, tuple[logging.Handler, ...], int]) -> None:
    logging.root.setLevel(values[0])
    logging.root.handlers[:] = values[1]
    logging.disable(values[2])


def _signal_handlers() -> dict[signal.Signals, Any]:
    in_main_thread = threading.current_thread() is threading.main_thread()
    return {number: signal.getsignal(number) for number in signal.Signals} if in_main_thread else {}


def _set_signal_handlers(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _flushes_denormals() -> bool:
    return bool((np.array([1e-310]) * np.ones(1) == 0).all())


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


ENVIRONMENT = "environment variables"

# State that each thread has separately.
THREAD_STATE = (
    StateItem("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    StateItem(
        "torch's default device",
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
    ),
    StateItem("NumPy's error handling", np.geterr, lambda values: np.seterr(**values)),
    StateItem("how denormal numbers are computed", _flushes_denormals, torch.set_flush_denormal),
)

# State that is restored; docs/models.md lists it, and what is not.
PROCESS_STATE = (
    *THREAD_STATE,
    StateItem("torch's default type", torch.get_default_dtype, torch.set_default_dtype),
    StateItem("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    StateItem(
        "torch's deterministic algorithms",
        _deterministic,
        lambda values: torch.use_deterministic_algorithms(values[0], warn_only=values[1]),
    ),
    StateItem("the current folder", os.getcwd, os.chdir),
    StateItem("the umask", _umask, os.umask),
    StateItem(ENVIRONMENT, lambda: dict(os.environ), _set_environment),
    StateItem(
        "the locale", lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value)
    ),
    StateItem("sys.stdout or sys.stderr", lambda: (sys.stdout, sys.stderr), _set_streams),
    StateItem("logging", _logging, _set_logging),
    StateItem("signal handlers", _signal_handlers, _set_signal_handlers),
    StateItem("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    StateItem("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
)


# Threads that nobody waits for any more, because a forward pass hangs in them.
ABANDONED_THREADS: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@contextlib.contextmanager
def restore_state(items: tuple[StateItem, ...] = PROCESS_STATE) -> Iterator[list[str]]:
    """
    Restore state that changes inside the context; the yielded list then names what changed.

    An abandoned thread restores only its own state: the process belongs to later work by then.

    >>> with restore_state() as changed:
    ...     torch.set_default_dtype(torch.float64)
    >>> changed, torch.get_default_dtype()
    (["torch's default type"], torch.float32)
    """
    before, changed = [], list[str]()
    for item in items:
        with contextlib.suppress(Exception):  # a deleted folder, an unknown locale
            before.append((item, item.get()))
    with contextlib.ExitStack() as stack:
        if items is PROCESS_STATE:
            stack.enter_context(warnings.catch_warnings())
        try:
            yield changed
        finally:
            abandoned = threading.current_thread() in ABANDONED_THREADS
            if abandoned:
                stack.pop_all()
            for item, value in before:
                if abandoned and item not in THREAD_STATE:
                    continue
                with contextlib.suppress(Exception):
                    if item.get() != value:
                        item.set(value)
                        changed.append(item.name)


# Prefixes of the names of this package's threads.
OWN_THREADS = ("sweep", "ahead", "trial", "calling ")


def foreign_threads() -> set[threading.Thread]:
    """Return the running threads that are not this package's."""
    return {
        thread
        for thread in threading.enumerate()
        if not thread.name.startswith(OWN_THREADS) and not type(thread).__module__.startswith("tqdm")
    }


def describe_running_threads(before: set[threading.Thread]) -> str:
    """Return a sentence on threads that were started since and still run; empty if there are none."""
    names = sorted(thread.name for thread in foreign_threads() - before)
    listed = f"({', '.join(names)[:200]})"
    return f"left {len(names)} thread(s) running {listed}; end them, or a run may not end" if names else ""
