"""
AutoAttack against torchattacks' attacks in the same order, and strengths that share their work against single runs.

    tox -e oracles -- python -m benchmarks.autoattack [--models CARD=EPSILON ...] [--images N] [--queries N]

Both attack the same images in one process with one thread. torchattacks' own class `AutoAttack` is left out: it takes
fewer target classes and attacks all images again with each member.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from robustness import cards
from robustness.data.images import Images
from robustness.perturbations import AutoAttack
from robustness.sweep.runner import run_sweep
from robustness.util import torchvision_compat
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

MODELS = ("digits-cnn=0.1", "digits-wrn-adv=0.05", "digits-parseval-adv=0.05")
BATCH = 100
LADDER = (1 / 3, 2 / 3, 1.0, 4 / 3, 5 / 3, 2.0)
"""Six strengths, as parts of ε."""


def torchattacks_members(module: nn.Module, epsilon: float, queries: int) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """Return the members of the standard AutoAttack in torchattacks' implementation, in their order."""
    _ = torchvision_compat.torchvision  # torchattacks imports it
    import torchattacks

    common = {"norm": "Linf", "eps": epsilon}
    return [
        torchattacks.APGD(module, **common, steps=100, loss="ce"),
        torchattacks.APGDT(module, **common, steps=100, n_classes=10),
        torchattacks.FAB(module, **common, steps=100, multi_targeted=True, n_classes=10),
        torchattacks.Square(module, **common, n_queries=queries),
    ]


def reference_accuracy(module: nn.Module, images: Images, epsilon: float, queries: int) -> float:
    """Return the accuracy that torchattacks' members leave, each on the images that are left."""
    robust = 0
    for start in range(0, len(images), BATCH):
        stop = min(start + BATCH, len(images))
        inputs, labels = torch.from_numpy(images.batch(start, stop)), torch.from_numpy(images.labels[start:stop].copy())
        left = torch.arange(len(inputs))[predictions(module, inputs) == labels]
        for attack in torchattacks_members(module, epsilon, queries):
            if len(left):
                left = left[predictions(module, attack(inputs[left], labels[left])) == labels[left]]
        robust += len(left)
    return robust / len(images)


def predictions(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return the classes, (N,)."""
    with torch.inference_mode():
        return module(inputs).argmax(1)


def timed(function: Callable[[], float]) -> tuple[float, float]:
    """Return a function's value and its processor seconds."""
    start = time.process_time()
    return function(), time.process_time() - start


def compare(name: str, epsilon: float, count: int, queries: int) -> list[object]:
    """Return a row: accuracy and seconds of both at ε, and the cost of six shared strengths to six single runs."""
    card = cards.load(Path("models") / f"{name}.toml")
    workspace = Workspace(Store(Path(".robustness")), Path("data"), threads=1)
    module, images = workspace.classifier(card).module, workspace.images(card)
    images = images.select(np.arange(min(count, len(images))), f"{count} of {images.name}")

    def attack(*strengths: float) -> float:
        evidence = run_sweep(module, images, AutoAttack(queries=queries), strengths, batch_size=BATCH, threads=1)
        return float((evidence.predictions[-1] == evidence.labels).mean())

    ours, seconds = timed(lambda: attack(epsilon))
    theirs, reference = timed(lambda: reference_accuracy(module, images, epsilon, queries))
    sizes = [round(epsilon * part, 6) for part in LADDER]
    shared = timed(lambda: attack(*sizes))[1]
    single = timed(lambda: sum(attack(each) for each in sizes))[1]
    return [name, epsilon, len(images), ours, theirs, seconds, reference, seconds / reference, shared / single]


def main(arguments: list[str] | None = None) -> int:
    """Attack each model in both ways, and print a row per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="CARD=EPSILON", default=MODELS)
    parser.add_argument("--images", type=int, default=200, help="the first images of each card")
    parser.add_argument("--queries", type=int, default=1000, help="queries of Square")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for name, epsilon in (pair.split("=") for pair in options.models):
        rows.append(compare(name, float(epsilon), options.images, options.queries))
        print(*rows[-1], flush=True)
    header = ["model", "ε", "n", "ours", "torchattacks", "s", "torchattacks s", "ratio", "six ε shared / single"]
    print(tabulate(rows, header, floatfmt=".3f"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
