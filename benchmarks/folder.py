"""
What it costs to sweep pictures of an image folder as they lie: memory, and how much of the time the data take.

    python -m benchmarks.folder [--images 5000] [--device cpu] [--check]

ResNet-50 at 224 x 224 under normal noise at one amplitude (the fewer passes, the more the data weigh), JPEGs of 500 x
375 pixels made for the occasion. The sweep runs in a process of its own. Memory is its peak, less that of a process
that sweeps 16 of the images held in memory: what the model needs. What data cost is what the threads that decode
worked, as a share of all processor time, and what the threads that compute waited for pictures, as a share of the
sweep: with data for nothing it would take no less than what is left. Other work on the machine changes neither much.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
from PIL import Image
from tabulate import tabulate

from benchmarks.sweep import Bound
from models.large import resnet50
from robustness.data import DataSpec, Images, from_arrays, load
from robustness.perturbations import GaussianNoise
from robustness.sweep.runner import run_sweep
from robustness.util import hardware, output
from robustness.util.progress import progress_bar

AMPLITUDES = [0.1]
CLASSES = tuple(f"class-{i}" for i in range(10))
FEW = 16
YOUNGEST = 2.5
"""Seconds after which a file is old enough for the index to believe its times."""


class Cost(NamedTuple):
    """What one process used: its peak memory, and the seconds of a sweep, of its cores, its decoding and waiting."""

    peak_mib: float
    seconds: float
    processor: float
    decoding: float
    waiting: float
    threads: int

    @property
    def at_most(self) -> float:
        """
        The sweep's time by that of one whose data come for nothing, at most.

        >>> Cost(0.0, seconds=100.0, processor=200.0, decoding=10.0, waiting=8.0, threads=2).at_most
        1.098901098901099
        """
        return 1 / (1 - self.decoding / self.processor - self.waiting / (self.threads * self.seconds))


@dataclass(frozen=True, eq=False)
class Watched(Images):
    """Images that note how long each read of them took: what a thread that computes waits for its data."""

    waits: list[float] = field(default_factory=list)

    def stored(self, start: int, stop: int) -> Any:
        """Return some, and note the seconds."""
        began = time.perf_counter()
        try:
            return super().stored(start, stop)
        finally:
            self.waits.append(time.perf_counter() - began)


def write(folder: Path, count: int, classes: Sequence[str] = CLASSES) -> None:
    """Write pictures about as hard to decode as photographs, the classes in turn."""
    drawn = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(drawn.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
        noisy = np.asarray(coarse, np.int16) + drawn.integers(-12, 13, (375, 500, 1))
        path = folder / classes[i % len(classes)] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def images_of(folder: Path) -> Images:
    """Return the pictures as a card has them."""
    spec = DataSpec.model_validate(
        {"name": "folder", "folder": "./pictures", "images": {"resize": 256, "size": [224, 224]}}
    )
    return load(spec, "test", root=folder, cache=folder / "cache", beside=folder)


def in_memory(images: Images, count: int) -> Images:
    """Decode the first of them once and for all."""
    pixels = images.stored(0, count).transpose(0, 2, 3, 1)
    return from_arrays(pixels, images.labels[:count], images.classes)


def cost(images: Images, device: str) -> Cost:
    """Sweep them in this process, and give what that took."""
    watched = Watched(**{each.name: getattr(images, each.name) for each in fields(Images)})
    torch.manual_seed(0)
    module = resnet50(outputs=len(CLASSES), stem="imagenet").eval().to(device)
    began, processor, decoded = time.perf_counter(), time.process_time(), decoding()
    with progress_bar(f"sweeping {len(images):,} pictures") as progress:
        evidence = run_sweep(module, watched, GaussianNoise(), AMPLITUDES, device=device, progress=progress)
    assert set(evidence.status) == {"ok"}, evidence.status
    return Cost(
        peak(),
        time.perf_counter() - began,
        time.process_time() - processor,
        decoding() - decoded,
        sum(watched.waits),
        1 if device != "cpu" else hardware.cpu_count(),
    )


def decoding() -> float:
    """Return the seconds of processor time that the threads which decode have used so far."""
    mine = [each.ident for each in threading.enumerate() if each.name.startswith("decode") and each.ident]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in mine)


def peak() -> float:
    """Return this process's peak memory in MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def aside(folder: Path, what: str, device: str) -> Cost:
    """Return what a process of its own takes to sweep the folder, or ("model") a few of its images from memory."""
    command = [sys.executable, "-m", "benchmarks.folder", "--alone", what, "--at", str(folder), "--device", device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def alone(what: str, folder: Path, device: str) -> int:
    """Sweep once, and print what it took."""
    images = images_of(folder)
    print(json.dumps(cost(images if what == "folder" else in_memory(images, min(FEW, len(images))), device)))
    return 0


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def compare(count: int, device: str) -> list[Bound]:
    """Print the table, and give its bounds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder / "pictures", count)
        time.sleep(YOUNGEST)
        first, warm = (seconds(lambda: images_of(folder).fingerprint) for _ in range(2))
        model, whole = (aside(folder, what, device) for what in ("model", "folder"))
    print(f"\n{count:,} JPEGs of 500 x 375, ResNet-50 at 224 x 224, {len(AMPLITUDES)} amplitude, {provenance(device)}")
    rows = [
        ["sweep of the folder, seconds", f"{whole.seconds:.1f}"],
        ["processor time of it, seconds of a core", f"{whole.processor:.1f}"],
        ["of that decoding, in threads beside", f"{whole.decoding:.1f} ({whole.decoding / whole.processor:.1%})"],
        [
            f"waiting for pictures, seconds of {whole.threads} threads",
            f"{whole.waiting:.1f} ({whole.waiting / whole.threads / whole.seconds:.1%})",
        ],
        ["peak memory, MiB", f"{whole.peak_mib:.0f}"],
        [f"the model's own need ({min(FEW, count)} images from memory), MiB", f"{model.peak_mib:.0f}"],
        ["first look at all files, seconds", f"{first:.2f}"],
        ["fingerprint, warm, seconds", f"{warm:.2f}"],
    ]
    print(tabulate(rows, headers=["", "measured"], tablefmt="github", disable_numparse=True))
    found = [
        Bound("memory above the model's own need, in GB", (whole.peak_mib - model.peak_mib) * 2**20 / 1e9, 1.5),
        Bound("sweep of the folder / with data for nothing, at most", whole.at_most, 1.10),
    ]
    print("\n".join(map(str, found)))
    return found


def provenance(device: str) -> str:
    """Say what the numbers depend on."""
    return (
        f"{hardware.device_fingerprint(device)}, {hardware.cpu_count()} cores, torch {torch.__version__}, Pillow "
        f"{PIL.__version__}, Python {platform.python_version()}, {datetime.now(UTC).date()}"
    )


def main(given: list[str] | None = None) -> int:
    """Print the table; with --check, exit 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--check", action="store_true", help="fail above a bound")
    parser.add_argument("--alone", choices=["model", "folder"], help=argparse.SUPPRESS)
    parser.add_argument("--at", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.alone:
        return alone(arguments.alone, arguments.at, arguments.device)
    found = compare(arguments.images, arguments.device)
    return int(arguments.check and not all(bound.held for bound in found))


if __name__ == "__main__":
    sys.exit(output.run(main))
