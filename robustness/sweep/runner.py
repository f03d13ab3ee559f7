"""Run a sweep: one classifier under one perturbation at many strengths. Compute directions for transfer attacks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import nn

from robustness.classifiers import precision
from robustness.classifiers.modules import has_convolutions, state_hash
from robustness.data.images import Images
from robustness.decisions import Argmax, Decision
from robustness.errors import SweepError
from robustness.metrics.evidence import SEMANTICS, Evidence
from robustness.perturbations import Clean, Perturbation, Step
from robustness.perturbations import strength as strengths_
from robustness.perturbations.strength import Strength, Unit
from robustness.sweep import batching, chunks, precision_check, trials
from robustness.sweep.batch import SweepBatches
from robustness.sweep.batching import Progress
from robustness.sweep.early_stop import Decided, EarlyStop
from robustness.sweep.recorder import ChunkCache, ChunkResult, OutcomeRecorder
from robustness.util import hardware
from robustness.util.rng import CHUNK

EARLY_PARTS = 6
"""Parts of the images between which a sweep on a CPU can stop: small batches are slow."""


def run_sweep(
    classifier: nn.Module,
    images: Images,
    perturbation: Perturbation,
    strengths: Sequence[Strength],
    *,
    unit: Unit = "default",
    seed: int = 0,
    device: str = "cpu",
    batch_size: int | None = None,
    threads: int | None = None,
    decision: Decision | None = None,
    source: nn.Module | None = None,
    source_decision: Decision | None = None,
    generator: nn.Module | None = None,
    directions: np.ndarray | None = None,
    probabilities: bool = False,
    progress: Progress | None = None,
    chunk_cache: ChunkCache | None = None,
    device_kind: str | None = None,
    dtype: str = "float32",
    beside_float32: bool = True,
    decided: Decided | None = None,
) -> Evidence:
    """
    Perturb every image at every strength and record what the classifier decides.

    On CPUs every batch has the same size (the last one is padded) and is computed with one torch thread, so that the
    number of threads and workers does not change the outcome.

    Args:
        classifier: Maps images (N, C, H, W) in [0, 1] to logits (N, classes). Its mode, gradients and buffers are
            restored.
        images: Labelled images.
        perturbation: The perturbation of the images.
        strengths: Numbers, or distributions that draw a number for each image.
        unit: The unit of the strengths: "default" (of the perturbation), "snr" or "snr-std" (dB), "image-std".
        seed: Seed of all draws. Draws depend on seed and position only, not on batches, workers or device.
        device: "cpu", "cuda" or "cuda:N".
        batch_size: Images per batch; chosen for the machine by default. Another size draws the same numbers, but may
            change the last bits of logits. If memory runs out, the sweep restarts with half the size, and the
            evidence records it.
        threads: Number of batches that a CPU computes in parallel; by default the number of cores.
        decision: How logits become a class and, for detectors, an attack probability; by default the largest logit.
        source: The source model of a transfer attack.
        source_decision: The decision of `source`.
        generator: The fitted network of a GAN perturbation.
        directions: Precomputed sign directions, (N, C, H, W).
        probabilities: Whether the evidence stores the probability of every class.
        progress: Called with the number of finished images and of all images.
        chunk_cache: Finished chunks of images: existing results are read from it, new ones are written to it.
        device_kind: The kind of device that `chunk_cache` was computed on, if it is another one.
        dtype: Precision of the models: "float32", "tf32" or "bf16".
        beside_float32: Whether decisions in another precision are compared to float32 on a sample.
        decided: Whether evidence of the first images decides all claims, so that the sweep stops. Called between
            batches, from one thread at a time.

    Returns:
        Evidence with a row per strength. If user code raises at a strength, or numbers are NaN, its status says why;
        no exception is raised. If the sweep stopped, the status of every strength is "decided after …", and untried
        images have the class -1.

    Raises:
        ModelError: If the outputs do not fit the classes of the images.
        ValueError: If a strength is outside the perturbation's range, or `batch_size` or `threads` is below 1.

    >>> from robustness.data.images import from_arrays
    >>> from robustness.perturbations import GaussianNoise
    >>> images = from_arrays(np.full((4, 1, 2), 128, np.uint8), [0, 1, 0, 1])
    >>> evidence = run_sweep(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), images, GaussianNoise(), [0.1, 0.2])
    >>> evidence.predictions.shape, evidence.status
    ((2, 4), ('ok', 'ok'))
    """
    strengths = strengths_.check(strengths, perturbation, unit)
    for name, value in (("batch_size", batch_size), ("threads", threads)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}; leave it out for the machine's default")
    precision.check_dtype(dtype, device if device_kind is None else None)
    float32_modules = module_dict(classifier, source, generator)
    modules = precision.in_precision(float32_modules, dtype, device)
    parts = 2 if decided is None else EARLY_PARTS
    requested = batch_size or choose_batch_size(images, perturbation, modules, device, parts)
    threads = 1 if device != "cpu" or not perturbation.side_by_side else threads or hardware.cpu_count()
    decision = decision or Argmax()
    attack_decision = source_decision or (decision if source is None else Argmax())
    weights_hash, started = state_hash(classifier), time.perf_counter()

    def attempt(size: int) -> tuple[OutcomeRecorder, list[Mapping[str, Any]], int | None]:
        batches = SweepBatches(
            images, perturbation, strengths, unit, seed, device, size, decision, attack_decision, directions
        )
        recorder, metadata = chunks.new_recorder(batches, probabilities=probabilities), list[Mapping[str, Any]]()
        early = None if decided is None else EarlyStop(decided, recorder)

        def restore(result: ChunkResult) -> None:
            recorder.restore(result)
            metadata.append(result.metadata)
            if early is not None:
                early.add(result.chunk * CHUNK, min((result.chunk + 1) * CHUNK, len(images)))

        missing = chunks.load_finished_chunks(chunk_cache, chunks.chunk_count(images), size, restore)
        if missing and (early is None or early.tried is None):
            check_device_available(device_kind)
            store = None if chunk_cache is None else chunk_cache.put
            with precision.matmul_precision(dtype, device):
                metadata.append(
                    chunks.sweep_chunks(batches, modules, recorder, missing, threads, progress, store, early)
                )
        return recorder, metadata, None if early is None else early.tried

    (recorder, metadata, tried), used_batch_size = batching.retry_with_smaller_batches(
        attempt, chunk_cache.batch_size(requested) if chunk_cache else requested
    )
    # Chunks from the cache count with the time that they took.
    seconds = time.perf_counter() - started + sum(entry.get("seconds", 0.0) for entry in metadata)
    is_deterministic = all(entry["deterministic"] for entry in metadata)
    state_reason = next((entry["keeps_state"] for entry in metadata if entry.get("keeps_state")), "")
    doubts = {"non-deterministic forward": not is_deterministic, trials.KEEPS_STATE: bool(state_reason)}
    provenance = {
        "perturbation": perturbation.model_dump(),
        "unit": unit,
        "seed": seed,
        "device": device_kind or hardware.device_fingerprint(device),
        "dtype": dtype,
        "batch_size": used_batch_size,
        **({"out_of_memory_at": requested} if used_batch_size < requested else {}),
        "memory_format": metadata[0]["memory_format"],
        "semantics": SEMANTICS,
        "images": {"name": images.name, "n": len(images), "fingerprint": images.fingerprint},
        "state": weights_hash,
        "decision": decision.model_dump(),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        # Once per classifier: every card has clean evidence.
        "doubts": [name for name, raised in doubts.items() if raised] if isinstance(perturbation, Clean) else [],
        **({"keeps_state": state_reason} if state_reason else {}),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "images_per_second": round((tried or len(images)) * len(strengths) / seconds, 1),
    }
    if tried is not None:
        return recorder.prefix(tried, provenance)
    evidence = recorder.evidence(provenance)
    if dtype == "float32" or not beside_float32 or not (device_kind is None or hardware.has_device(device_kind)):
        return evidence
    batches = SweepBatches(
        images, perturbation, strengths, unit, seed, device, used_batch_size, decision, attack_decision, directions
    )
    return precision_check.count_differing_decisions(evidence, batches, float32_modules, threads)


def choose_batch_size(
    images: Images, perturbation: Perturbation, module: nn.Module, device: str, parts: int = 2
) -> int:
    """
    Choose the fastest batch size that needs no more memory than one thread with larger batches.

    Feature maps of convolutions are many times as large as the images, and iterative attacks hold a few copies of
    the images; other models gain from larger matrix products. On a CPU there are at least as many batches as ``parts``.
    """
    max_bytes = 2**22 if isinstance(perturbation, Step) else 2**21
    if has_convolutions(module):
        max_bytes = 2**20
    return hardware.batch_size(images.shape, device, 2 * len(images) // parts, max_bytes)


def directions(
    module: nn.Module, images: Images, perturbation: Step, **settings: Any
) -> tuple[np.ndarray, dict[str, int]]:
    """
    Return the sign directions of an attack on a model, (N, C, H, W) int8, and the counts of flagged images.

    ``settings`` are those of `attack_directions`. Computed once, the directions serve transfer attacks on any number
    of models: `run_sweep(..., source=module, directions=signs)`.
    """
    signs = np.empty((len(images), *images.shape), np.int8)

    def put(start: int, rows: np.ndarray) -> None:
        signs[start : start + len(rows)] = rows

    return signs, attack_directions(module, images, perturbation, put, **settings)


def attack_directions(
    module: nn.Module,
    images: Images,
    perturbation: Step,
    put: Callable[[int, np.ndarray], None],
    *,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int | None = None,
    threads: int | None = None,
    decision: Decision | None = None,
    progress: Progress | None = None,
    chunk_cache: ChunkCache | None = None,
    device_kind: str | None = None,
    dtype: str = "float32",
) -> dict[str, int]:
    """
    Compute the sign directions of an attack on a model; return the counts of flagged images (see `gradients`).

    ``put`` receives them in any order, from any thread: the index of the first image, and int8 (n, C, H, W).
    """
    precision.check_dtype(dtype, device if device_kind is None else None)
    modules = precision.in_precision(module_dict(module, None, None), dtype, device)
    requested = batch_size or choose_batch_size(images, perturbation, module, device)
    threads = 1 if device != "cpu" else threads or hardware.cpu_count()
    decision = decision or Argmax()
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def restore(result: ChunkResult) -> None:
        put(result.chunk * CHUNK, result.arrays["directions"])
        with lock:
            counts.update(result.metadata["counted"])

    def store(result: ChunkResult) -> None:
        restore(result)
        if chunk_cache is not None:
            chunk_cache.put(result)

    def attempt(size: int) -> None:
        counts.clear()
        batches = SweepBatches(images, perturbation, (0.0,), "default", seed, device, size, decision, decision)
        if missing := chunks.load_finished_chunks(chunk_cache, chunks.chunk_count(images), size, restore):
            check_device_available(device_kind)
            with precision.matmul_precision(dtype, device):
                chunks.direction_chunks(batches, modules, missing, threads, store, progress)

    batching.retry_with_smaller_batches(attempt, chunk_cache.batch_size(requested) if chunk_cache else requested)
    return dict(counts)


def check_device_available(device_kind: str | None) -> None:
    """Raise SweepError if missing chunks need a device of another machine: evidence never mixes devices."""
    if device_kind is not None and not hardware.has_device(device_kind):
        raise SweepError(
            f"chunks from {device_kind} are missing, a device that this machine does not have; find out why the "
            "engine did not compute them, or run without it"
        )


def module_dict(classifier: nn.Module, source: nn.Module | None, generator: nn.Module | None) -> nn.ModuleDict:
    """Put all modules of a sweep into one, so that each thread gets a copy of all of them."""
    modules = {"classifier": classifier, "source": source, "generator": generator}
    return nn.ModuleDict({name: module for name, module in modules.items() if module is not None})
