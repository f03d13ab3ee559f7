"""
What it costs to sweep pictures of an image folder as they lie: memory, and time beside the same images in memory.

    python -m benchmarks.folder [--images 5000] [--repeats 1] [--device cpu] [--check]

ResNet-50 at 224 x 224, normal noise at two amplitudes (the fewer passes, the more the data weigh), JPEGs of 500 x 375
pixels made for the occasion. Memory is the peak of a process of its own, less that of a process that sweeps 16 of the
images held in memory: what the model needs.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

from benchmarks.sweep import Bound, ratio, timed
from models.large import resnet50
from robustness.datasets import DataSpec, Images, from_arrays, load
from robustness.perturbations import Normal
from robustness.sweep import sweep

AMPLITUDES = [0.1, 0.2]
CLASSES = 10
FEW = 16
FOLDER, MEMORY = "folder, decoded when read", "the same images in memory"


def write(folder: Path, count: int) -> None:
    """Write pictures about as hard to decode as photographs."""
    drawn = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(drawn.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
        noisy = np.asarray(coarse, np.int16) + drawn.integers(-12, 13, (375, 500, 1))
        path = folder / f"class-{i % CLASSES}" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def images_of(folder: Path) -> Images:
    """Give the pictures as a card has them."""
    spec = DataSpec.model_validate(
        {"name": "folder", "folder": "./pictures", "images": {"resize": 256, "size": [224, 224]}}
    )
    return load(spec, "test", root=folder, cache=folder / "cache", beside=folder)


def in_memory(images: Images, count: int) -> Images:
    """Decode the first of them once and for all."""
    pixels = np.empty((count, 224, 224, 3), np.uint8)
    for start in range(0, count, 100):
        stop = min(start + 100, count)
        pixels[start:stop] = images.stored(start, stop).transpose(0, 2, 3, 1)
    return from_arrays(pixels, images.labels[:count], images.classes)


def swept(images: Images, device: str) -> None:
    """Sweep them."""
    torch.manual_seed(0)
    evidence = sweep(
        resnet50(outputs=CLASSES, stem="imagenet").eval().to(device), images, Normal(), AMPLITUDES, device=device
    )
    assert set(evidence.status) == {"ok"}, evidence.status


def peak(folder: Path, what: str, device: str) -> float:
    """Give the peak memory in MiB of a process that sweeps the folder, or a few of its images from memory."""
    command = [sys.executable, "-m", "benchmarks.folder", "--alone", what, "--at", str(folder), "--device", device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def alone(what: str, folder: Path, device: str) -> int:
    """Sweep once, and print this process's peak memory in MiB."""
    images = images_of(folder)
    swept(images if what == "folder" else in_memory(images, min(FEW, len(images))), device)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)  # type: ignore[index]
    return 0


def busy(call: Callable[[], object]) -> float:
    """Give the seconds of processor time that a call takes, which other work on the machine does not change much."""
    started = time.process_time()
    call()
    return time.process_time() - started


def compare(count: int, repeats: int, device: str) -> list[Bound]:
    """Print the table, and give its bounds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "pictures").mkdir()
        write(folder / "pictures", count)
        time.sleep(2.5)  # what is younger than the index is looked at again
        looks = []
        for _ in range(2):
            started = time.perf_counter()
            images = images_of(folder)
            assert images.fingerprint
            looks.append(time.perf_counter() - started)
        model, whole = (peak(folder, what, device) for what in ("model", "folder"))
        kept = in_memory(images, count)
        contest = {FOLDER: lambda: swept(images, device), MEMORY: lambda: swept(kept, device)}
        times = timed(contest, repeats, device)
        work = {name: busy(call) for name, call in contest.items()}
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"\n{count:,} JPEGs of 500 x 375, ResNet-50 at 224 x 224, {len(AMPLITUDES)} amplitudes, {device}, "
        f"{repeats} runs"
    )
    rows = [
        [
            FOLDER,
            f"{medians[FOLDER]:.2f}",
            f"{medians[FOLDER] / medians[MEMORY]:.3f}",
            f"{work[FOLDER]:.2f}",
            f"{whole:.0f}",
        ],
        [MEMORY, f"{medians[MEMORY]:.2f}", "1.000", f"{work[MEMORY]:.2f}", ""],
        ["the model's own need", "", "", "", f"{model:.0f}"],
        ["first look at all files", f"{looks[0]:.2f}", "", "", ""],
        ["fingerprint, warm", f"{looks[1]:.2f}", "", "", ""],
    ]
    headers = ["", "median seconds", "of memory's", "seconds of all cores", "peak MiB"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))
    found = [
        Bound("memory above the model's own need, in GB", (whole - model) * 2**20 / 1e9, 1.5),
        Bound("sweep of the folder / of the same images in memory", ratio(times, FOLDER, MEMORY), 1.10),
    ]
    print("\n".join(map(str, found)))
    return found


def main(given: list[str] | None = None) -> int:
    """Print the table; with --check, exit 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--check", action="store_true", help="fail above a bound")
    parser.add_argument("--alone", choices=["model", "folder"], help=argparse.SUPPRESS)
    parser.add_argument("--at", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.alone:
        return alone(arguments.alone, arguments.at, arguments.device)
    found = compare(arguments.images, arguments.repeats, arguments.device)
    return int(arguments.check and not all(bound.held for bound in found))


if __name__ == "__main__":
    sys.exit(main())
