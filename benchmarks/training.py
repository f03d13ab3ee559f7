"""
What a defence's training costs, in images a second beside the plain loop on the same network.

    python -m benchmarks.training [--width 0.125] [--batches 8] [--repeats 5] [--device cpu] [--check]

Each contestant goes through the training loop itself, for one epoch over random images; they take turns, and the ratio
of each pair is what counts. Two trainings side by side use one thread each, so that one thread is what is timed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tabulate import tabulate

from benchmarks.sweep import Bound, images_for, ratio, timed
from models.defences import adversarial, null, plain, twon
from models.vgg import vgg
from robustness.data.images import Images
from robustness.util import output
from robustness.workspace.recipes import Job

PLAIN = "plain"
DEFENCES: dict[str, tuple[Callable[..., Any], int, float | None]] = {
    PLAIN: (plain.fit, 10, None),
    "α-loss (ADV)": (adversarial.fit, 10, 2.8),
    "half perturbed (2N)": (twon.fit, 20, 1.8),
    "half perturbed (NULL)": (null.fit, 11, 1.8),
}
"""Recipe, outputs, and how many times the plain loop it may cost."""
BATCH = 128


def contestants(width: float, images: Images, device: str) -> dict[str, Callable[[], object]]:
    """Return an epoch of each, on a network of its own."""

    def epoch(fit: Callable[..., Any], outputs: int) -> Callable[[], object]:
        module = vgg(19, outputs=outputs, width=width)
        return lambda: fit(module.train(), images, Job(0, device=device), epochs=1, batch_size=BATCH, held_out=0.0)

    return {name: epoch(fit, outputs) for name, (fit, outputs, _) in DEFENCES.items()}


def compare(width: float, batches: int, repeats: int, device: str) -> list[Bound]:
    """Print the table, and give the bounds."""
    images = images_for("vgg19", batches * BATCH)
    times = timed(contestants(width, images, device), repeats, device)
    rows = [
        [name, f"{len(images) * len(found) / sum(found):.0f}", f"{ratio(times, name, PLAIN):.2f}"]
        for name, found in times.items()
    ]
    print(
        f"\nVGG-19 at width {width:g}, {len(images)} random images in batches of {BATCH}, {repeats} runs, {device}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    print(tabulate(rows, headers=["", "images a second", "of plain's time"], tablefmt="github", disable_numparse=True))
    found = [
        Bound(f"{name} / plain", ratio(times, name, PLAIN), most)
        for name, (_, _, most) in DEFENCES.items()
        if most is not None
    ]
    print("\n".join(map(str, found)))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; with --check, exit 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = compare(options.width, options.batches, options.repeats, options.device)
    return int(options.check and not all(bound.held for bound in found))


if __name__ == "__main__":
    sys.exit(output.run(main))
