"""Progress of long work, shown on standard error after a few seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

DELAY = 2.0
"""Seconds after which something is shown; a screen of bars for what takes a moment helps nobody."""
BETWEEN_BARS, BETWEEN_LINES = 0.5, 15.0
"""Seconds between two drawings of a bar, and between two lines."""


def is_drawable() -> bool:
    """Return whether standard error is a terminal with a known width, in which a bar can be drawn."""
    try:
        return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


@contextmanager
def progress_bar(
    what: str, aside: Callable[[], AbstractContextManager[Any]] = nullcontext, moving: bool | None = None
) -> Iterator[Callable[[int, int], None]]:
    """
    Return a function of (done, total) that draws a bar, or prints a line from time to time.

    ``aside`` is a context for each output, in which pytest's capture is suspended and a new line begins. ``moving``
    says whether a bar can be drawn: by default if standard error is a terminal.
    """
    started = last = time.monotonic()
    moving = is_drawable() if moving is None else moving
    shown: Any = None

    def show(done: int, total: int) -> None:
        nonlocal last, shown
        now = time.monotonic()
        if now - started < DELAY or now - last < (BETWEEN_BARS if moving else BETWEEN_LINES):
            return
        last = now
        with aside():
            if not moving:
                sys.stderr.write(f"{what}: {done}/{total} ({now - started:.0f} s)\n")
                return
            if shown is None:
                from tqdm import tqdm

                shown = tqdm(total=total, desc=what, file=sys.stderr, leave=False, initial=0)
                shown.start_t -= now - started  # else the rate is that of no time at all
            shown.n = done
            shown.refresh()

    try:
        yield show
    finally:
        if shown is not None:
            with aside():
                shown.close()
