"""
Sweeps against what does only what cannot be left out, and against other libraries where they are installed.

    python -m benchmarks.sweep [noise|fgsm|pgd ...] [--model mlp|vgg19] [--device cpu] [--repeats 5] [--check]

All contestants run in one process, in turn; the ratio of each pair is what counts, for the machine's speed drifts.
`tox -e oracles -- python -m benchmarks.sweep fgsm pgd` has the other libraries.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tabulate import tabulate

from benchmarks import peers
from models.mlp import mlp
from models.vgg import vgg
from robustness.data.images import Images, from_arrays
from robustness.perturbations import FGSM, PGD, GaussianNoise
from robustness.sweep.runner import run_sweep
from robustness.util import output
from robustness.util.rng import CHUNK, Purpose, generator

AMPLITUDES = [round(0.1 * i, 1) for i in range(11)]
EPSILONS = [round(0.03 * i, 2) for i in range(11)]
BATCH_SIZES = {"mlp": (125, 250, 500, 1000), "vgg19": (25, 50, 125)}
SHAPES = {"mlp": (28, 28), "vgg19": (32, 32, 3)}
STRENGTHS = {"noise": AMPLITUDES, "fgsm": EPSILONS, "pgd": EPSILONS[::5]}  # each strength of PGD is a run of its own
STEPS = 10
OURS = "sweep, with probabilities, loss and SNR"

Times = dict[str, list[float]]


class Bound(NamedTuple):
    """A ratio, over what, and what it must not exceed."""

    what: str
    ratio: float
    most: float

    @property
    def held(self) -> bool:
        """Whether the ratio stays within it."""
        return self.ratio <= self.most

    def __str__(self) -> str:
        return f"{self.what}: {self.ratio:.3f} (median over pairs; bound {self.most:.3g})"


def bare_loop(module: torch.nn.Module, images: Images, batch_size: int, device: str = "cpu") -> np.ndarray:
    """Return the predicted classes, (11, N): the same draws, clipping, forwards and argmax, and nothing else."""
    predictions = np.empty((len(AMPLITUDES), len(images)), np.int64)
    for chunk, first in enumerate(range(0, len(images), CHUNK)):
        size = min(CHUNK, len(images) - first)
        drawn = generator(0, Purpose.NOISE, chunk).standard_normal((size, *images.shape), dtype=np.float32)
        noise = torch.from_numpy(drawn).clamp_(-1, 1).to(device)
        for start in range(0, size, batch_size):
            stop = min(start + batch_size, size)
            inputs = torch.from_numpy(images.batch(first + start, first + stop)).to(device)
            with torch.inference_mode():
                for i, amplitude in enumerate(AMPLITUDES):
                    logits = module(torch.add(inputs, noise[start:stop], alpha=amplitude).clamp_(0, 1))
                    predictions[i, first + start : first + stop] = logits.argmax(1).cpu().numpy()
    return predictions


def contestants(what: str, model: str, images: Images, device: str) -> dict[str, Callable[[], object]]:
    """Return what runs against each other: ours, the least that must be done at several batch sizes, and the peers."""
    torch.manual_seed(0)
    module = {"mlp": mlp, "vgg19": vgg}[model]().eval().to(device)
    sizes = BATCH_SIZES[model] if device == "cpu" else (1000,)
    perturbation = {"noise": GaussianNoise(bound=1.0), "fgsm": FGSM(), "pgd": PGD(steps=STEPS, random_start=False)}[
        what
    ]
    strengths = STRENGTHS[what]
    found: dict[str, Callable[[], object]] = {
        OURS: lambda: run_sweep(module, images, perturbation, strengths, device=device)
    }
    if what == "noise":
        for size in sizes:
            found[f"bare loop, batch {size}"] = lambda size=size: bare_loop(module, images, size, device)
    if what == "fgsm":
        for size in sizes:
            found[f"floor, batch {size}"] = lambda size=size: peers.floor(module, images, strengths, size, device)
    if what != "noise":
        for name, attacked in peers.installed(1 if what == "fgsm" else STEPS).items():
            size = {"mlp": 1000, "vgg19": 125}[model] if device == "cpu" else 1000
            found[name] = lambda attacked=attacked, size=size: attacked(module, images, strengths, size, device)
    return found


def timed(each: dict[str, Callable[[], object]], repeats: int, device: str) -> Times:
    """Time all of them in turn, after a warm-up."""
    times: Times = {name: [] for name in each}
    for i in range(repeats + 1):
        for name, call in each.items():
            time.sleep(0.3)  # the threads of the one before spin for a while when their work is done
            started = time.perf_counter()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            if i:
                times[name].append(time.perf_counter() - started)
    return times


def ratio(times: Times, one: str, other: str) -> float:
    """Return the median over the pairs of one's time by the other's."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def best(times: Times, names: Sequence[str]) -> str:
    """Return the fastest of some, by the median."""
    return min(names, key=lambda name: statistics.median(times[name]))


