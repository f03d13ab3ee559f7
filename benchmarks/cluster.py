"""
What a cluster of Ray's costs and gives: two workers against one, and one against a plain sweep on one core.

    python -m benchmarks.cluster [--chunks 20] [--workers 1 2] [--rounds 3] [--check]

A convolutional network on random 32×32 images, one perturbation at five strengths, so many chunks of 1,000 images.
Times are from the moment when every worker should have finished a chunk to the last one: start-up aside. Of so many
rounds, in which all take turns, each has its median. Plain sweeps are confined to one core, in processes of their own;
several side by side, which share nothing, are what this machine itself gives.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median

import numpy as np
from tabulate import tabulate

from robustness import cards
from robustness.engines import fill, parse
from robustness.util import hardware, output
from robustness.util.rng import CHUNK
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

TWO, PLAIN = 1.8, 1.1
"""Two workers are at least so many times as fast as one; one takes at most so many times the plain sweep's time."""
NET = """
from torch import nn

def net():
    layers = [nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24 * 64, 10))
"""
CARD = """
name = "timed"
[model]
factory = "timed_net:net"
seed = 0
[data]
name = "array"
file = "./images.npz"
[sweeps.normal]
kind = "gaussian"
strengths = [0.1, 0.2, 0.3, 0.4, 0.5]
"""


class Clock:
    """A progress that notes when how many images were done."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def __call__(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Begin to note."""
        return nullcontext(lambda done, total: self.seen.append((time.perf_counter(), done)))

    def seconds(self, workers: int = 1) -> float:
        """
        Return the seconds per chunk, start-up aside.

        From the first chunk on would give two workers the second one for nothing, for it is done by then too.
        """
        began, first = next(each for each in self.seen if each[1] >= workers * CHUNK)
        ended, last = self.seen[-1]
        return (ended - began) / (last - first) * CHUNK


def project(folder: Path, chunks: int) -> Path:
    """Write a card with its model and images; give its path."""
    pixels = np.random.default_rng(0).integers(0, 256, (chunks * CHUNK, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", test_x=pixels, test_y=np.arange(len(pixels)) % 10)
    (folder / "pyproject.toml").touch()
    (folder / "timed_net.py").write_text(NET)
    (folder / "card.toml").write_text(CARD)
    return folder / "card.toml"


def workspace(path: Path, name: str, clock: Clock) -> Workspace:
    """Return a workspace with a store of its own, in which the clean pass is there already."""
    made = Workspace(Store(path.parent / name), path.parent, threads=1)
    made.evidence(cards.load(path))
    made.progress = clock
    return made


def plain(path: Path, core: int) -> float:
    """Sweep in this process, confined to one core."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})
    clock = Clock()
    workspace(path, f"plain-{os.getpid()}", clock).evidence(cards.load(path), "normal")
    return clock.seconds()


def side_by_side(path: Path, count: int) -> float:
    """Sweep all images in each of so many processes, a core each; give the seconds a chunk of all together."""
    command = [sys.executable, "-m", "benchmarks.cluster", "--plain", str(path), "--core"]
    started = [subprocess.Popen([*command, str(core)], stdout=subprocess.PIPE, text=True) for core in range(count)]
    said = [each.communicate()[0] for each in started]
    if any(each.returncode for each in started):
        raise SystemExit("a plain sweep failed")
    return 1 / sum(1 / float(text.split()[-1]) for text in said)


def by_ray(path: Path, workers: int, turn: int) -> float:
    """Sweep on a cluster of this machine."""
    clock = Clock()
    card = cards.load(path)
    fill(workspace(path, f"ray-{workers}-{turn}", clock), parse(f"ray,workers={workers}"), [(card, "normal")], "cpu")
    return clock.seconds(workers)


def main() -> int:
    """Print the table; with ``--check`` fail where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=20, help="of 1,000 images each")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="how many of Ray's, of a thread each")
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are shown")
    parser.add_argument("--check", action="store_true", help=f"fail below {TWO} by two, or above {PLAIN} by one")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        print(plain(options.plain, options.core))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = project(Path(folder), options.chunks)
        cores = [count for count in options.workers if count <= hardware.cpu_count()]
        bare: dict[int, list[float]] = {count: [] for count in (1, *cores)}
        times: dict[int, list[float]] = {workers: [] for workers in options.workers}
        for turn in range(options.rounds):
            for count, found in bare.items():
                found.append(side_by_side(path, count))
            for workers, found in times.items():
                found.append(by_ray(path, workers, turn))
    alone, one, two = median(bare[1]), median(times.get(1, [math.nan])), median(times.get(2, [math.nan]))
    rows = [[f"plain, {count} core(s)", median(found), alone / median(found)] for count, found in bare.items()]
    rows += [[f"ray, {count} worker(s)", median(found), alone / median(found)] for count, found in times.items()]
    print(tabulate(rows, ["", "seconds a chunk", "times as fast"], tablefmt="github", floatfmt=".3f"))
    broken = one / two < TWO or one / alone > PLAIN  # neither, where one of them was not asked for
    return int(options.check and broken)


if __name__ == "__main__":
    sys.exit(output.run(main))
