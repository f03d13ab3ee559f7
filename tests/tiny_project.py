"""A project of somebody's own, small enough to be trained in a moment: a linear classifier on the embedded digits."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import helpers

from robustness import cards
from robustness.cards import Card
from robustness.workspace.store import Store
from robustness.workspace.training import TrainingJob
from robustness.workspace.workspace import Workspace

MODULE = """
from pathlib import Path
import torch
from torch import nn
from torch.nn import functional as F


def factory(nan_above=2.0):
    class Linear(nn.Sequential):
        def forward(self, inputs):
            logits = super().forward(inputs)
            return logits / (inputs[:, :, 0, 0].max() <= nan_above) - logits * 0
    return Linear(nn.Flatten(), nn.Linear(784, 10))


def fit(module, images, job, *, trained, steps=40, **special):
    with Path(trained).open("a") as stream:
        stream.write(f"{job.seed}\\n")
    inputs, labels = torch.from_numpy(images.batch(0, 400)), torch.from_numpy(images.labels[:400].copy())
    weights = list(module.parameters())
    for step in range(steps):  # by hand: importing torch's optimizers takes longer than all of this
        gradients = torch.autograd.grad(F.cross_entropy(module(inputs), labels), weights)
        with torch.no_grad():
            for each, gradient in zip(weights, gradients):
                each -= 0.05 * gradient
        job.report(step + 1, steps)
    what = special.get(f"seed{job.seed}")
    if what == "spoiled":
        module[1].weight.data *= -1
    elif what == "is interrupted" and not Path(trained + ".again").exists():
        Path(trained + ".again").touch()
        raise KeyboardInterrupt
    return module
"""

CARD = """\
# A comment that stays.
name = "tiny"

[model]
factory = "{module}:factory"  # mine
weights = "tiny.safetensors"

[recipe]
callable = "{module}:fit"
arguments = {{ {arguments} }}

[data]
name = "digits"
split = {{ kind = "balanced", per_class = 20 }}

[sweeps.normal]
kind = "gaussian"
strengths = [0.2, 0.9]
"""


@dataclass(frozen=True)
class Project:
    """A folder with a card and the module that it names."""

    root: Path
    module: str

    @property
    def path(self) -> Path:
        return self.root / "models" / "tiny.toml"

    @property
    def source(self) -> Path:
        return self.root / f"{self.module}.py"

    @property
    def weights(self) -> Path:
        return self.root / "models" / "tiny.safetensors"

    @property
    def card(self) -> Card:
        return cards.load(self.path)

    @property
    def workspace(self) -> Workspace:
        return Workspace(Store(self.root / "store"), self.root / "data", threads=1)

    def trained(self) -> list[int]:
        """Return the seeds that were trained, in their order."""
        log = self.root / "trained"
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    def edit(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new, 1))


def failing_training(i: int, task: TrainingJob) -> tuple[Path, list[str]]:
    """Stand in for a training in a process of its own, without the seconds that torch's import takes there."""
    recipe = task.card.file.recipe
    assert recipe is not None
    match recipe.arguments[f"seed{recipe.seed}"]:
        case "raises":
            raise ValueError("no luck")
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(300)
    return Path(), []


def make(root: Path, **special: str) -> Project:
    """Make a project; ``seed1003="spoiled"`` and the like make a training special."""
    arguments = {"trained": str(root / "trained"), **special}
    listed = ", ".join(f'{key} = "{value}"' for key, value in arguments.items())
    helpers.project(root, MODULE, CARD.replace("{arguments}", listed))
    (module,) = (file.stem for file in root.glob("tiny_*.py"))
    return Project(root, module)
