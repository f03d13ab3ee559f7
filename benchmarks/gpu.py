"""
One GPU: VGG-19 at 32x32, 10,000 images, FGSM over 11 ε, against other libraries, each at its best batch size.

    python -m benchmarks.gpu [--output gpu.json] [--device cuda] [--check]
    python -m benchmarks.gpu --device cpu --images 40 --width 0.05 --sizes 10,20 --output smoke.json

First each contestant is timed once, after a warm-up, at every batch size from 64 to 10,000 (ours up to 1,000, a
chunk); then the best of each take turns, and ratios are medians over these rounds. Every time is written when it is
taken: the same command goes on from there, on the same machine with the same versions. On a CPU it only shows that it
runs: the result is labelled so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmarks import peers
from benchmarks.sweep import AMPLITUDES, EPSILONS
from models.vgg import vgg
from robustness.classifiers import precision
from robustness.data.images import Images, from_arrays
from robustness.perturbations import FGSM, GaussianNoise, Perturbation
from robustness.sweep.runner import run_sweep
from robustness.util import hardware, output
from robustness.util.atomic_write import atomic_writer
from robustness.util.rng import CHUNK

SIZES = (64, 128, 250, 500, 1000, 2500, 5000, 10_000)
DTYPES = ("float32", "tf32", "bf16")
PACKAGES = ("torch", "numpy", "torchattacks", "foolbox", "adversarial-robustness-toolbox", "cleverhans")
DUE = {"float32": 2.4, "bf16": 5.0}
"""How many times as fast as the fastest library in float32."""
NOISE = 0.85
"""The share of bare forwards' throughput that the noise sweep keeps."""
OURS, BARE = "sweep", "bare forwards"

Call = Callable[[int], object]


def bare(module: torch.nn.Module, images: Images, passes: int, device: str) -> Call:
    """Return what passes images that are on the device already, and does nothing else."""
    inputs = torch.from_numpy(images.batch(0, len(images))).to(device)

    def run(size: int) -> None:
        with torch.inference_mode():
            for start in range(0, len(inputs), size):
                for _ in range(passes):
                    module(inputs[start : start + size])

    return run


def contestants(module: torch.nn.Module, images: Images, device: str, dtypes: Sequence[str]) -> dict[str, Call]:
    """Return what is timed at a batch size, by "what, name, dtype"."""

    def ours(perturbation: Perturbation, strengths: Sequence[float], dtype: str) -> Call:
        return lambda size: _checked(
            run_sweep(module, images, perturbation, strengths, device=device, batch_size=size, dtype=dtype,
                  beside_float32=False)
        )  # fmt: skip

    found: dict[str, Call] = {f"fgsm, {OURS}, {dtype}": ours(FGSM(), EPSILONS, dtype) for dtype in dtypes}
    for name, attacked in peers.installed(1).items():
        for dtype in (dtype for dtype in dtypes if dtype != "bf16"):
            found[f"fgsm, {name}, {dtype}"] = _multiplying(
                lambda size, attacked=attacked: attacked(module, images, EPSILONS, size, device), dtype, device
            )
    found[f"noise, {OURS}, float32"] = ours(GaussianNoise(), AMPLITUDES, "float32")
    found[f"noise, {BARE}, float32"] = _multiplying(bare(module, images, len(AMPLITUDES), device), "float32", device)
    return found


def _checked(evidence: Any) -> None:
    assert set(evidence.status) == {"ok"}, evidence.status


def _multiplying(call: Call, dtype: str, device: str) -> Call:
    def run(size: int) -> None:
        with precision.matmul_precision(dtype, device):
            call(size)

    return run


def seconds(call: Callable[[], object], device: str) -> float | None:
    """Time a call; None where there was no memory for it."""
    try:
        _wait(device)
        started = time.perf_counter()
        call()
        _wait(device)
        return time.perf_counter() - started
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def _best(call: Call, size: int, device: str) -> float | None:
    return seconds(lambda: call(size), device)


