"""
The 19 common corruptions at five severities against imagecorruptions, in images a second on one thread.

    tox -e oracles -- python -m benchmarks.corruptions [--side 32] [--images 100] [--repeats 3] [--check]

Ours corrupts a batch, imagecorruptions an image at a time, which is all that it offers. Both run in one process, in
turn; a ratio is the median over the pairs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from tabulate import tabulate

from robustness.perturbations import Batch
from robustness.perturbations.common_corruptions.corruption import WORST, CommonCorruption
from robustness.perturbations.common_corruptions.severities import NAMES
from robustness.util import output
from robustness.util.rng import Purpose, generator

Times = dict[str, list[tuple[float, float]]]
"""For each corruption, the processor seconds of all severities, ours and theirs, of each repetition."""
BOUND = 3.0
"""All corruptions together must be so many times as fast."""


def pictures(count: int, side: int) -> np.ndarray:
    """Return colour pictures, (N, H, W, 3), whose times do not depend on what they show."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def ours(images: np.ndarray, name: str) -> None:
    """Corrupt a batch at every severity, as a sweep does."""
    inputs, corruption = torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255, CommonCorruption(name=name)
    seeds = torch.from_numpy(corruption.draw(generator(0, Purpose.NOISE), inputs.shape))
    batch = Batch(torch.nn.Identity(), inputs, torch.zeros(len(inputs), dtype=torch.long), seeds)
    perturb, out = corruption.prepare(batch), torch.empty_like(inputs)
    for severity in range(1, WORST + 1):
        perturb(severity, out)


def theirs(images: np.ndarray, name: str) -> None:
    """Corrupt an image at a time at every severity."""
    import imagecorruptions

    for image in images:
        for severity in range(1, WORST + 1):
            imagecorruptions.corrupt(image, severity, name.replace("-", "_"))


def seconds(call: Callable[[np.ndarray, str], None], images: np.ndarray, name: str) -> float:
    """Return the processor time of a call."""
    started = time.process_time()
    call(images, name)
    return time.process_time() - started


def measure(images: np.ndarray, names: Sequence[str], repeats: int) -> Times:
    """Time both in turn, after a warm-up, in which theirs is compiled."""
    times: Times = {}
    for name in names:
        ours(images[:2], name)
        theirs(images[:2], name)
        times[name] = [(seconds(ours, images, name), seconds(theirs, images, name)) for _ in range(repeats)]
    return times


def speedups(times: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, float]:
    """
    Return how many times as fast ours is: for each corruption, for all together, and the geometric mean.

    >>> speedups({"fog": [(1.0, 2.0)], "snow": [(1.0, 8.0)]})
    {'fog': 2.0, 'snow': 8.0, 'all together': 5.0, 'geometric mean': 4.0}
    """
    each = {name: statistics.median(b / a for a, b in pairs) for name, pairs in times.items()}
    runs = list(zip(*times.values(), strict=True))
    whole = statistics.median(sum(b for _, b in run) / sum(a for a, _ in run) for run in runs)
    return {**each, "all together": whole, "geometric mean": statistics.geometric_mean(each.values())}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row per corruption; with --check, exit 1 if all together miss the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=32, help="pixels of a side (default: 32)")
    parser.add_argument("--images", type=int, default=100, help="in one batch (default: 100)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--check", action="store_true", help=f"fail below {BOUND:g} times as fast, all together")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # theirs
    torch.set_num_threads(1)
    images = pictures(options.images, options.side)
    times = measure(images, options.only, options.repeats)
    found, made = speedups(times), WORST * len(images)
    rows = [
        [name, *(f"{made / statistics.median(pair[i] for pair in times[name]):.0f}" for i in (0, 1)), f"{ratio:.1f}"]
        if name in times else [name, "", "", f"{ratio:.1f}"]
        for name, ratio in found.items()
    ]  # fmt: skip
    print(
        tabulate(
            rows,
            ["corruption", "images / second", "imagecorruptions", "times as fast"],
            "github",
            disable_numparse=True,
        )
    )
    return int(options.check and found["all together"] < BOUND)


if __name__ == "__main__":
    sys.exit(output.run(main))
