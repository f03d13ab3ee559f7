"""The hardware of this machine, without importing torch."""

from __future__ import annotations

import importlib
import math
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

INSTRUCTION_SETS = ("AVX512F", "AVX2", "ASIMD", "VSX", "VX")
"""Best first. Sums are ordered otherwise on each of them, so results differ in the last bits."""

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Environment variables that have oneDNN, or torch itself, compute with fewer instructions than the CPU has."""

CHUNK = 1000
"""Images of a chunk, as in `robustness.util.rng`, which imports NumPy."""

MIN_BATCH, MIN_LARGEST_BATCH = 4, 8
"""The smallest batch, and the smallest upper bound of one, whatever memory an image takes."""

MAX_IDLE = 0.05
"""The share of a sweep's work that padding and idle threads may add before smaller batches are chosen."""


def cpu_count() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_count(environment: Mapping[str, str] = os.environ, driver: Path = Path("/proc/driver/nvidia/gpus")) -> int:
    """
    Count the GPUs that torch would see, within ``CUDA_VISIBLE_DEVICES``.

    >>> gpu_count({"CUDA_VISIBLE_DEVICES": ""}), gpu_count({}, driver=Path("/nowhere"))
    (0, 0)
    """
    present = len(list(driver.iterdir())) if driver.is_dir() else 0
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not present:
        return present
    named = [entry.strip() for entry in visible.split(",") if entry.strip()]
    # CUDA reads the list up to the first entry that names no device; others name it by UUID.
    wrong = (i for i, entry in enumerate(named) if entry == "-1" or (entry.isdigit() and int(entry) >= present))
    return min(present, next(wrong, len(named)))


@cache
def device_fingerprint(device: str) -> str:
    """
    Name the kind of a device: evidence of one kind is not evidence of another.

    >>> device_fingerprint("cpu").startswith("cpu-")
    True
    """
    if not device.startswith("cpu"):
        import torch

        return f"{device.split(':')[0]}-{torch.cuda.get_device_name(device)}"
    # NumPy detects these for its own dispatch; torch's detection agrees and would cost its import.
    features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    best = next((name.lower() for name in INSTRUCTION_SETS if features.get(name)), platform.machine())
    limits = dict.fromkeys(os.environ.get(name, "default").lower() for name in LIMITS)
    return "-".join(["cpu", best, *(f"limited-to-{limit}" for limit in limits if limit not in ("", "default"))])


def has_device(kind: str) -> bool:
    """
    Return whether this machine has a device of a kind.

    >>> has_device(device_fingerprint("cpu")), has_device("cpu-abacus")
    (True, False)
    """
    return kind == device_fingerprint("cpu") or (gpu_count() > 0 and kind == device_fingerprint("cuda"))


def worker_device(device: str, worker: int) -> str:
    """
    Return the device of one of several worker processes, which use the GPUs in turn.

    >>> worker_device("cpu", 3)
    'cpu'
    """
    if device == "auto":
        device = "cuda" if gpu_count() else "cpu"
    if device == "cuda" and (count := gpu_count()):
        return f"cuda:{worker % count}"
    return device


def batch_size(shape: tuple[int, int, int], device: str, count: int = 10_000, most: int = 2**21) -> int:
    """
    Return the batch size: on a GPU a chunk; on a CPU one within ``most`` bytes that leaves no thread idle.

    Batches never cross the end of a chunk. Of the sizes that cut a chunk evenly, it is the largest whose batches, two
    at a time, process at most a twentieth more images than there are, padding included. It does not depend on
    the number of threads: evidence is the same for any.

    >>> batch_size((1, 28, 28), "cpu"), batch_size((1, 28, 28), "cpu", most=2**22)
    (500, 1000)
    >>> [batch_size((3, 32, 32), "cpu", count, 2**20) for count in (32, 100, 128, 300)]
    [16, 50, 64, 75]
    >>> batch_size((3, 224, 224), "cpu"), batch_size((1, 28, 28), "cpu", count=3000, most=2**22)
    (8, 500)
    """
    if device != "cpu":
        return CHUNK
    largest = max(MIN_LARGEST_BATCH, most // (4 * math.prod(shape)))
    chunks, rest = divmod(count, CHUNK)
    cut = CHUNK if chunks else max(rest, 1)

    def work(size: int) -> float:
        batches = chunks * -(-CHUNK // size) + -(-rest // size)
        return max(2 * -(-batches // 2) * size, (1 + MAX_IDLE) * count)

    sizes = {max(-(-cut // parts), MIN_BATCH) for parts in range(1, cut + 1)}
    return max((size for size in sizes if size <= largest), key=lambda size: (-work(size), size))
