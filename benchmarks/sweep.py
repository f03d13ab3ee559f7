"""
The noise sweep against a bare loop that does only what cannot be left out.

    python -m benchmarks.sweep [--images 10000] [--repeats 5] [--check]

Both run in one process, in turn; the ratio of each pair is what counts, for the machine's speed drifts.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from tabulate import tabulate

from models.mlp import mlp
from robustness.datasets.images import Images, from_arrays
from robustness.draws import CHUNK, Purpose, generator
from robustness.perturbations import Normal
from robustness.sweep import sweep

AMPLITUDES = [round(0.1 * i, 1) for i in range(11)]
BATCH_SIZES = (125, 250, 500, 1000)
BOUND = 1.15


def bare_loop(module: torch.nn.Module, images: Images, batch_size: int) -> np.ndarray:
    """Give the predicted classes, (11, N): the same draws, clipping, forwards and argmax, and nothing else."""
    predictions = np.empty((len(AMPLITUDES), len(images)), np.int64)
    for chunk, first in enumerate(range(0, len(images), CHUNK)):
        size = min(CHUNK, len(images) - first)
        drawn = generator(0, Purpose.NOISE, chunk).standard_normal((size, *images.shape), dtype=np.float32)
        noise = torch.from_numpy(drawn).clamp_(-1, 1)
        for start in range(0, size, batch_size):
            stop = min(start + batch_size, size)
            inputs = torch.from_numpy(images.batch(first + start, first + stop))
            with torch.inference_mode():
                for i, amplitude in enumerate(AMPLITUDES):
                    logits = module(torch.add(inputs, noise[start:stop], alpha=amplitude).clamp_(0, 1))
                    predictions[i, first + start : first + stop] = logits.argmax(1).numpy()
    return predictions


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(count: int, repeats: int) -> tuple[list[list[object]], float]:
    """Give a row per contestant, and the median over the pairs of sweep / bare loop at its best batch size."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    images = from_arrays(pixels, np.arange(count) % 10)
    module = mlp().eval()
    contestants: dict[str, Callable[[], object]] = {
        f"bare loop, batch {size}, {torch.get_num_threads()} threads": lambda size=size: bare_loop(module, images, size)
        for size in BATCH_SIZES
    }
    ours = "sweep, with probabilities, loss and SNR"
    contestants[ours] = lambda: sweep(module, images, Normal(bound=1.0), AMPLITUDES)
    for call in contestants.values():
        call()  # warm-up
    times = {name: [seconds(call) for _ in range(1)] for name, call in contestants.items()}
    for _ in range(repeats - 1):
        for name, call in contestants.items():
            times[name].append(seconds(call))
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((name for name in medians if name != ours), key=medians.__getitem__)
    ratio = statistics.median(a / b for a, b in zip(times[ours], times[best], strict=True))
    rows: list[list[object]] = [
        [name, round(medians[name], 3), round(medians[name] / medians[best], 2)] for name in contestants
    ]
    return rows, ratio


def main() -> int:
    """Print the table; with --check, exit 1 where the bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--check", action="store_true", help=f"fail above {BOUND} times the bare loop")
    arguments = parser.parse_args()
    rows, ratio = compare(arguments.images, arguments.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{arguments.images} random 28x28 images, MLP 784-512-512-10, 11 amplitudes, {arguments.repeats} runs, cpu")
    print(tabulate(rows, headers=["", "median seconds", "of the best bare loop"], tablefmt="github"))
    print(f"sweep / best bare loop: {ratio:.3f} (median over pairs; bound {BOUND}); peak memory {peak:.0f} MiB")
    return int(arguments.check and ratio > BOUND)


if __name__ == "__main__":
    sys.exit(main())
