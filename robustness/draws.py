"""Random numbers that depend on the seed, the purpose and the image's position, and on nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import IntEnum

import numpy as np

CHUNK = 1000
"""Images a chunk. Part of what a seed means: another number here is another draw."""


class Purpose(IntEnum):
    """What a draw is for; two purposes never share random numbers. Numbers are never reused."""

    NOISE = 1
    STRENGTH = 2
    SPLIT = 3
    ORDER = 4
    DESCRIBED = 5
    DOUBTED = 6
    TRAINING = 7
    VALIDATION = 8
    EXAMPLES = 9


def generator(seed: int, purpose: Purpose, chunk: int = 0) -> np.random.Generator:
    """
    Give NumPy's Philox for one chunk of one purpose.

    Philox is counter-based and has the same bits on every machine; torch.randn has not.

    >>> generator(0, Purpose.NOISE, chunk=2).integers(0, 100, 3).tolist()
    [83, 79, 88]
    """
    if not 0 <= seed < 2**32:  # a longer seed would run into the words of purpose and chunk
        raise ValueError(f"`seed` must lie in [0, 2**32), got {seed}; take a smaller one")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, int(purpose), chunk])))


class ChunkedDraws:
    """
    Rows of chunk-wise draws, made when the first batch of a chunk needs them and dropped after the last.

    Threads may ask for any rows in any order; the memory held is that of the chunks at work.
    """

    def __init__(self, draw: Callable[[int, int], np.ndarray], total: int) -> None:
        self._draw = draw
        self._total = total
        self._lock = threading.Lock()
        self._chunk_locks: dict[int, threading.Lock] = {}
        self._chunks: dict[int, tuple[np.ndarray, int]] = {}

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Give rows ``start`` to ``stop`` of one chunk; each row is asked for once."""
        chunk, offset = divmod(start, CHUNK)
        size = min(CHUNK, self._total - chunk * CHUNK)
        with self._lock:
            lock = self._chunk_locks.setdefault(chunk, threading.Lock())
        with lock:
            values, left = self._chunks.get(chunk) or (self._draw(chunk, size), size)
            left -= stop - start
            if left > 0:
                self._chunks[chunk] = (values, left)
            else:
                self._chunks.pop(chunk, None)
        return values[offset : offset + stop - start]
