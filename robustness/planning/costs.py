"""The cost of sweeps: passes, bytes of evidence, and time, extrapolated from timed batches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from robustness.util.rng import CHUNK

HEADER = 4096
"""Bytes of an evidence file besides its arrays (provenance, checksum, names), rounded up."""


@dataclass(frozen=True)
class Cost:
    """
    The cost of one sweep.

    ``forward`` and ``backward`` are passes per image, over all strengths and models; ``start`` is seconds before the
    first batch, ``batch`` seconds of one batch in one of the parallel threads.
    """

    label: str
    images: int
    strengths: int
    forward: int
    backward: int
    evidence: int
    """Bytes."""
    batch_size: int
    batches: int
    start: float
    batch: float
    parallel: bool = True
    """Whether several threads can work on it."""

    def seconds(self, threads: int) -> float:
        """Return the seconds that one process with this many threads takes."""
        return self.start + self._rounds(self.batches, threads) * self.batch

    def chunks(self, threads: int) -> list[float]:
        """Return the seconds of each chunk of images, on running workers."""
        count = math.ceil(self.images / CHUNK)
        return [self._rounds(self.batches / max(1, count), threads) * self.batch] * count

    def _rounds(self, batches: float, threads: int) -> int:
        return math.ceil(batches / (threads if self.parallel else 1))


@dataclass(frozen=True)
class Plan:
    """The costs of missing sweeps, and the names of those in the store."""

    costs: tuple[Cost, ...] = ()
    stored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Notes on what is not counted."""
    memory: int = 0
    """Measured peak memory of one worker, in bytes."""

    def __add__(self, other: Plan) -> Plan:
        """Add a plan of other models: memory is the maximum, because a worker handles one model at a time."""
        return Plan(
            self.costs + other.costs,
            self.stored + other.stored,
            tuple(dict.fromkeys(self.notes + other.notes)),
            max(self.memory, other.memory),
        )

    @property
    def evidence(self) -> int:
        """Bytes of evidence to be written."""
        return sum(cost.evidence for cost in self.costs)

    def passes(self, kind: str) -> int:
        """Return the total of ``forward`` or ``backward`` passes of images."""
        return sum(cost.images * getattr(cost, kind) for cost in self.costs)

    def seconds(self, engine: str, workers: int, threads: int) -> float:
        """Return the seconds that workers take; the local engine's get whole sweeps, Ray's get chunks."""
        if engine == "local":
            return makespan([cost.seconds(threads) for cost in self.costs], workers)
        return makespan([seconds for cost in self.costs for seconds in cost.chunks(threads)], workers)


def makespan(seconds: Iterable[float], workers: int) -> float:
    """
    Return when the last worker finishes, if each takes the next piece of work when it is free.

    >>> makespan([3, 1, 1, 1], 2), makespan([2.0, 2.0], 1)
    (3.0, 4.0)
    """
    busy = [0.0] * workers
    for piece in seconds:
        busy[busy.index(min(busy))] += piece
    return max(busy)


def evidence_bytes(
    images: int,
    strengths: int,
    classes: int,
    *,
    probabilities: bool = False,
    drawn: bool = False,
    detects: bool = False,
) -> int:
    """
    Return the size of an evidence file: five four-byte numbers per image and strength, and one label per image.

    ``probabilities`` of every class, ``drawn`` strengths and, of a model that ``detects``, probabilities of attack come
    on top.

    >>> evidence_bytes(50_000, 50, 1000)
    50204096
    """
    numbers = 5 + classes * probabilities + drawn + detects
    return 4 * images * (strengths * numbers + 1) + HEADER
