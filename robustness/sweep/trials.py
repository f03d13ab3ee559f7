"""What models are asked before a sweep: whether they say the same again, and whether copies may work at once."""

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

KEEPS_STATE = "keeps state between calls"
"""What a model is called whose answers depend on other calls than the one."""
REMEMBERS = "its answers depend on the images that it was asked of before"
SHARES = (
    "copies of it give other answers than it does itself: something outside of the copies (a hook that holds the "
    "original model, a global dictionary, a cache) is written in forward and read again"
)
PATIENCE = 10.0
"""
Seconds that one of two threads waits for the other at a line; a lock around a forward would hold both for ever. Much
less is too little on a loaded machine, and threads that are no longer in step hide what they share.
"""
LINES = 5_000
"""Lines that two threads go through in step."""

_shown = WeakKeyDictionary[nn.Module, dict[tuple[bool, int], str]]()
"""What two copies in step have shown of a classifier, with gradients or without, and beside which source."""


class Tried(NamedTuple):
    """The models that work side by side, one a thread, and what was seen of them."""

    models: list[nn.ModuleDict]
    deterministic: bool
    keeps_state: str
    """Why a model's answers depend on other calls; empty where they do not."""


def tried(cells: SweepBatches, lent: nn.ModuleDict, count: int) -> Tried:
    """
    Return up to ``count`` models that may run at once: copies, or the lent ones alone where copies answer otherwise.

    The models are asked of some images, of others, and of the first again; a copy that has seen nothing is asked of
    the others first, and two copies at once, of different images: what a model keeps of its last images anywhere then
    does not fit. What this leaves on the models is taken away.
    """
    images, others = cells.some()
    copies = replicas(lent, max(2, count))
    ask = partial(cells.probed, gradient=cells.differentiates)
    with single_threaded(), restored_afterwards(lent, cells.device):
        if (first := cells.probed(lent, images)) is None:  # it raises: the sweep will say so
            return Tried(copies[:count], True, "")
        again, due = cells.probed(lent, images), [ask(lent, others)]
        after = cells.probed(lent, images)
        due.append(ask(lent, images))
    deterministic, remembers = same(first, again), not same(again, after)
    if copies[0] is lent or not deterministic:
        return Tried([lent], deterministic, REMEMBERS if deterministic and remembers else "")
    shown = _shown.setdefault(lent["classifier"], {})
    key = cells.differentiates, id(lent["source"]) if "source" in lent else 0
    if not shown.get(key):
        with restored_afterwards(nn.ModuleList(copies), cells.device):
            questions = [partial(ask, copy, (others, images)[i % 2]) for i, copy in enumerate(copies)]
            said = at_once(questions[:2], in_step=key not in shown) + at_once(questions[2:])
        shown[key] = "" if all(same(answer, due[i % 2]) for i, answer in enumerate(said)) else SHARES
    return Tried(copies[:count] if not shown[key] else [lent], deterministic, REMEMBERS if remembers else shown[key])


def same(first: Tensor | None, second: Tensor | None) -> bool:
    """Return whether two answers are the same, bit for bit; None is that of a model that raised."""
    if first is None or second is None:
        return first is second
    return first.shape == second.shape and torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)


def at_once(calls: Sequence[Callable[[], T]], *, in_step: bool = False) -> list[T]:
    """
    Return what some calls return that are made at once, each in a thread of its own with one torch thread.

    ``in_step`` nobody begins a line of Python outside of torch and the standard library, or comes back from a module,
    before all others are there: where one writes what another reads, that shows each time and not once in a thousand.

    >>> at_once([lambda: 1, lambda: 2], in_step=True)
    [1, 2]
    """
    if threading.current_thread() in process_state.ABANDONED_THREADS:  # it would disturb what runs now
        raise ModelError("nobody waits for these calls any more")
    found: dict[int, T] = {}
    step = Step(len(calls))
    collects = gc.isenabled()

    def run(i: int) -> None:
        torch.set_num_threads(1)
        if in_step:
            sys.settrace(step.begin)
        try:
            found[i] = calls[i]()
        finally:
            sys.settrace(None)
            step.over()

    threads = [threading.Thread(target=run, args=(i,), name="trial", daemon=True) for i in range(len(calls))]
    if in_step:  # what listens to collections (`gc.callbacks`) would run its lines in one of the threads alone
        gc.disable()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        if collects and threading.current_thread() not in process_state.ABANDONED_THREADS:
            gc.enable()
    return [found[i] for i in range(len(calls))]


class Step:
    """Trace functions (`sys.settrace`) with which threads go line by line together, until one of them is done."""

    def __init__(self, threads: int) -> None:
        self._barrier = threading.Barrier(threads) if threads else None
        self._left = LINES * threads

    def over(self) -> None:
        """Let the others go on alone."""
        if self._barrier is not None:
            self._barrier.abort()

    def begin(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        """Follow a frame that begins, if it is a module's call or lies outside of torch, this package and Python's."""
        if frame.f_code is _CALL:
            frame.f_trace_lines = False
            return self._at
        file = frame.f_code.co_filename
        return None if file.startswith(_OWN) or (file.startswith(_PYTHON) and _INSTALLED not in file) else self._at

    def _at(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        self._left -= 1
        if event == "exception" or self._barrier is None:
            return self._at
        if self._left < 0 or self._barrier.broken:
            sys.settrace(None)
            return None
        try:
            self._barrier.wait(PATIENCE)
        except threading.BrokenBarrierError:
            sys.settrace(None)
        return self._at


_CALL = nn.Module._call_impl.__code__
_OWN = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))
# A warning that is given once, say, has its lines in the first thread alone.
_PYTHON = (f"{Path(threading.__file__).parent}{os.sep}", "<frozen ")
_INSTALLED = f"-packages{os.sep}"
"""Ends the folder of what is installed (site-packages, dist-packages), which may lie in that of Python."""
