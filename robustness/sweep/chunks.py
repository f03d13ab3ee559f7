"""The work of a sweep: chunks of its images in threads side by side, each told as soon as it is finished."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from robustness.classifiers import time_limit
from robustness.classifiers.modules import channels_last, restored_afterwards
from robustness.data.images import Images
from robustness.decisions import Filtering
from robustness.perturbations import Step
from robustness.perturbations import strength as strengths_
from robustness.sweep import batching, trials
from robustness.sweep.batch import SweepBatches
from robustness.sweep.batching import Progress
from robustness.sweep.chunk_result import ChunkCache, ChunkResult
from robustness.sweep.recorder import OutcomeRecorder
from robustness.util.rng import CHUNK

Keep = Callable[[ChunkResult], None]


def count(images: Images) -> int:
    """Return the number of chunks."""
    return -(-len(images) // CHUNK)


def nowhere(part: ChunkResult) -> None:
    """Keep nothing."""


def new_recorder(cells: SweepBatches, *, probabilities: bool) -> OutcomeRecorder:
    """Return what the outcomes of these cells are written to."""
    return OutcomeRecorder(
        cells.images,
        tuple(strengths_.name(strength) for strength in cells.strengths),
        drawn=cells.drawn_strengths(),
        probabilities=probabilities,
        attack_probability=isinstance(cells.decision, Filtering),
        first=cells.first,
    )


def sweep_chunks(
    cells: SweepBatches,
    modules: nn.ModuleDict,
    outcomes: OutcomeRecorder,
    wanted: Sequence[int],
    threads: int,
    progress: Progress | None = None,
    keep: Keep = nowhere,
) -> dict[str, Any]:
    """
    Sweep the ``wanted`` chunks, and give each to ``keep`` when all its batches are done.

    What is returned, and told with each chunk, is how it was swept: the batches' size, the memory format, and
    whether the models say the same of the same images, whatever they are asked of before and beside.
    """
    with restored_afterwards(modules, cells.device) as lent:
        count_ = min(threads, batching.count(len(cells.images), cells.batch_size, wanted))
        laid_out = channels_last(lent, lambda: time_limit.call_with_watchdog(lambda: cells.works(lent)))
        tried = time_limit.call_with_watchdog(lambda: trials.tried(cells, lent, count_))
        told = {
            "batch_size": cells.batch_size,
            "memory_format": "channels last" if laid_out else "contiguous",
            "deterministic": tried.deterministic,
            "keeps_state": tried.keeps_state,
        }

        def finished(chunk: int, seconds: float) -> None:
            if (part := outcomes.part(chunk, {**told, "seconds": seconds})) is not None:
                keep(part)

        _run(
            cells,
            tried.models,
            wanted,
            lambda model, start, stop: cells.batch(model, start, stop, outcomes),
            finished,
            progress,
        )
    return told


def direction_chunks(
    cells: SweepBatches,
    modules: nn.ModuleDict,
    wanted: Sequence[int],
    threads: int,
    progress: Progress | None = None,
    keep: Keep = nowhere,
) -> None:
    """Make the signs of a step for the ``wanted`` chunks, and give each to ``keep`` when all its batches are done."""
    perturbation, images = cells.perturbation, cells.images
    assert isinstance(perturbation, Step)
    signs: dict[int, np.ndarray] = {}
    counted = {chunk: Counter[str]() for chunk in wanted}
    lock = threading.Lock()

    def work(model: nn.ModuleDict, start: int, stop: int) -> None:
        batch, chunk = cells.prepared(model, start, stop), start // CHUNK
        made = perturbation.direction(batch)[: stop - start].to(torch.int8).cpu().numpy()
        with lock:
            if chunk not in signs:  # only those that are under way are in memory
                signs[chunk] = np.empty((min(CHUNK, len(images) - chunk * CHUNK), *images.shape), np.int8)
            signs[chunk][start - chunk * CHUNK : stop - chunk * CHUNK] = made
            counted[chunk].update({what: int(marked.sum()) for what, marked in batch.take_marks().items()})

    def finished(chunk: int, seconds: float) -> None:
        told = {"batch_size": cells.batch_size, "counted": dict(counted[chunk])}
        keep(ChunkResult(cells.first + chunk, {"directions": signs.pop(chunk)}, told))

    with restored_afterwards(modules, cells.device) as lent:
        count_ = min(threads, batching.count(len(images), cells.batch_size, wanted))
        channels_last(lent, lambda: time_limit.call_with_watchdog(lambda: cells.works(lent)))
        tried = time_limit.call_with_watchdog(lambda: trials.tried(cells, lent, count_))
        _run(cells, tried.models, wanted, work, finished, progress)


def _run(
    cells: SweepBatches,
    models: list[nn.ModuleDict],
    wanted: Sequence[int],
    work: Callable[[nn.ModuleDict, int, int], None],
    finished: Callable[[int, float], None],
    progress: Progress | None,
) -> None:
    """Call ``work`` for every batch, and ``finished`` for every chunk with the seconds since the one before."""
    total, lock, last = len(cells.images), threading.Lock(), time.perf_counter()
    left = Counter(start // CHUNK for start, _ in batching.batch_ranges(total, cells.batch_size, wanted=wanted))

    def one(model: nn.ModuleDict, start: int, stop: int) -> None:
        nonlocal last
        work(model, start, stop)
        with lock:
            left[start // CHUNK] -= 1
            done = not left[start // CHUNK]
            now = time.perf_counter()
            if done:
                seconds, last = now - last, now
        if done:
            finished(start // CHUNK, seconds)

    batching.run_batches(one, models, total, cells.batch_size, cells.device, progress, cells.prefetch, wanted)


def load_finished_chunks(
    kept: ChunkCache | None, count: int, batch_size: int, take: Callable[[ChunkResult], None]
) -> list[int]:
    """Take over the finished chunks that were swept in batches of this size; give the numbers of the others."""
    wanted = []
    for chunk in range(count):
        part = None if kept is None else kept.get(chunk)
        if part is None or part.batch_size != batch_size:
            wanted.append(chunk)
        else:
            take(part)
    return wanted
