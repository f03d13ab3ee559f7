"""How long the first batches of a sweep take here, how many passes they are, and how much memory they need."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from robustness.classifiers import time_limit
from robustness.classifiers.modules import channels_last, restored_afterwards, state_hash
from robustness.errors import SweepError
from robustness.metrics.evidence import OK
from robustness.planning import passes
from robustness.sweep import batching, chunks, trials
from robustness.sweep.batch import SweepBatches

ENOUGH = 0.5
"""Seconds of batches after which a sweep has been timed for long enough."""
ROUNDS = 8
"""The most rounds that are timed, each of one batch a thread: with the one that warms up no more than a sweep has."""
SLOW = 4.0
"""Seconds of the first round above which it is taken itself: warming up is a small part of it."""


class Timing(NamedTuple):
    """Seconds before the first batch and of each batch, passes of an image, and whether models worked side by side."""

    start: float
    batch: float
    passes: Counter[str]
    parallel: bool


def time_batches(
    cells: SweepBatches, modules: nn.ModuleDict, threads: int, clock: Callable[[], float], *, probabilities: bool
) -> Timing:
    """Time rounds of one batch a thread, as a sweep makes them; SweepError if code fails in them."""

    def round_() -> float:
        fresh = replace(cells)  # each row of a chunk is drawn once
        outcomes = chunks.new_recorder(fresh, probabilities=probabilities)
        began = clock()
        batching.run_batches(
            lambda model, start, stop: fresh.batch(model, start, stop, outcomes),
            models,
            len(fresh.images),
            fresh.batch_size,
            fresh.device,
            prefetch=fresh.prefetch,
            most=len(models),
        )
        took = clock() - began
        if outcomes.failed:
            raise SweepError(next(status for status in outcomes.evidence({}).status if status != OK))
        return took

    began = clock()
    with restored_afterwards(modules, cells.device) as lent:
        state_hash(lent["classifier"])
        channels_last(lent, lambda: time_limit.watched(lambda: cells.works(lent)))
        models = time_limit.watched(lambda: trials.tried(cells, lent, threads)).models
        start = clock() - began
        with passes.counted([each for model in models for each in model.items()]) as images:
            first = round_()
        times = [first] if first > SLOW else [round_()]
        rounds = min(ROUNDS, batching.count(len(cells.images), cells.batch_size) // len(models) - 1)
        while sum(times) < ENOUGH and len(times) < rounds:
            times.append(round_())
    per_image = Counter({name: round(count / len(models) / cells.batch_size) for name, count in images.items()})
    parallel = cells.perturbation.side_by_side and models[0] is not lent
    return Timing(start, sum(times) / len(times), per_image, parallel)


def peak_memory(work: Callable[[], object], device: str) -> int:
    """Do something, and return the most memory in bytes that this process, or its part of a GPU, held meanwhile."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return int(torch.cuda.max_memory_allocated(device))
    own = Path("/proc/self")
    if not own.is_dir():  # no Linux: the peak since the process began
        import resource

        work()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(OSError):  # else it is the peak since the process began
        (own / "clear_refs").write_text("5", encoding="ascii")
    work()
    status = (own / "status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
