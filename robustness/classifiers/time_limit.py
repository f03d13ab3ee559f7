"""A limit to how long one pass of a model may take: one that hangs is left behind, and the run goes on."""

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

VARIABLE, LIMIT = "ROBUSTNESS_FORWARD_SECONDS", 600.0
"""Names the seconds that one pass of a model over one batch may take; what holds where it says nothing."""
GLANCE = 5.0
"""Seconds between two looks at what threads are at."""
OWN = ("sweep", "trial", "watched")
"""How threads are called in which models run."""
PASSES = (nn.Module._call_impl.__code__, torch.autograd.grad.__code__)
"""What a pass is, forward or backward."""


class Watch:
    """Looks at threads now and then; a pass that is the same one as long ago takes too long."""

    def __init__(self) -> None:
        self._limit = call_factory.seconds(os.environ, VARIABLE, LIMIT)
        self._since: dict[int, tuple[FrameType, float]] = {}
        self._earlier = {found for frame in sys._current_frames().values() if (found := _pass(frame))}
        self._told = time.monotonic()

    @property
    def glance(self) -> float:
        """Seconds until the next look."""
        return min(GLANCE, self._limit / 4)

    def look(self) -> None:
        """Say how long is waited for; ModelError where a pass has gone on for too long."""
        now, frames = time.monotonic(), sys._current_frames()
        before, self._since = self._since, {}
        for thread in threading.enumerate():
            if not thread.name.startswith(OWN) or thread.ident is None:
                continue
            found = _pass(frames.get(thread.ident))
            if found is None or found in self._earlier:
                continue
            # Held by its frame itself: another pass cannot be taken for it.
            last = before.get(thread.ident)
            since = last[1] if last is not None and last[0] is found else now
            self._since[thread.ident] = found, since
            if now - since > self._limit:
                raise ModelError(
                    f"a pass of the model over one batch has not come back after {self._limit:g} seconds; does it wait "
                    f"for input, a download or a lock? It is left behind; {VARIABLE} or --robustness-forward-seconds "
                    "allow for more"
                )
            if now - since > 30 and now - self._told > 30:
                self._told = now
                call_factory.say(f"waiting for the model's pass over one batch: {now - since:.0f} s")


def _pass(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the outermost pass that a thread is at."""
    found = None
    while frame is not None:
        found = frame if frame.f_code in PASSES else found
        frame = frame.f_back
    return found


def watched(call: Callable[[], T]) -> T:
    """
    Return what a call returns that is made in a thread of its own, for a pass that hangs can only be left behind.

    >>> watched(lambda: 3)
    3
    """
    future, watch = Future[T](), Watch()
    thread = threading.Thread(target=serve, args=(future, call), name="watched", daemon=True)
    thread.start()
    try:
        while not wait_for([future], watch.glance).done:
            watch.look()
    except ModelError:
        process_state.ABANDONED.add(thread)
        raise
    except KeyboardInterrupt:
        if not future.done() and thread.ident is not None:  # it is told, too, and has a moment for it
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
            )
            thread.join(GLANCE)
        raise
    return future.result()


def serve(future: Future[T], call: Callable[[], T]) -> None:
    """Make a call, and put what comes of it into its future."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