def _warm(call: Call, size: int, device: str) -> float | None:
    """Time the second of two calls."""
    return None if _best(call, size, device) is None else _best(call, size, device)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def provenance(options: argparse.Namespace) -> dict[str, Any]:
    """Say what the times depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "device": hardware.device_fingerprint(options.device),
        "cores": hardware.cpu_count(),
        "cuda": torch.version.cuda,
        "versions": found,
        "images": options.images,
        "width": options.width,
        "sizes": options.sizes,
        "smoke": options.device == "cpu",
    }


class Kept:
    """Times that are written as they are taken; those of another machine, or other versions, are refused."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self._path = path
        self.content: dict[str, Any] = {"about": about, "tried": {}, "rounds": {}}
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            if before["about"] != about:
                raise SystemExit(f"{path} is of another machine, other versions or other settings; name another file")
            self.content = before

    def time(self, kind: str, key: str, call: Callable[[], float | None]) -> float | None:
        """Return a time that was taken before, else take it now."""
        if key not in self.content[kind]:
            self.content[kind][key] = call()
            self.write()
        found: float | None = self.content[kind][key]
        return found

    def write(self, **more: Any) -> None:
        """Write the file whole."""
        self.content |= more
        with atomic_writer(self._path) as stream:
            stream.write((json.dumps(self.content, indent=1) + "\n").encode())


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Time all, and give what came of it; it is in the file too."""
    torch.manual_seed(0)
    module = vgg(19, width=options.width).eval().to(options.device)
    drawn = np.random.default_rng(0).integers(0, 256, (options.images, 32, 32, 3), dtype=np.uint8)
    images = from_arrays(drawn, np.arange(options.images) % 10)
    dtypes = [dtype for dtype in DTYPES if not (dtype == "tf32" and options.device == "cpu")]
    calls = contestants(module, images, options.device, dtypes)
    kept = Kept(options.output, provenance(options))
    best = {}
    for name, call in calls.items():
        tried = {}
        for size in (size for size in options.sizes if OURS not in name or size <= CHUNK):
            taken = kept.time("tried", f"{name}, {size}", partial(_warm, call, size, options.device))
            if taken is not None:
                tried[size] = taken
        best[name] = min(tried, key=lambda size: tried[size])
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(options.rounds):
        for name, call in calls.items():
            taken = kept.time("rounds", f"{name}, round {i}", partial(_best, call, best[name], options.device))
            times[name].append(float("nan") if taken is None else taken)
    result = {"best": best, "seconds": times, "ratios": ratios(times, dtypes)}
    kept.write(result=result, written=datetime.now(UTC).isoformat(timespec="seconds"))
    return result


def ratios(times: dict[str, list[float]], dtypes: Sequence[str]) -> dict[str, float]:
    """Compare, round by round: how many times as fast as the fastest library, and what noise keeps of bare forwards."""

    def of(slow: str, fast: str) -> float:
        return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))

    found = {f"noise, {OURS} / {BARE}, throughput": of(f"noise, {BARE}, float32", f"noise, {OURS}, float32")}
    for dtype in dtypes:
        for theirs in (dtype for dtype in dtypes if dtype != "bf16"):
            others = [name for name in times if name.endswith(f", {theirs}") and name.split(", ")[1] in peers.PEERS]
            if others:
                fastest = min(others, key=lambda name: statistics.median(times[name]))
                found[f"fgsm, {dtype} against {fastest}"] = of(fastest, f"fgsm, {OURS}, {dtype}")
    return found


def held(found: dict[str, float]) -> list[str]:
    """Say which bounds are missed, or could not be looked at."""
    wrong = [name for name, ratio in found.items() if name.startswith("noise") and not ratio >= NOISE]
    for dtype, due in DUE.items():
        against = {n: r for n, r in found.items() if n.startswith(f"fgsm, {dtype} against") and n.endswith("float32")}
        wrong += [name for name, ratio in against.items() if not ratio >= due]
        wrong += [] if against else [f"fgsm, {dtype}: no other library is installed"]
    return wrong


def main(given: Sequence[str] | None = None) -> int:
    """Time, print the table; with --check, exit 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=list(SIZES))
    parser.add_argument("--check", action="store_true", help="fail where a bound is missed; on a GPU")
    options = parser.parse_args(given)
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: there is no GPU here; --device cpu shows that it runs")
    if options.check and options.device == "cpu":
        parser.error("--check: speeds on a CPU say nothing of a GPU's")
    found = compare(options)
    about = "A SMOKE TEST ON A CPU: these speeds say nothing" if options.device == "cpu" else options.device
    print(f"\nVGG-19 at 32x32, {options.images:,} images, {about}; times and provenance in {options.output}")
    rows = [[name, found["best"][name], f"{statistics.median(each):.3f}"] for name, each in found["seconds"].items()]
    print(tabulate(rows, ["", "best batch", "median seconds"], tablefmt="github", disable_numparse=True))
    print("\n".join(f"{name}: {ratio:.2f}" for name, ratio in found["ratios"].items()))
    missed = held(found["ratios"]) if options.check else []
    print("\n".join(f"missed: {name}" for name in missed))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(output.run(main))
