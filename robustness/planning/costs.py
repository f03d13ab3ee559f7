"""The cost of sweeps: passes, bytes of evidence, and time, extrapolated from timed first batches."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from robustness.classifiers.modules import restored_afterwards, state_hash
from robustness.errors import SweepError
from robustness.metrics.evidence import OK
from robustness.sweep import batching, chunks
from robustness.sweep.batch import SweepBatches
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


def passes_per_image(modules: Mapping[str, nn.Module | None], sweep: Callable[..., Any]) -> Counter[str]:
    """
    Count the passes per image, by module and as "backward": those of four images minus those of two, halved.

    So the trials of the model cancel out. ``sweep(count, batch_size=2, threads=1)`` sweeps the first images.

    >>> import torch
    >>> class Twice(torch.nn.Linear):
    ...     def sweep(self, count, **_):
    ...         for _ in range(count + 1):  # two passes per image, and one trial of the model
    ...             _ = self(torch.zeros(2, 2))
    >>> model = Twice(2, 2)
    >>> passes_per_image({"forward": model}, model.sweep)
    Counter({'forward': 2})
    """
    counts = []
    for count in (4, 2):
        with count_passes((name, module) for name, module in modules.items() if module is not None) as images:
            sweep(count, batch_size=2, threads=1)
        counts.append(images)
    return Counter({name: round(images / 2) for name, images in (counts[0] - counts[1]).items()})


@contextmanager
def count_passes(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[Counter[str]]:
    """Count the images that pass forward through modules, by name, and "backward", in all threads."""
    images: Counter[str] = Counter()
    lock = threading.Lock()

    def count(name: str, number: int) -> None:
        with lock:
            images[name] += number

    def hook(name: str, output: Any) -> None:
        if not hasattr(output, "requires_grad"):  # no tensor: the sweep rejects it
            return
        count(name, len(output))
        if output.requires_grad:
            output.register_hook(lambda gradient: count("backward", len(gradient)))

    handles = [module.register_forward_hook(lambda _, __, output, n=name: hook(n, output)) for name, module in modules]
    try:
        yield images
    finally:
        for handle in handles:
            handle.remove()


ENOUGH = 0.5
"""Seconds for which a sweep is timed, if a round of one batch per thread takes less."""
ROUNDS = 8
"""Maximum timed rounds: hundreds of very short ones add no information."""
SLOW = 4.0
"""Seconds of the first round above which it counts: its warm-up is a small part."""


class Timing(NamedTuple):
    """Seconds before the first batch and per batch, passes per image, and whether models ran in parallel."""

    start: float
    batch: float
    passes: Counter[str]
    parallel: bool


def time_batches(
    cells: SweepBatches,
    modules: nn.ModuleDict,
    threads: int,
    batches: int,
    clock: Callable[[], float],
    *,
    probabilities: bool,
) -> Timing:
    """
    Time rounds of one batch per thread, as in a sweep with this many batches; SweepError if code fails.

    The first round is a warm-up. A sweep of at most two rounds is timed completely: its warm-up is part of the run, and
    a thread may idle in its second round.
    """

    def run(count: int) -> float:
        fresh = replace(cells)  # each row of a chunk is drawn once
        outcomes = chunks.new_recorder(fresh, probabilities=probabilities)

        def work(model: nn.ModuleDict, start: int, stop: int) -> None:
            fresh.run_batch(model, start, stop, outcomes)

        total, size, began = len(fresh.images), fresh.batch_size, clock()
        batching.run_batches(work, models, total, size, fresh.device, prefetch=fresh.prefetch, max_batches=count)
        took = clock() - began
        if outcomes.failed:
            raise SweepError(next(status for status in outcomes.evidence({}).status if status != OK))
        return took

    began = clock()
    with restored_afterwards(modules, cells.device) as lent:
        state_hash(lent["classifier"])
        models = chunks.prepare_models(cells, lent, None, threads)[1].models
        start, rounds = clock() - began, math.ceil(batches / len(models))
        count = batches if rounds <= 2 else len(models)
        with count_passes([each for model in models for each in model.items()]) as images:
            first = run(count)
        if rounds <= 2:
            batch = first / rounds
        elif first > SLOW:
            batch = first
        else:
            most = batching.batch_count(len(cells.images), cells.batch_size) // len(models)
            timed = max(1, min(ROUNDS, most, rounds - 1, int(ENOUGH / max(first, 1e-6))))
            batch = run(timed * len(models)) / timed
    per_image = Counter({name: round(number / count / cells.batch_size) for name, number in images.items()})
    return Timing(start, batch, per_image, cells.perturbation.side_by_side and models[0] is not lent)


def peak_memory(work: Callable[[], object], device: str) -> int:
    """Call a function, and return the peak memory in bytes of this process, or its part of a GPU, during the call."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return int(torch.cuda.max_memory_allocated(device))
    own = Path("/proc/self")
    if not own.is_dir():  # not Linux: the peak since the process started
        import resource

        work()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(OSError):  # otherwise it is the peak since the process started
        (own / "clear_refs").write_text("5", encoding="ascii")
    work()
    status = (own / "status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