def bounds(what: str, times: Times) -> list[Bound]:
    """Compare ours with the best of each kind."""
    least = [name for name in times if name.startswith(("floor", "bare loop"))]
    libraries = [name for name in times if name in peers.PEERS]
    found = []
    if least:
        most = 1.15 if what == "noise" else 0.97
        found.append(Bound("sweep / " + best(times, least), ratio(times, OURS, best(times, least)), most))
    if libraries:
        most = 1 / 2.6 if what == "fgsm" else 1.0
        found.append(Bound("sweep / " + best(times, libraries), ratio(times, OURS, best(times, libraries)), most))
    return found


def images_for(model: str, count: int) -> Images:
    """Return random images, for what is timed does not depend on them."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, *SHAPES[model]), dtype=np.uint8)
    return from_arrays(pixels, np.arange(count) % 10)


def peak(arguments: argparse.Namespace, what: str, model: str, name: str) -> float:
    """Return the peak memory in MiB of a process that runs one contestant once."""
    options = ["--model", model, "--device", arguments.device, "--images", str(arguments.images or "")]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sweep", what, *options[:4], "--alone", name]
    if arguments.images:
        command += options[4:]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def alone(arguments: argparse.Namespace) -> int:
    """Run one contestant once, and print this process's peak memory in MiB."""
    model = arguments.model[0]
    images = images_for(model, arguments.images or DEFAULT[model])
    contestants(arguments.what[0], model, images, arguments.device)[arguments.alone]()
    if arguments.device != "cpu":
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:
        # ru_maxrss would be this process's parent's where that was larger: it survives fork and exec.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)  # type: ignore[index]
    return 0


DEFAULT = {"mlp": 10_000, "vgg19": 300}


def compare(arguments: argparse.Namespace, what: str, model: str) -> list[Bound]:
    """Print the table of one contest, and give its bounds."""
    images = images_for(model, arguments.images or DEFAULT[model])
    times = timed(contestants(what, model, images, arguments.device), arguments.repeats, arguments.device)
    medians = {name: statistics.median(values) for name, values in times.items()}
    runs = range(arguments.repeats if arguments.memory else 0)
    memory = {name: statistics.median(peak(arguments, what, model, name) for _ in runs) for name in times if runs}
    print(
        f"\n{what}, {model}, {len(images)} random images, {len(STRENGTHS[what])} strengths, {arguments.repeats} runs, "
        f"{arguments.device}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    rows = [
        [name, f"{median:.3f}", f"{median / medians[OURS]:.2f}", *([f"{memory[name]:.0f}"] if memory else [])]
        for name, median in medians.items()
    ]
    headers = ["", "median seconds", "of the sweep", *(["peak MiB"] if memory else [])]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))
    found = bounds(what, times)
    libraries = [name for name in times if name in peers.PEERS]
    if memory and libraries:
        found.append(
            Bound("peak memory / least of the libraries'", memory[OURS] / min(map(memory.get, libraries)), 1.0)
        )
    print("\n".join(map(str, found)))
    return found


def main() -> int:
    """Print the tables; with --check, exit 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["noise", "fgsm"], help="noise, fgsm, pgd (default: noise fgsm)")
    parser.add_argument("--model", action="append", choices=sorted(SHAPES), help="default: mlp; repeatable")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="also the peak memory of each, in processes of their own")
    parser.add_argument("--check", action="store_true", help="fail above a bound")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.model = arguments.model or ["mlp"]
    if arguments.alone:
        return alone(arguments)
    found = [bound for what in arguments.what for model in arguments.model for bound in compare(arguments, what, model)]
    return int(arguments.check and not all(bound.held for bound in found))


if __name__ == "__main__":
    sys.exit(output.run(main))
