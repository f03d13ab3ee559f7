"""One perturbation, many strengths, one classifier: the evidence of a sweep, and how it came about."""

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
from robustness.sweep.chunk_result import ChunkCache, ChunkResult
from robustness.sweep.recorder import OutcomeRecorder
from robustness.util import hardware
from robustness.util.rng import CHUNK


def run_sweep(
    classifier: nn.Module,
    images: Images,
    perturbation: Perturbation,
    strengths: Sequence[Strength],
    *,
    unit: Unit = "native",
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
    kept: ChunkCache | None = None,
    kind: str | None = None,
    dtype: str = "float32",
    beside_float32: bool = True,
) -> Evidence:
    """
    Perturb every image at every strength and record what the classifier decides.

    On CPUs every batch has the same size (the last one is padded) and is computed with one torch thread, so that the
    number of threads and workers does not change the outcome.

    Args:
        classifier: Maps images (N, C, H, W) in [0, 1] to logits (N, classes). It leaves as it came: mode, gradients,
            buffers.
        images: Labelled images.
        perturbation: What changes the images.
        strengths: Numbers, or distributions that draw a number for each image.
        unit: The unit of the strengths: "native" (of the perturbation), "snr" or "snr-std" (dB), "std".
        seed: Seed of all draws. Draws depend on seed and position only, not on batches, workers or device.
        device: "cpu", "cuda" or "cuda:N".
        batch_size: Images per batch; by default what suits the machine. Another size draws the same numbers, but may
            change the last bits of logits. If memory runs out, the sweep starts again with half the size, and the
            evidence says so.
        threads: Batches that are computed side by side on a CPU; by default the number of cores.
        decision: How logits become a class and, for detectors, an attack probability; by default the largest logit.
        source: Another model that the examples are made on (transfer).
        source_decision: The decision of `source`.
        generator: The fitted network of a GAN perturbation.
        directions: Directions of a step, (N, C, H, W), if they were computed before.
        probabilities: Whether the evidence keeps the probability of every class.
        progress: Called with the number of finished images and of all images.
        kept: Finished chunks of images: those are read from it, and new ones are written to it.
        kind: The kind of device on which `kept` was computed, if that is elsewhere.
        dtype: Precision of the models: "float32", "tf32" or "bf16".
        beside_float32: Whether decisions in another precision are compared with float32 on a sample.

    Returns:
        Evidence with a row per strength. A strength at which code failed or numbers are NaN has a status that says
        why; nothing is raised for it.

    Raises:
        ModelError: If the outputs do not fit the classes of the images.
        ValueError: If a strength is outside the perturbation's range, or `batch_size` or `threads` is below 1.

    >>> from robustness.data.images import from_arrays
    >>> from robustness.perturbations import Normal
    >>> images = from_arrays(np.full((4, 1, 2), 128, np.uint8), [0, 1, 0, 1])
    >>> evidence = run_sweep(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), images, Normal(), [0.1, 0.2])
    >>> evidence.predictions.shape, evidence.status
    ((2, 4), ('ok', 'ok'))
    """
    strengths = strengths_.check(strengths, perturbation, unit)
    for name, value in (("batch_size", batch_size), ("threads", threads)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}; leave it out for what suits the machine")
    precision.check_dtype(dtype, device if kind is None else None)
    plain = module_dict(classifier, source, generator)
    modules = precision.in_precision(plain, dtype, device)
    asked = batch_size or choose_batch_size(images, perturbation, modules, device)
    threads = 1 if device != "cpu" or not perturbation.side_by_side else threads or hardware.cpu_count()
    decision = decision or Argmax()
    attacked_by = source_decision or (decision if source is None else Argmax())
    state, started = state_hash(classifier), time.perf_counter()

    def attempt(size: int) -> tuple[OutcomeRecorder, list[Mapping[str, Any]]]:
        cells = SweepBatches(
            images, perturbation, strengths, unit, seed, device, size, decision, attacked_by, directions
        )
        outcomes, told = chunks.new_recorder(cells, probabilities=probabilities), list[Mapping[str, Any]]()

        def take(part: ChunkResult) -> None:
            outcomes.take(part)
            told.append(part.told)

        if wanted := chunks.load_finished_chunks(kept, chunks.count(images), size, take):
            check_device_available(kind)
            keep = chunks.nowhere if kept is None else kept.put
            with precision.matmul_precision(dtype, device):
                told.append(chunks.sweep_chunks(cells, modules, outcomes, wanted, threads, progress, keep))
        return outcomes, told

    (outcomes, told), used = batching.retry_with_smaller_batches(attempt, kept.batch_size(asked) if kept else asked)
    # Those that were finished before took their time too.
    seconds = time.perf_counter() - started + sum(each.get("seconds", 0.0) for each in told)
    repeatable = all(each["deterministic"] for each in told)
    state_kept = next((each["keeps_state"] for each in told if each.get("keeps_state")), "")
    doubted = {"non-deterministic forward": not repeatable, trials.KEEPS_STATE: bool(state_kept)}
    found = outcomes.evidence(
        {
            "perturbation": perturbation.model_dump(),
            "unit": unit,
            "seed": seed,
            "device": kind or hardware.device_fingerprint(device),
            "dtype": dtype,
            "batch_size": used,
            **({"out_of_memory_at": asked} if used < asked else {}),
            "memory_format": told[0]["memory_format"],
            "semantics": SEMANTICS,
            "images": {"name": images.name, "n": len(images), "fingerprint": images.fingerprint},
            "state": state,
            "decision": decision.model_dump(),
            "versions": {"torch": torch.__version__, "numpy": np.__version__},
            # Said once a classifier: every card has clean evidence.
            "doubts": [name for name, seen in doubted.items() if seen] if isinstance(perturbation, Clean) else [],
            **({"keeps_state": state_kept} if state_kept else {}),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "images_per_second": round(len(images) * len(strengths) / seconds, 1),
        }
    )
    if dtype == "float32" or not beside_float32 or not (kind is None or hardware.has_device(kind)):
        return found
    cells = SweepBatches(images, perturbation, strengths, unit, seed, device, used, decision, attacked_by, directions)
    return precision_check.count_differing_decisions(found, cells, plain, threads)


