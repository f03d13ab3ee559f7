"""What sweeps cost: passes, bytes of evidence, and time; arithmetic on what one batch costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustness.decisions import Filtering
from robustness.perturbations.strength import StrengthDistribution
from robustness.util.rng import CHUNK
from robustness.workspace.workspace import strengths_without_zero

if TYPE_CHECKING:
    from robustness.cards import Card

HEADER = 4096
"""Bytes of an evidence file beside its arrays: provenance, checksum, names; most are a little smaller."""


@dataclass(frozen=True)
class Cost:
    """
    What one sweep costs: ``forward`` and ``backward`` passes an image, over all its strengths and models.

    ``start`` seconds come before its first batch, ``batch`` seconds are one batch's in one of the threads that work
    side by side.
    """

    label: str
    images: int
    strengths: int
    forward: int
    backward: int
    evidence: int
    """Bytes."""
    batches: int
    start: float
    batch: float
    side_by_side: bool = True
    """Whether several threads may work on it."""

    def seconds(self, threads: int) -> float:
        """Return how long it takes one process of so many threads."""
        return self.start + math.ceil(self.batches / (threads if self.side_by_side else 1)) * self.batch


@dataclass(frozen=True)
class Plan:
    """What is to be made, what is there already, and what comes first and is not counted."""

    made: tuple[Cost, ...]
    stored: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    """Sentences: trainings and fittings that a sweep waits for."""
    memory: int = 0
    """Bytes that one worker holds while it works, the largest of all cards; measured."""
    inputs: int = 0
    """Bytes of weights and images that a worker on another machine is sent, each once."""

    @property
    def evidence(self) -> int:
        """Bytes of evidence that will be written."""
        return sum(cost.evidence for cost in self.made)

    def passes(self, kind: str) -> int:
        """Return the images that go ``forward`` or ``backward`` through a model, in all."""
        return sum(cost.images * getattr(cost, kind) for cost in self.made)

    def seconds(self, engine: str, workers: int, threads: int) -> float:
        """
        Return how long it takes: sweeps are dealt out whole to the plain engine's workers, in chunks to Ray's.

        ``threads`` are those of one worker.
        """
        if engine == "plain":
            return makespan([cost.seconds(threads) for cost in self.made], workers)
        return makespan(self._chunks(threads), workers)

    def _chunks(self, threads: int) -> list[float]:
        """Return the seconds of every chunk of images, in so many threads."""
        found = []
        for cost in self.made:
            count = math.ceil(cost.images / CHUNK)
            rounds = math.ceil(cost.batches / count / (threads if cost.side_by_side else 1))
            found += [rounds * cost.batch] * count
        return found


def total(plans: Sequence[Plan]) -> Plan:
    """Add up the plans of several cards: the memory is the largest, for each worker works on one at a time."""
    return Plan(
        tuple(cost for plan in plans for cost in plan.made),
        tuple(label for plan in plans for label in plan.stored),
        tuple(dict.fromkeys(said for plan in plans for said in plan.first)),
        max((plan.memory for plan in plans), default=0),
        sum(plan.inputs for plan in plans),
    )


def makespan(seconds: Iterable[float], workers: int) -> float:
    """
    Return when the last worker is done, where each takes the next piece of work once it is free.

    >>> makespan([3, 1, 1, 1], 2), makespan([2.0, 2.0], 1)
    (3.0, 4.0)
    """
    busy = [0.0] * workers
    for piece in seconds:
        i = busy.index(min(busy))
        busy[i] += piece
    return max(busy)


def evidence_bytes(
    images: int, strengths: int, classes: int, *, probabilities: bool = False, drawn: bool = False, told: bool = False
) -> int:
    """
    Return the size of an evidence file: five numbers of four bytes an image and strength, and a label an image.

    ``probabilities`` of every class, ``drawn`` strengths and ``told`` probabilities of attack come on top.

    >>> evidence_bytes(50_000, 50, 1000)
    50204096
    """
    numbers = 5 + classes * probabilities + drawn + told
    return 4 * images * (strengths * numbers + 1) + HEADER


def of_sweep(card: Card, sweep: str, images: int, classes: int) -> int:
    """Return the size of the evidence of one of a card's sweeps."""
    strengths = strengths_without_zero(card, sweep)
    return evidence_bytes(
        images,
        len(strengths),
        classes,
        probabilities=card.file.probabilities,
        drawn=any(isinstance(strength, StrengthDistribution) for strength in strengths),
        told=isinstance(card.file.model.decision, Filtering),
    )
