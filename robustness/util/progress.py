"""Progress of long work, shown on standard error after a few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

DELAY = 2.0
"""Seconds after which something is shown; a screen of bars for what takes a moment helps nobody."""


@contextmanager
def progress_bar(
    what: str, aside: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Iterator[Callable[[int, int], None]]:
    """
    Return a function of (done, total) that draws a bar, or in a log prints a line from time to time.

    ``aside`` is a context for each output, in which pytest's capture is suspended.
    """
    started = last = time.monotonic()
    shown: Any = None

    def show(done: int, total: int) -> None:
        nonlocal last, shown
        now = time.monotonic()
        moving = sys.stderr.isatty()
        if now - started < DELAY or now - last < (0.5 if moving else 15):
            return
        last = now
        with aside():
            if not moving:
                sys.stderr.write(f"{what}: {done}/{total} ({now - started:.0f} s)\n")
                return
            if shown is None:
                from tqdm import tqdm

                shown = tqdm(total=total, desc=what, file=sys.stderr, leave=False, initial=0)
            shown.n = done
            shown.refresh()

    try:
        yield show
    finally:
        if shown is not None:
            with aside():
                shown.close()
