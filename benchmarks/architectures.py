"""
Architectures of timm and torchvision, with random weights, through the profile `quick`: does each give its tables?

    python -m benchmarks.architectures [NAME ...] [--anew] [--render]

Eight JPEGs are brought to each model's native size as its library brings them there, and swept as a user's are, by a
card made of options. Every architecture gives numbers, or a reason that says what to do. Results are kept one by one in
architectures.json, beside this file: what is there already for these versions is not made again (`--anew`: it is). The
page docs/architectures.md is made of them; `--render` makes it alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.folder import write
from robustness import cards
from robustness.cards.from_options import CardOptions
from robustness.errors import RobustnessError
from robustness.metrics.evidence import OK, SEMANTICS
from robustness.plugin import measured as measuring
from robustness.util import hardware, output
from robustness.util.atomic_write import atomic_writer
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

ARCHITECTURES = (
    "timm:eva02_tiny_patch14_224", "timm:mixer_s32_224", "torchvision:mobilenet_v3_small",
    "torchvision:shufflenet_v2_x0_5", "torchvision:mnasnet0_5", "torchvision:squeezenet1_1", "timm:lcnet_050",
    "timm:efficientvit_b0", "timm:levit_128s", "timm:pvt_v2_b0", "timm:xcit_nano_12_p16_224",
    "timm:vit_tiny_patch16_224", "timm:edgenext_xx_small", "timm:mobilevit_xxs", "timm:gmlp_ti16_224",
    "timm:convnext_atto", "timm:ghostnet_100", "timm:hgnetv2_b0", "timm:starnet_s1", "torchvision:regnet_y_400mf",
    "torchvision:efficientnet_b0", "torchvision:mobilenet_v2", "torchvision:alexnet",
    "timm:deit_tiny_distilled_patch16_224", "timm:crossvit_tiny_240", "timm:fastvit_t8", "timm:mambaout_femto",
    "timm:tiny_vit_5m_224", "torchvision:googlenet", "torchvision:resnet18", "torchvision:densenet121",
    "torchvision:swin_t", "torchvision:vgg11", "torchvision:vit_b_16",
)  # fmt: skip
"""Convolutional networks, transformers and MLP-mixers, the small ones of each family; what takes longest comes last."""
IMAGES, SEED, PROFILE = 8, 0, "quick"
CLASSES = ("goldfish", "tench")
"""What the pictures are called: classes of ImageNet, which the models call so too."""
RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")

Result = dict[str, Any]


def measured(factory: str, folder: Path) -> Result:
    """Sweep one architecture on pictures that are made in a folder; give what came of it, or why nothing did."""
    result: Result = {"factory": factory, "cells": 0, "numbers": 0, "said": []}
    began = time.process_time()
    try:
        _sweep(factory, folder, result)
    except RobustnessError as error:
        result["said"] = [str(error).replace(f"{folder}/", "")]
    except Exception as error:  # of a library: a user could not tell what to do
        result |= {"said": [f"{type(error).__name__}: {error}"], "unclear": True}
    return result | {"seconds": round(time.process_time() - began, 1), "about": about()}


def _sweep(factory: str, folder: Path, result: Result) -> None:
    """Sweep it, and write down what came of it as far as it got."""
    from robustness.doubts.checks import run_checks

    write(folder / "pictures", IMAGES, CLASSES)
    draft = CardOptions(folder, factory, dataset="pictures")
    table = draft.table()
    table["model"]["seed"] = SEED
    card, workspace = cards.parse_card(table, draft.path, folder), Workspace(Store(folder / "store"), folder)
    images = workspace.images(card)
    result["shape"] = list(images.shape)
    card = measuring.without_claims(card, PROFILE, images.shape)
    module = workspace.classifier(card).module
    result["parameters"] = sum(each.numel() for each in module.parameters())
    found = [workspace.evidence(card, sweep).status for sweep in ("clean", *card.file.sweeps)]
    failed = Counter(status for sweep in found for status in sweep if status != OK)
    result["cells"] = sum(map(len, found))
    result["numbers"] = result["cells"] - failed.total()
    result["said"] = [f"{count} cells: {status}" for status, count in failed.items()]
    if failed:
        doubts = run_checks(module, images, decision=card.file.model.decision, attacked=False)
        result["said"] += [f"doubt, {name}: {said['seen']}" for name, said in doubts.items() if said["doubted"]]


def about() -> dict[str, Any]:
    """Say what a result was made with, and when."""
    return {**_versions(), "made": datetime.now(UTC).date().isoformat()}


def _versions() -> dict[str, Any]:
    found = {name: version(name) for name in PACKAGES}
    return {
        **found, "python": platform.python_version(), "semantics": SEMANTICS,
        "device": hardware.device_fingerprint("cpu"), "seed": SEED,
    }  # fmt: skip


def stands(result: Mapping[str, Any] | None) -> bool:
    """Return whether a result was made with what is installed now."""
    return result is not None and {**result["about"], "made": None} == {**_versions(), "made": None}


def read() -> dict[str, Result]:
    """Return the results that are kept, by architecture."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    return {result["factory"]: result for result in kept}


