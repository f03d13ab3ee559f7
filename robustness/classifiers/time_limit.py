"""A time limit for one forward or backward pass: a pass that hangs is abandoned, and the run continues."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from types import FrameType
from typing import TypeVar

import torch
from torch import nn

from robustness.classifiers import call_factory, process_state
from robustness.errors import ModelError

T = TypeVar("T")

# The variable with the seconds that a pass over one batch may take, and their default.
VARIABLE, DEFAULT_SECONDS = "ROBUSTNESS_FORWARD_SECONDS", 600.0
# Seconds between two checks.
POLL_SECONDS = 5.0
# Prefixes of the names of threads that run models.
MODEL_THREADS = ("sweep", "trial", "watched")
# The code of a pass, forward or backward.
PASS_CODE = (nn.Module._call_impl.__code__, torch.autograd.grad.__code__)


class Watchdog:
    """Checks the stack of every thread that runs a model; a pass whose frame stays for too long hangs."""

    def __init__(self) -> None:
        self._limit = call_factory.seconds_from_environment(os.environ, VARIABLE, DEFAULT_SECONDS)
        self._since: dict[int, tuple[FrameType, float]] = {}
        self._earlier = {current for frame in sys._current_frames().values() if (current := _outermost_pass(frame))}
        self._last_notice = time.monotonic()

    @property
    def poll_seconds(self) -> float:
        """Seconds until the next check."""
        return min(POLL_SECONDS, self._limit / 4)

    def check(self) -> None:
        """Report long waits; ModelError if a pass exceeds the limit."""
        now, frames = time.monotonic(), sys._current_frames()
        previous, self._since = self._since, {}
        for thread in threading.enumerate():
            if not thread.name.startswith(MODEL_THREADS) or thread.ident is None:
                continue
            current = _outermost_pass(frames.get(thread.ident))
            if current is None or current in self._earlier:
                continue
            # The frame object itself is held, so that no later pass can get its address.
            last = previous.get(thread.ident)
            since = last[1] if last is not None and last[0] is current else now
            self._since[thread.ident] = current, since
            if now - since > self._limit:
                raise ModelError(
                    f"a pass of the model over one batch has not returned after {self._limit:g} seconds; does it wait "
                    f"for input, a download or a lock? It is abandoned; {VARIABLE} or --robustness-forward-seconds "
                    "set the limit"
                )
            if now - since > 30 and now - self._last_notice > 30:
                self._last_notice = now
                call_factory.notify(f"waiting for the model's pass over one batch: {now - since:.0f} s")


def _outermost_pass(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the outermost pass on a stack, or None."""
    outermost = None
    while frame is not None:
        outermost = frame if frame.f_code in PASS_CODE else outermost
        frame = frame.f_back
    return outermost


def call_with_watchdog(call: Callable[[], T]) -> T:
    """
    Return the result of a call that runs in its own thread: a pass that hangs can only be abandoned.

    >>> call_with_watchdog(lambda: 3)
    3
    """
    future, watch = Future[T](), Watchdog()
    thread = threading.Thread(target=run_future, args=(future, call), name="watched", daemon=True)
    thread.start()
    try:
        while not wait_for([future], watch.poll_seconds).done:
            watch.check()
    except ModelError:
        process_state.ABANDONED_THREADS.add(thread)
        raise
    except KeyboardInterrupt:
        if not future.done() and thread.ident is not None:  # interrupt the call too, and let it clean up
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
            )
            thread.join(POLL_SECONDS)
        raise
    return future.result()


def run_future(future: Future[T], call: Callable[[], T]) -> None:
    """Run a call and set its future's result or exception."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
