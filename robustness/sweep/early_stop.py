"""Stop a sweep once its claims are decided: the first batches, in the order of the images, that decide them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from robustness.metrics.evidence import Evidence
from robustness.sweep.recorder import OutcomeRecorder

Decided = Callable[[Evidence], bool]
"""Whether evidence of the first images (see `OutcomeRecorder.prefix`) decides every claim, whatever the others are."""


class EarlyStop:
    """
    The shortest beginning of the images that decides all claims.

    Batches run side by side and finish in any order. They are looked at in the order of the images, one more at a time,
    so the number of images does not depend on threads or timing; later batches that ran meanwhile are ignored.

    Args:
        decided: Whether the first images decide all claims.
        recorder: The recorder of the sweep.
    """

    def __init__(self, decided: Decided, recorder: OutcomeRecorder) -> None:
        self._decided, self._recorder = decided, recorder
        self._finished: dict[int, int] = {}
        self._next = 0
        self._lock = threading.Lock()
        self.tried: int | None = None
        """The number of images that decided all claims; None while they are open."""

    def add(self, start: int, stop: int) -> None:
        """Add a finished batch or chunk, and look whether the images up to the first unfinished one decide."""
        with self._lock:
            self._finished[start] = stop
            while self.tried is None and self._next in self._finished:
                self._next = self._finished.pop(self._next)
                if self._next < len(self._recorder.images) and self._decided(self._recorder.prefix(self._next)):
                    self.tried = self._next
