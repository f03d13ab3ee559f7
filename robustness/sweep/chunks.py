"""Run the chunks of a sweep in parallel threads; each result is stored as soon as its chunk is finished."""

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
from robustness.sweep.early_stop import EarlyStop
from robustness.sweep.recorder import ChunkCache, ChunkResult, OutcomeRecorder
from robustness.util.rng import CHUNK


def chunk_count(images: Images) -> int:
    """Return the number of chunks."""
    return -(-len(images) // CHUNK)


def new_recorder(batches: SweepBatches, *, probabilities: bool) -> OutcomeRecorder:
    """Return an empty recorder for a sweep."""
    return OutcomeRecorder(
        batches.images,
        tuple(strengths_.name(strength) for strength in batches.strengths),
        drawn=batches.drawn_strengths(),
        probabilities=probabilities,
        attack_probability=isinstance(batches.decision, Filtering),
        first=batches.first,
    )


def sweep_chunks(
    batches: SweepBatches,
    modules: nn.ModuleDict,
    recorder: OutcomeRecorder,
    chunks: Sequence[int],
    threads: int,
    progress: Progress | None = None,
    store: StoreChunk | None = None,
    early: EarlyStop | None = None,
) -> dict[str, Any]:
    """
    Sweep ``chunks``; pass each result to ``store`` as soon as all its batches are finished.

    With ``early``, the batches run in the order of the images, and none begins once all claims are decided.

    Return the metadata that each result gets: batch size, memory format, and whether the models are deterministic
    and free of state.
    """
    with restored_afterwards(modules, batches.device) as lent:
        is_channels_last, trial = prepare_models(batches, lent, chunks, threads)
        metadata = {
            "batch_size": batches.batch_size,
            "memory_format": "channels last" if is_channels_last else "contiguous",
            "deterministic": trial.deterministic,
            "keeps_state": trial.keeps_state,
        }

        def finished(chunk: int, seconds: float) -> None:
            result = recorder.chunk_result(chunk, {**metadata, "seconds": seconds})
            if store is not None and result is not None:
                store(result)

        _run(
            batches,
            trial.models,
            chunks,
            lambda model, start, stop: batches.run_batch(model, start, stop, recorder),
            finished,
            progress,
            early,
        )
    return metadata


def direction_chunks(
    batches: SweepBatches,
    modules: nn.ModuleDict,
    chunks: Sequence[int],
    threads: int,
    store: StoreChunk,
    progress: Progress | None = None,
) -> None:
    """Compute the sign directions of ``chunks``; pass each result to ``store`` when its batches are finished."""
    perturbation, images = batches.perturbation, batches.images
    assert isinstance(perturbation, Step)
    directions: dict[int, np.ndarray] = {}
    counts = {chunk: Counter[str]() for chunk in chunks}
    lock = threading.Lock()

    def run_batch(model: nn.ModuleDict, start: int, stop: int) -> None:
        batch, chunk = batches.attack_batch(model, start, stop), start // CHUNK
        signs = perturbation.direction(batch)[: stop - start].to(torch.int8).cpu().numpy()
        with lock:
            if chunk not in directions:  # only unfinished chunks are in memory
                directions[chunk] = np.empty((min(CHUNK, len(images) - chunk * CHUNK), *images.shape), np.int8)
            directions[chunk][start - chunk * CHUNK : stop - chunk * CHUNK] = signs
            counts[chunk].update({name: int(flags.sum()) for name, flags in batch.take_marks().items()})

    def finished(chunk: int, seconds: float) -> None:
        metadata = {"batch_size": batches.batch_size, "counted": dict(counts[chunk])}
        store(ChunkResult(batches.first + chunk, {"directions": directions.pop(chunk)}, metadata))

    with restored_afterwards(modules, batches.device) as lent:
        _, trial = prepare_models(batches, lent, chunks, threads)
        _run(batches, trial.models, chunks, run_batch, finished, progress)


def prepare_models(
    batches: SweepBatches, lent: nn.ModuleDict, chunks: Sequence[int] | None, threads: int
) -> tuple[bool, trials.TrialResult]:
    """Convert the models to channels-last if they work in it, and run the trial passes for ``chunks``, None for all."""
    workers = min(threads, batching.batch_count(len(batches.images), batches.batch_size, chunks))
    is_channels_last = channels_last(lent, lambda: time_limit.call_with_watchdog(lambda: batches.accepts(lent)))
    return is_channels_last, time_limit.call_with_watchdog(lambda: trials.run_trials(batches, lent, workers))


def _run(
    batches: SweepBatches,
    models: list[nn.ModuleDict],
    chunks: Sequence[int],
    run_batch: Callable[[nn.ModuleDict, int, int], None],
    finished: Callable[[int, float], None],
    progress: Progress | None,
    early: EarlyStop | None = None,
) -> None:
    """Call ``run_batch`` for every batch, and ``finished`` for every chunk with the seconds since the previous one."""
    total, lock, last = len(batches.images), threading.Lock(), time.perf_counter()
    remaining = Counter(start // CHUNK for start, _ in batching.batch_ranges(total, batches.batch_size, chunks=chunks))

    def run_one(model: nn.ModuleDict, start: int, stop: int) -> None:
        nonlocal last
        if early is not None and early.tried is not None:
            return
        run_batch(model, start, stop)
        if early is not None:
            early.add(start, stop)
        with lock:
            remaining[start // CHUNK] -= 1
            done = not remaining[start // CHUNK]
            now = time.perf_counter()
            if done:
                seconds, last = now - last, now
        if done:
            finished(start // CHUNK, seconds)

    batching.run_batches(
        run_one, models, total, batches.batch_size, batches.device, progress, batches.prefetch, chunks,
        in_order=early is not None,
    )  # fmt: skip


def load_finished_chunks(
    chunk_cache: ChunkCache | None, count: int, batch_size: int, restore: Callable[[ChunkResult], None]
) -> list[int]:
    """Restore the finished chunks that were swept with this batch size; return the numbers of the missing ones."""
    missing = []
    for chunk in range(count):
        result = None if chunk_cache is None else chunk_cache.get(chunk)
        if result is None or result.batch_size != batch_size:
            missing.append(chunk)
        else:
            restore(result)
    return missing


StoreChunk = Callable[[ChunkResult], None]
