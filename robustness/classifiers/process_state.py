"""What a process has once, and a model's code may change: set back after it, so that no other model is blamed."""

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


class Part(NamedTuple):
    """One of these things: what it is called, how it is read, and how it is set."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]


def _umask() -> int:
    now = os.umask(0o22)
    os.umask(now)
    return now


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


def _handlers() -> dict[signal.Signals, Any]:
    here = threading.current_thread() is threading.main_thread()
    return {each: signal.getsignal(each) for each in signal.Signals} if here else {}


def _set_handlers(handlers: dict[signal.Signals, Any]) -> None:
    for each, handler in handlers.items():
        if handler is not None and signal.getsignal(each) is not handler:
            signal.signal(each, handler)


def _flushes() -> bool:
    return bool((np.array([1e-310]) * np.ones(1) == 0).all())


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


ENVIRONMENT = "environment variables"

OF_THREADS = (
    Part("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Part(
        "torch's default device",
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
    ),
    Part("NumPy's error handling", np.geterr, lambda values: np.seterr(**values)),
    Part("how denormal numbers are computed", _flushes, torch.set_flush_denormal),
)
"""What each thread has of its own."""

PARTS = (
    *OF_THREADS,
    Part("torch's default type", torch.get_default_dtype, torch.set_default_dtype),
    Part("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    Part(
        "torch's deterministic algorithms",
        _deterministic,
        lambda values: torch.use_deterministic_algorithms(values[0], warn_only=values[1]),
    ),
    Part("the current folder", os.getcwd, os.chdir),
    Part("the umask", _umask, os.umask),
    Part(ENVIRONMENT, lambda: dict(os.environ), _set_environment),
    Part("the locale", lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value)),
    Part("sys.stdout or sys.stderr", lambda: (sys.stdout, sys.stderr), _set_streams),
    Part("logging", _logging, _set_logging),
    Part("signal handlers", _handlers, _set_handlers),
    Part("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Part("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
)
"""What is set back; docs/models.md names it, and what is not."""


ABANDONED: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
"""Threads that nobody waits for any more, because a pass hangs in them."""


@contextlib.contextmanager
def set_back(parts: tuple[Part, ...] = PARTS) -> Iterator[list[str]]:
    """
    Set back afterwards what code has changed meanwhile; the list that is lent then names it.

    An abandoned thread sets back only what is its own: the process belongs to later work by then.

    >>> with set_back() as changed:
    ...     torch.set_default_dtype(torch.float64)
    >>> changed, torch.get_default_dtype()
    (["torch's default type"], torch.float32)
    """
    before, changed = [], list[str]()
    for part in parts:
        with contextlib.suppress(Exception):  # a folder that is gone, a locale that is unknown
            before.append((part, part.get()))
    with contextlib.ExitStack() as stack:
        if parts is PARTS:
            stack.enter_context(warnings.catch_warnings())
        try:
            yield changed
        finally:
            late = threading.current_thread() in ABANDONED
            if late:
                stack.pop_all()
            for part, value in before:
                if late and part not in OF_THREADS:
                    continue
                with contextlib.suppress(Exception):
                    if part.get() != value:
                        part.put(value)
                        changed.append(part.name)


OWN = ("sweep", "ahead", "trial", "calling ")
"""How threads of this package are called."""


def threads() -> set[threading.Thread]:
    """Return the threads of others that run now."""
    return {
        each for each in threading.enumerate()
        if not each.name.startswith(OWN) and not type(each).__module__.startswith("tqdm")
    }  # fmt: skip


def left_behind(before: set[threading.Thread]) -> str:
    """Return a sentence on the threads that have begun since and still run; none where there are none."""
    names = sorted(each.name for each in threads() - before)
    return (
        f"left {len(names)} thread(s) running ({', '.join(names)[:200]}); end them, or a run may not end"
        if names
        else ""
    )