def choose_batch_size(images: Images, perturbation: Perturbation, module: nn.Module, device: str) -> int:
    """
    Choose the size of batches by what is faster, and needs no more memory than one thread with larger ones.

    Maps of convolutions are many times as large as the images; attacks of many steps keep a few copies of them; what
    is left gains by larger products of matrices.
    """
    most = 2**22 if isinstance(perturbation, Step) else 2**21
    if has_convolutions(module):
        most = 2**20
    return hardware.batch_size(images.shape, device, len(images), most)


def directions(
    module: nn.Module, images: Images, perturbation: Step, **settings: Any
) -> tuple[np.ndarray, dict[str, int]]:
    """
    Return the signs that a step takes on a model, (N, C, H, W) int8, and what was counted; settings as of `signs`.

    Made once, they serve a sweep over any number of other models: `sweep(..., source=module, directions=signs)`.
    """
    made = np.empty((len(images), *images.shape), np.int8)

    def put(start: int, rows: np.ndarray) -> None:
        made[start : start + len(rows)] = rows

    return made, attack_directions(module, images, perturbation, put, **settings)


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
    kept: ChunkCache | None = None,
    kind: str | None = None,
    dtype: str = "float32",
) -> dict[str, int]:
    """
    Make the signs that a step takes on a model, and give what was counted (see `gradients`).

    ``put`` gets them as they are made, in any order, from any thread: a first image's number, and int8 (n, C, H, W).
    """
    precision.check_dtype(dtype, device if kind is None else None)
    modules = precision.in_precision(module_dict(module, None, None), dtype, device)
    asked = batch_size or choose_batch_size(images, perturbation, module, device)
    threads = 1 if device != "cpu" else threads or hardware.cpu_count()
    decision = decision or Argmax()
    counted: Counter[str] = Counter()
    lock = threading.Lock()

    def take(part: ChunkResult) -> None:
        put(part.chunk * CHUNK, part.arrays["directions"])
        with lock:
            counted.update(part.told["counted"])

    def keep(part: ChunkResult) -> None:
        take(part)
        if kept is not None:
            kept.put(part)

    def attempt(size: int) -> None:
        counted.clear()
        cells = SweepBatches(images, perturbation, (0.0,), "native", seed, device, size, decision, decision)
        if wanted := chunks.load_finished_chunks(kept, chunks.count(images), size, take):
            check_device_available(kind)
            with precision.matmul_precision(dtype, device):
                chunks.direction_chunks(cells, modules, wanted, threads, progress, keep)

    batching.retry_with_smaller_batches(attempt, kept.batch_size(asked) if kept else asked)
    return dict(counted)


def check_device_available(kind: str | None) -> None:
    """Raise SweepError where chunks are missing that only another machine can make: no evidence mixes devices."""
    if kind is not None and not hardware.has_device(kind):
        raise SweepError(
            f"chunks are missing that were to be made on {kind}, which this machine does not have; see why the "
            "engine did not make them, or run without it"
        )


def module_dict(classifier: nn.Module, source: nn.Module | None, generator: nn.Module | None) -> nn.ModuleDict:
    """Put what runs in a sweep into one module, so that a thread has its own copy of all of it."""
    others = {"source": source, "generator": generator}
    return nn.ModuleDict({"classifier": classifier} | {k: other for k, other in others.items() if other is not None})