def keep(results: Mapping[str, Result]) -> None:
    """Write results and page, those of the list in its order."""
    kept = [results[name] for name in ARCHITECTURES if name in results]
    for path, text in ((RESULTS, json.dumps(kept, indent=1) + "\n"), (PAGE, page(kept))):
        with atomic_writer(path) as stream:
            stream.write(text.encode())


def page(results: Sequence[Result]) -> str:
    """Return the page that shows all results."""
    complete = sum(result["numbers"] == result["cells"] > 0 for result in results)
    partly = sum(0 < result["numbers"] < result["cells"] for result in results)
    none, every = len(results) - complete - partly, len(ARCHITECTURES)
    said = f"All {every}" if len(results) == every else f"{len(results)} of the {every}"
    rows = [
        [
            f"`{result['factory']}`",
            f"{result['parameters'] / 1e6:.1f}" if "parameters" in result else "",
            "×".join(map(str, result["shape"][1:])) if "shape" in result else "",
            f"{result['numbers']} of {result['cells']}" if result["cells"] else "none",
            f"{result['seconds']:.0f}",
            "; ".join(result["said"]).replace("|", "\\|"),
        ]
        for result in results
    ]
    headers = ["factory", "million weights", "images", "cells with numbers", "seconds of a core", "what the run said"]
    table = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
    return f"""\
# Architectures

Does a model work here that was not written for it? `python -m benchmarks.architectures` puts architectures of timm
and torchvision through the profile `{PROFILE}` ([your own model](own-model.md#profiles)), with random weights:
{IMAGES} JPEGs of two classes of ImageNet, brought to the size, and by the way, that the library names.
{said} on its list were measured: {complete} give numbers in every cell, {partly} in some, {none} in none.
What has none, or not in every cell, says why in the last column. Of random weights the numbers mean nothing, and are
left out.

{table}

Made by the command, which goes on where it was stopped: {"; ".join(_provenance(results))}.
"""


def _provenance(results: Sequence[Result]) -> list[str]:
    """Say what results were made with, alike ones together."""
    made = Counter(tuple(result["about"].items()) for result in results)
    return [f"{count} with " + ", ".join(f"{name} {value}" for name, value in of) for of, count in made.items()]


def main(given: Sequence[str] | None = None) -> int:
    """Measure what is asked for; exit 1 where one gives neither numbers nor a clear reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures of the list (default: all)")
    parser.add_argument("--anew", action="store_true", help="measure again what is kept")
    parser.add_argument("--render", action="store_true", help="measure nothing, make the page anew")
    options = parser.parse_args(given)
    if unknown := [name for name in options.names if name not in ARCHITECTURES]:
        parser.error(f"`NAME` must be one of {', '.join(ARCHITECTURES)}, got {', '.join(unknown)}")
    results, chosen = read(), options.names or ARCHITECTURES
    due = [name for name in chosen if options.anew or not stands(results.get(name))]
    for i, name in enumerate([] if options.render else due):
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measured(name, Path(folder))
        keep(results)
        said = "; ".join(results[name]["said"])
        cells = f"{results[name]['numbers']} of {results[name]['cells']} cells, {results[name]['seconds']} s"
        print(f"{i + 1} of {len(due)}: {name}: {cells}{': ' if said else ''}{said}", flush=True)
    keep(results)
    return int(any(results[name].get("unclear") for name in chosen if name in results))


if __name__ == "__main__":
    sys.exit(output.run(main))
