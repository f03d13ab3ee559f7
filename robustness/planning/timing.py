"""Measures time, passes and memory of a sweep's first batches."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from robustness.classifiers.modules import restored_afterwards, state_hash
from robustness.errors import SweepError
from robustness.metrics.evidence import OK
from robustness.planning import passes
from robustness.sweep import batching, chunks
from robustness.sweep.batch import SweepBatches

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
        with passes.counted([each for model in models for each in model.items()]) as images:
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
