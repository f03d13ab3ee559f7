"""A project for the plugin to run in: a linear classifier on the embedded digits, and its own copy of the suites."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers import LIMIT, ROOT

from robustness.workspace.store import Store

NET = '''
import os, signal, sys, time
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent


def log(name):
    with (HERE / name).open("a") as stream:
        stream.write(f"{os.getpid()}\\n")


class Net(nn.Sequential):
    def forward(self, inputs):
        log("passes")
        noisy = bool(inputs[:, :, 0, 0].any())  # the corner of every clean digit is black
        logits = super().forward(inputs)
        pass  # here
        return logits


def net(outputs=10):
    log("modules")
    return Net(nn.Flatten(), nn.Linear(784, outputs))


def fit(module, images, job):
    """Put a class's mean image into its row: as good as a short training, in a moment."""
    log("trainings")
    pass  # in training
    inputs = images.batch(0, len(images)).reshape(len(images), -1)
    means = np.stack([inputs[images.labels == c].mean(0) for c in range(10)])
    module[1].weight.data = torch.from_numpy(means)
    module[1].bias.data = torch.from_numpy(-(means**2).sum(1) / 2)
    return module
'''

CARD = """\
name = "tiny"
scale = "smoke"

[model]
factory = "tiny_net:net"

[recipe]
callable = "tiny_net:fit"

[data]
name = "digits"
split = { kind = "balanced", per_class = 20 }

[sweeps.normal]
kind = "gaussian"
strengths = [0.3, 0.6]

[sweeps.uniform]
kind = "uniform"
strengths = [0.5]

[claims.clean]
accuracy = 0.8
loss = 2.0

[claims.normal]
accuracy = [0.7, 0.5]
precision = [0.7, "no claim possible"]

[claims.uniform]
accuracy = 0.7
"recall[3]" = 0.5
"""

IDS = [
    "suites/test_clean.py::test_clean[tiny:clean:0:accuracy]",
    "suites/test_clean.py::test_clean[tiny:clean:0:loss]",
    "suites/test_noise.py::test_noise[tiny:normal:0.3:accuracy]",
    "suites/test_noise.py::test_noise[tiny:normal:0.3:precision]",
    "suites/test_noise.py::test_noise[tiny:normal:0.6:accuracy]",
    "suites/test_noise.py::test_noise[tiny:uniform:0.5:accuracy]",
    "suites/test_noise.py::test_noise[tiny:uniform:0.5:recall[3]]",
]

HOOK = """
def pytest_robustness_models(config):
    return [config.rootpath / "models"]
"""


@dataclass(frozen=True)
class Run:
    """What a run of pytest left: exit code, what it printed on each stream, the JSON report, and how long it took."""

    ret: int
    out: str
    err: str
    report: dict
    seconds: float

    @property
    def outcomes(self) -> dict[str, str]:
        """The outcome of every claim, by the claim's id, in the report's order."""
        return {claim["id"]: claim["outcome"] for claim in self.claims}

    @property
    def claims(self) -> list[dict]:
        return [claim for model in self.report["models"] for claim in model["claims"]]

    @property
    def messages(self) -> list[str]:
        return [claim["message"] for claim in self.claims]

    @property
    def summary(self) -> str:
        """What the plugin's section says under the tables."""
        return self.out.partition(" robustness ==")[2]


@dataclass(frozen=True)
class Project:
    """A folder with one card and the module that it names; `run` runs pytest there on the project's own store."""

    pytester: pytest.Pytester
    warm: Path
    started: list[subprocess.Popen] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.pytester.path

    @property
    def card(self) -> Path:
        return self.root / "models" / "tiny.toml"

    @property
    def net(self) -> Path:
        return self.root / "tiny_net.py"

    @property
    def store(self) -> Path:
        return self.root / "store"

    def fill(self) -> Project:
        """Put weights and all evidence into the store, as an earlier run of the same project would have."""
        shutil.copytree(self.warm, self.store)
        return self

    def edit(self, path: Path, *pairs: tuple[str, str]) -> Project:
        text = path.read_text()
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        path.write_text(text)
        return self

    def on_forward(self, code: str) -> Project:
        """Have the model do something in each pass; `noisy` says whether the images are perturbed."""
        return self.edit(self.net, ("pass  # here", code))

    def in_training(self, code: str) -> Project:
        return self.edit(self.net, ("pass  # in training", code))

    def write(self, name: str, text: str) -> Project:
        """Write a file, with the folders that it lies in."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return self

    def run(self, *arguments: object, **how: bool) -> Run:
        """Run pytest with a JSON report, which is read."""
        return self.plain("--robustness-report=report.json", *arguments, **how)

    def plain(self, *arguments: object, apart: bool = False) -> Run:
        """Run pytest; in this process, which has torch already, unless workers or ``apart`` ask for one of its own."""
        how = self.pytester.runpytest_inprocess
        if apart or "-n2" in arguments:
            how = partial(self.pytester.runpytest_subprocess, timeout=LIMIT)
        report = self.root / "report.json"
        report.unlink(missing_ok=True)
        started = time.monotonic()
        result = how("-p", "no:cacheprovider", *map(str, arguments))
        seconds = time.monotonic() - started
        read = json.loads(report.read_text()) if report.exists() else {}
        return Run(int(result.ret), result.stdout.str(), result.stderr.str(), read, seconds)

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen:
        """Start pytest in another process and go on."""
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, arguments)],
            cwd=self.root,
            env={**os.environ, **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.started.append(process)
        return process

    def logged(self, name: str, *, of: Path | None = None) -> list[int]:
        """Return the processes that logged "passes", "modules" or "trainings", once each time."""
        log = (of or self.root) / name
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    def entries(self, kind: str = "evidence", *, of: Path | None = None) -> dict[str, bytes]:
        """Return the store's files of a kind, by name."""
        return {path.name: path.read_bytes() for path in ((of or self.store) / kind).glob("??/*")}

    def evidence(self, *, of: Path | None = None) -> dict[str, str]:
        """Return the digest of each evidence in the store, by its label; none may be unreadable."""
        found = {}
        for path, evidence in Store(of or self.store).entries():
            assert not isinstance(evidence, Exception), (path, evidence)
            found[evidence.provenance["label"]] = evidence.digest
        return found

    def junit(self, file: str = "junit.xml") -> dict[str, tuple[str, dict[str, str]]]:
        """Give "passed", "failure", "error" or "skipped" and the properties of every test; none may be there twice."""
        found = {}
        for case in ElementTree.parse(self.root / file).iter("testcase"):
            fate = next((c.tag for c in case if c.tag in ("failure", "error", "skipped")), "passed")
            name = case.attrib["name"]
            if name.endswith("test_timing"):
                continue  # skipped as one: nobody asked for it
            assert name not in found, name
            found[name] = fate, {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
        return found


def write(root: Path) -> None:
    """Write the tiny project."""
    (root / "pyproject.toml").touch()
    (root / "conftest.py").write_text(HOOK)
    (root / "tiny_net.py").write_text(NET)
    (root / "models").mkdir()
    (root / "models" / "tiny.toml").write_text(CARD)
    # What needs no claims has tests of its own, and imports Hypothesis, which this process must not do twice.
    apart = shutil.ignore_patterns("__pycache__", "test_properties.py", "test_doubts.py")
    shutil.copytree(ROOT / "suites", root / "suites", ignore=apart)
