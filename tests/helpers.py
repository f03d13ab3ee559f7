"""Makers of small things that many tests need: images, a linear classifier, a whole project, another process."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np

from robustness import data
from robustness.data import DataSpec, Images, from_arrays
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

ROOT = Path(__file__).parents[1]
LIMIT = 600
"""Seconds after which a process of a test is given up: only one that hangs takes so long, on a busy machine too."""
NUMBERS = itertools.count()

MODULE = """
from torch import nn

def factory(classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes))

def recipe(module, images, job):
    job.report(1, 1)
    return module
"""

CARD = """
name = "tiny"

[model]
factory = "{module}:factory"

[recipe]
callable = "{module}:recipe"

[data]
name = "digits"
split = {{ kind = "balanced", per_class = 3 }}

[sweeps.normal]
kind = "gaussian"
strengths = [0.2, 0.8]
"""

ARRAY_CARD = """
name = "tiny"
[model]
factory = "{module}:factory"
seed = 1
[data]
name = "array"
file = "./images.npz"
"""


def images(count: int = 10, shape: tuple[int, ...] = (4, 4), classes: int = 3, seed: int = 0) -> Images:
    """Random bytes with random labels."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
    return from_arrays(pixels, generator.integers(0, classes, count), tuple("abcdefghij"[:classes]))


@cache
def digits(per_class: int = 3) -> Images:
    """Real digits, (1, 28, 28): mostly black, some pixels saturated."""
    spec = DataSpec.model_validate({"name": "digits", "split": {"kind": "balanced", "per_class": per_class}})
    return data.load(spec, "test", root=Path("none"), cache=Path("none"))


def tensors(of: Images):
    """All images, and their labels, as tensors."""
    import torch

    return torch.from_numpy(of.batch(0, len(of))), torch.from_numpy(of.labels.copy())


def map_sizes(network, inputs) -> tuple[list[int], tuple[int, ...]]:
    """The last side of what each convolution of a network gives for some images, and the shape of the logits."""
    from torch import nn

    sizes = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, args, output: sizes.append(output.shape[-1]))
    shape = tuple(network(inputs).shape)
    return sizes, shape


def repvgg_branches(block, inputs):
    """What a block of RepVGG computes in training: the sum of its branches."""
    every = (block.large(inputs), block.small(inputs), inputs)
    return sum(norm(branch) for norm, branch in zip(block.norms, every, strict=False)).relu()


def linear(of: Images, seed: int = 0):
    """A linear classifier for these images, in training mode."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(of.shape)), len(of.classes)))


def project(folder: Path, source: str = MODULE, card: str = CARD, **modules: str) -> Path:
    """
    Write a complete project and give its card's path: ``pyproject.toml``, a module with factory and recipe, the card.

    The module's name, new each time (a process keeps one module of a name), stands for ``{module}`` in the card.
    More ``modules`` are written beside it, with dots for folders: ``**{"package.part": "text"}``.
    """
    name = f"tiny_{os.getpid()}_{next(NUMBERS)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").touch()
    for module, text in {name: source, **modules}.items():
        path = folder / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    path = folder / "models" / "tiny.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(card.format(module=name), encoding="utf-8")
    return path


def open_workspace(path: Path, **settings) -> Workspace:
    """A workspace with a store and a data root beside the project of a card; one thread, as in the tests' workers."""
    root = path.parents[2]
    return Workspace(Store(root / "store"), root / "data", threads=1, **settings)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start another Python process with this checkout on its path; read its ``stdout``, write its ``stdin``."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(code: str, *arguments: object) -> str:
    """Run another Python process and give what it printed; its errors are this test's."""
    process = start(code, *arguments)
    printed, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    return printed


def install_entry_points(site: Path, group: str, points: dict[str, str], name: str) -> None:
    """Write the metadata of a distribution, version 1.2, into a folder of Python's path."""
    info = site / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = [f"{key} = {value}" for key, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    importlib.invalidate_caches()


def forget_entry_points(*registries) -> None:
    """Have registries read their entry points again: they do it once per process."""
    for registry in registries:
        registry.__dict__.pop("_entry_points", None)
        registry._loaded.clear()
