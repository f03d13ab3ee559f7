"""Trial passes before a sweep: are the models deterministic, and may copies of them run in parallel?"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from robustness.classifiers import process_state
from robustness.classifiers.modules import replicas, restored_afterwards
from robustness.errors import ModelError
from robustness.sweep.batch import SweepBatches
from robustness.sweep.batching import single_threaded

T = TypeVar("T")

# The doubt about a model whose outputs depend on other calls.
KEEPS_STATE = "keeps state between calls"
REMEMBERS = "its outputs depend on the images of earlier calls"
SHARES_STATE = (
    "its copies return other outputs than it does: its forward writes and reads something outside of the copies (a "
    "hook that holds the original model, a global dictionary, a cache)"
)
# Seconds that one of two threads waits for the other at a line, because a lock around a forward would block both for
# ever. Much less is too short on a loaded machine, and threads that are no longer in lockstep hide what they share.
LINE_TIMEOUT = 10.0
# Lines that two threads run in lockstep.
MAX_LINES = 5_000

# The result of running two copies in lockstep, per classifier, use of gradients, and source model.
_shared_state = WeakKeyDictionary[nn.Module, dict[tuple[bool, int], str]]()


class TrialResult(NamedTuple):
    """The models to run in parallel, one per thread, and what the trial passes showed."""

    models: list[nn.ModuleDict]
    deterministic: bool
    keeps_state: str
    """Why a model's outputs depend on other calls; empty if they do not."""


def run_trials(batches: SweepBatches, lent: nn.ModuleDict, count: int) -> TrialResult:
    """
    Return up to ``count`` models that may run in parallel: copies, or the originals alone if copies differ from them.

    The models process some images, then others, then the first again; a fresh copy processes the others first, and
    two copies run together on different images: any state of earlier images then shows in the outputs. The models
    are restored afterwards.
    """
    images, others = batches.trial_images()
    copies = replicas(lent, max(2, count))
    probe = partial(batches.trial_forward, gradient=batches.needs_gradients)
    with single_threaded(), restored_afterwards(lent, batches.device):
        if (first := batches.trial_forward(lent, images)) is None:  # it raises: the sweep will record it
            return TrialResult(copies[:count], True, "")
        again, expected = batches.trial_forward(lent, images), [probe(lent, others)]
        after = batches.trial_forward(lent, images)
        expected.append(probe(lent, images))
    deterministic, remembers = is_same(first, again), not is_same(again, after)
    if copies[0] is lent or not deterministic:
        return TrialResult([lent], deterministic, REMEMBERS if deterministic and remembers else "")
    reasons = _shared_state.setdefault(lent["classifier"], {})
    key = batches.needs_gradients, id(lent["source"]) if "source" in lent else 0
    if not reasons.get(key):
        with restored_afterwards(nn.ModuleList(copies), batches.device):
            calls = [partial(probe, copy, (others, images)[i % 2]) for i, copy in enumerate(copies)]
            outputs = run_together(calls[:2], in_step=key not in reasons) + run_together(calls[2:])
        reasons[key] = "" if all(is_same(output, expected[i % 2]) for i, output in enumerate(outputs)) else SHARES_STATE
    return TrialResult(
        copies[:count] if not reasons[key] else [lent], deterministic, REMEMBERS if remembers else reasons[key]
    )


def is_same(first: Tensor | None, second: Tensor | None) -> bool:
    """Return whether two outputs are equal bit for bit; None is the output of a model that raised."""
    if first is None or second is None:
        return first is second
    return first.shape == second.shape and torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)


def run_together(calls: Sequence[Callable[[], T]], *, in_step: bool = False) -> list[T]:
    """
    Return the results of calls that run together, each in its own thread with one torch thread.

    With ``in_step``, no thread begins a line of Python outside torch and the standard library, or returns from a
    module, before all others have reached it: if one writes what another reads, it shows every time, not once in a
    thousand.

    >>> run_together([lambda: 1, lambda: 2], in_step=True)
    [1, 2]
    """
    if threading.current_thread() in process_state.ABANDONED_THREADS:  # it would disturb later work
        raise ModelError("the thread of these calls was abandoned")
    results: dict[int, T] = {}
    lockstep = LockStep(len(calls))
    gc_enabled = gc.isenabled()

    def run(i: int) -> None:
        torch.set_num_threads(1)
        if in_step:
            sys.settrace(lockstep.begin)
        try:
            results[i] = calls[i]()
        finally:
            sys.settrace(None)
            lockstep.end()

    threads = [threading.Thread(target=run, args=(i,), name="trial", daemon=True) for i in range(len(calls))]
    if in_step:  # `gc.callbacks` would run their lines in only one of the threads
        gc.disable()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        if gc_enabled and threading.current_thread() not in process_state.ABANDONED_THREADS:
            gc.enable()
    return [results[i] for i in range(len(calls))]


class LockStep:
    """Trace functions (`sys.settrace`) that run threads line by line together, until one of them is finished."""

    def __init__(self, threads: int) -> None:
        self._barrier = threading.Barrier(threads) if threads else None
        self._remaining = MAX_LINES * threads

    def end(self) -> None:
        """Let the other threads continue alone."""
        if self._barrier is not None:
            self._barrier.abort()

    def begin(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        """Trace a new frame if it is a module's call, or outside torch, this package and Python's library."""
        if frame.f_code is _CALL:
            frame.f_trace_lines = False
            return self._wait
        file = frame.f_code.co_filename
        return None if file.startswith(_OWN) or (file.startswith(_PYTHON) and _INSTALLED not in file) else self._wait

    def _wait(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        self._remaining -= 1
        if event == "exception" or self._barrier is None:
            return self._wait
        if self._remaining < 0 or self._barrier.broken:
            sys.settrace(None)
            return None
        try:
            self._barrier.wait(LINE_TIMEOUT)
        except threading.BrokenBarrierError:
            sys.settrace(None)
        return self._wait


_CALL = nn.Module._call_impl.__code__
_OWN = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))
# Their lines may differ between threads: a warning that is shown once, for example, runs only in the first one.
_PYTHON = (f"{Path(threading.__file__).parent}{os.sep}", "<frozen ")
# The end of folders of installed packages (site-packages, dist-packages), which may be inside Python's own folder.
_INSTALLED = f"-packages{os.sep}"
