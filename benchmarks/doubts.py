"""
How often doubts err: on undefended models, which none may be raised on, and on ill ones, which some must.

    python -m benchmarks.doubts [--profiles quick default thorough] [--only NAME ...] [--library] [--mnist ROOT]

Models are trained here, in seconds to a minute each (``--library`` has those of timm, ``--mnist`` those on MNIST), and
looked at as a run without a card looks at them, under the iterated attacks of each profile.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from tabulate import tabulate
from torch import nn

from robustness import data
from robustness.cards import profiles
from robustness.cards.schema import SweepTable
from robustness.data import DataSpec, Images
from robustness.doubts.card_doubts import iterative_attacks, linf_attacks
from robustness.doubts.checks import run_checks

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import healthy_models
import helpers
import ill_models

PROFILES = ("quick", "default", "thorough")
MNIST = ("perceptron", "CNN, batch norm", "LeNet-5", "VGG-like", "ResNet")


def raised(module: nn.Module, images: Images, profile: str) -> dict[str, str]:
    """Return the doubts that are open on a model under the attacks of a profile, and what was seen."""
    tables = {name: SweepTable.model_validate(table) for name, table in profiles.sweeps(profile, images.shape).items()}
    epsilon = max(max(budgets) for _, budgets in linf_attacks(tables).values())
    with contextlib.redirect_stdout(io.StringIO()):  # a model may print
        answers = run_checks(module, images, epsilon=epsilon, attacks=iterative_attacks(tables))
    return {name: one["seen"] for name, one in answers.items() if one["doubted"] or one.get("broken")}


def healthy(options: argparse.Namespace) -> Iterator[tuple[str, nn.Module, Images]]:
    """Train and return undefended models, by name, and the images that they are looked at on."""
    names = [*healthy_models.ARCHITECTURES, *(healthy_models.LIBRARY if options.timm else ())]
    for name in names:
        if not options.only or name in options.only:
            with contextlib.redirect_stdout(io.StringIO()):
                module = healthy_models.make(name)
            yield name, module, healthy_models.digits("test")
    if options.mnist:
        spec = DataSpec.model_validate({"name": "mnist"})
        train, test = (
            data.load(spec, part, root=options.mnist, cache=Path(options.mnist)) for part in ("train", "test")
        )
        few = train.select(range(0, len(train), 12), "mnist")
        for seed, name in enumerate(MNIST):
            if not options.only or f"{name}, MNIST" in options.only:
                module = healthy_models.make(name, seed=seed, epochs=3, images=few)
                yield f"{name}, MNIST", module, test


def missed(only: Collection[str] | None) -> list[list[str]]:
    """Return a row for each ill model that raises no doubt, or another than its own; the last has the count of all."""
    sound, rows, count = ill_models.train(ill_models.network()), [], 0
    for ill in ill_models.ILL:
        if only and ill.said not in only:
            continue
        torch.manual_seed(0)
        answers = run_checks(ill.make(sound), helpers.digits(ill_models.PER_CLASS), epsilon=ill_models.EPSILON)
        found = [name for name, one in answers.items() if one["doubted"] or one.get("broken")]
        count += 1
        if ill.doubt not in found:
            rows.append([ill.said, ill.doubt, ", ".join(found) or "none"])
    return [*rows, ["in all", str(count), f"{sum(row[2] == 'none' for row in rows)} missed"]]


def main(arguments: list[str] | None = None) -> int:
    """Train, look, and print a row a model and the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", nargs="+", default=PROFILES, choices=PROFILES)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these models alone")
    parser.add_argument("--library", dest="timm", action="store_true", help="those of timm, too")
    parser.add_argument("--mnist", metavar="ROOT", type=Path, help="and five on MNIST, below this data root")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows, red = [], dict.fromkeys(options.profiles, 0)
    for name, module, images in healthy(options):
        clean = accuracy(module, images)
        row, details, start = [name, f"{clean:.3f}"], [], time.process_time()
        for profile in options.profiles:
            found = raised(module, images, profile)
            red[profile] += bool(found)
            row.append(", ".join(found) or "none")
            details += [f"  {profile}: {doubt}: {seen}" for doubt, seen in found.items()]
        rows.append([*row, f"{time.process_time() - start:.0f} s"])
        print("\t".join(rows[-1]), *details, sep="\n", flush=True)
    print(tabulate(rows, ["undefended", "accuracy", *options.profiles, "looked for"], disable_numparse=True))
    print("false: " + rates(red, len(rows)))
    print(tabulate(missed(options.only), ["ill, and not named as such", "its doubt", "raised"], disable_numparse=True))
    return 0


def rates(counts: Mapping[str, int], total: int) -> str:
    """Return counts of models as text, by profile."""
    return ", ".join(f"{profile} {count} of {total}" for profile, count in counts.items())


def accuracy(module: nn.Module, images: Images) -> float:
    """Return the clean accuracy on at most 1,000 images."""
    count = min(1000, len(images))
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        predictions = module(torch.from_numpy(images.batch(0, count).copy())).argmax(1)
    return float((predictions == torch.from_numpy(images.labels[:count].copy())).float().mean())


if __name__ == "__main__":
    raise SystemExit(main())
