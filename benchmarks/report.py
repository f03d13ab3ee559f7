"""
How long the HTML report of a large run takes, and how large it is: models × 5 perturbations × 11 strengths.

    python -m benchmarks.report [--models 10] [--check]

The evidence is swept before, on the digits in the box; timed is what a run does at its end: the document from stored
evidence, the gallery's pictures made again on the models, and the page. `--check` fails above 20 seconds or 15 MB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from robustness import cards, claims
from robustness.cards import Card
from robustness.reporting import writers
from robustness.reporting.build import build
from robustness.reporting.html import gallery
from robustness.reporting.results import ClaimOutcome, ModelResult
from robustness.reporting.run_info import RunInfo
from robustness.util import output
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

SECONDS, BYTES = 20.0, 15_000_000
NET = """
import torch
from torch import nn

def net(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))

def fit(module, images, job):
    inputs, labels = torch.from_numpy(images.batch(0, len(images))), torch.tensor(images.labels).long()
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), labels).backward()
        optimizer.step()
    return module
"""
CARD = """
name = "model-{i}"
model = {{ factory = "benchmarked_net:net", arguments = {{ seed = {i} }} }}
recipe = {{ callable = "benchmarked_net:fit" }}
data = {{ name = "digits", split = {{ kind = "balanced", per_class = 60 }} }}
"""
KINDS = {"gaussian": 0.08, "uniform": 0.08, "fgsm": 0.02, "pgd": 0.02, "brightness": 0.05}
"""Perturbations, and the step between two strengths."""
ABOUT = RunInfo(
    started="2024-05-01T12:00:00+00:00", seconds=0.0, device="cpu", seed=0, workers=1, complete=True, problems=[]
)


def write_cards(root: Path, models: int) -> list[Card]:
    """Write a project of so many models, each with claims on accuracy and recall everywhere."""
    (root / "pyproject.toml").touch()
    (root / "benchmarked_net.py").write_text(NET)
    found = []
    for i in range(models):
        lines = [CARD.format(i=i)]
        for kind, step in KINDS.items():
            strengths = [round(step * (1 + s), 4) for s in range(11)]
            lines.append(f'[sweeps.{kind}]\nkind = "{kind}"\nstrengths = {strengths}\n')
            lines.append(f"[claims.{kind}]\naccuracy = {[0.5] * 11}\nrecall = {[0.5] * 11}\n")
        path = root / f"model-{i}.toml"
        path.write_text("\n".join(lines))
        found.append(cards.load(path))
    return found


def outcomes(card: Card, workspace: Workspace) -> list[ClaimOutcome]:
    """Judge every claim of a card."""
    found = []
    for claim in card.claims():
        evidence = workspace.evidence(card, claim.sweep)
        said = claims.judge(claim, evidence)
        numbers = claims.properties(said, evidence)
        found.append(ClaimOutcome(claim, said.outcome, said.message, numbers, claim.id))
    return found


def measure(models: int, root: Path) -> tuple[float, int, int]:
    """Return seconds and bytes of the report of so many models, and the pictures in it."""
    chosen = write_cards(root, models)
    swept = Workspace(Store(root / "store"), root / "data")
    judged = {card.name: outcomes(card, swept) for card in chosen}
    workspace = Workspace(swept.store, swept.data_root)
    started = time.perf_counter()
    results = [
        ModelResult(
            card,
            {
                name: workspace.cached_evidence(card, name, workspace.key(card, name))
                for name in ("clean", *card.file.sweeps)
            },
            judged[card.name],
        )
        for card in chosen
    ]
    document = build(results, ABOUT, [])
    gallery.add_gallery(document, workspace, chosen)
    target = root / "report.html"
    writers.write(document, target)
    seconds = time.perf_counter() - started
    return seconds, target.stat().st_size, target.read_text(encoding="utf-8").count("<img ")


def main() -> int:
    """Print seconds and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--check", action="store_true", help=f"fail above {SECONDS:g} s or {BYTES:,} bytes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds, size, images = measure(arguments.models, Path(folder))
    print(
        f"{arguments.models} models × {len(KINDS)} perturbations × 11 strengths: {seconds:.1f} s, "
        f"{size / 1e6:.1f} MB, {images} pictures"
    )
    return int(arguments.check and (seconds > SECONDS or size > BYTES))


if __name__ == "__main__":
    sys.exit(output.run(main))
