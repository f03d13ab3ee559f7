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
    DAMAGE = 10
    SEARCH = 11


def generator(seed: int, purpose: Purpose, chunk: int = 0, step: int = 0) -> np.random.Generator:
    """
    Return NumPy's Philox generator for one chunk of one purpose, and for one ``step`` of consecutive draws.

    Philox is counter-based and has the same bits on every machine; torch.randn has not.

    >>> generator(0, Purpose.NOISE, chunk=2).integers(0, 100, 3).tolist()
    [83, 79, 88]
    """
    if not 0 <= seed < 2**32:  # a longer seed would run into the words of purpose and chunk
        raise ValueError(f"`seed` must lie in [0, 2**32), got {seed}; use a smaller one")
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, int(purpose), chunk, *([step] if step else [])]))
    )


class ChunkedDraws:
    """
    Rows of chunk-wise draws: drawn in the chunk's order when first needed, and released when returned.

    ``begin(chunk)`` returns a function that draws the next rows of a chunk; in parts they are the same as at once.
    Threads may request any rows in any order; only skipped rows stay in memory.
    """

    def __init__(self, begin: Callable[[int], Callable[[int], np.ndarray]], total: int) -> None:
        self._begin = begin
        self._total = total
        self._lock = threading.Lock()
        self._chunks: dict[int, _Chunk] = {}

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop`` of one chunk; each row is requested once."""
        number, offset = divmod(start, CHUNK)
        with self._lock:
            if number not in self._chunks:
                size = min(CHUNK, self._total - number * CHUNK)
                self._chunks[number] = _Chunk(self._begin(number), size)
            chunk = self._chunks[number]
        with chunk.lock:
            rows = chunk.rows(offset, offset + stop - start)
            if not chunk.left:
                with self._lock:
                    del self._chunks[number]
        return rows


class _Chunk:
    """The rows of one chunk: the number drawn, and the rows that are not yet requested."""

    def __init__(self, draw: Callable[[int], np.ndarray], size: int) -> None:
        self.lock = threading.Lock()
        self.left = size
        self._draw = draw
        self._drawn = 0
        self._skipped: list[tuple[int, np.ndarray]] = []

    def rows(self, start: int, stop: int) -> np.ndarray:
        self.left -= stop - start
        found = []
        if start < self._drawn:
            found = [self._taken(start, min(stop, self._drawn))]
        elif start > self._drawn:
            self._skipped.append((self._drawn, self._draw(start - self._drawn)))
        if stop > self._drawn:
            found.append(self._draw(stop - max(start, self._drawn)))
            self._drawn = stop
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _taken(self, start: int, stop: int) -> np.ndarray:
        """Remove rows from the skipped ones; only the rows before and after them stay in memory."""
        taken, kept = [], []
        for first, rows in self._skipped:
            low, high = max(start - first, 0), min(stop - first, len(rows))
            if low >= high:
                kept.append((first, rows))
                continue
            taken.append(rows[low:high])
            kept += [(first + at, part.copy()) for at, part in ((0, rows[:low]), (high, rows[high:])) if len(part)]
        self._skipped = kept
        return np.concatenate(taken)
