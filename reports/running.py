"""Running a paper: cards written, models trained in order, and what a result file says of where numbers come from."""

from __future__ import annotations

import argparse
import csv
import math
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import tomlkit

import robustness
from robustness import claims, engines
from robustness.cards import Card
from robustness.classifiers import weights
from robustness.cli.parser import ENGINE
from robustness.data.images import Images
from robustness.metrics.evidence import OK, Evidence
from robustness.util import hardware
from robustness.util import paths as files
from robustness.util.progress import progress_bar
from robustness.workspace.context import data_root, store_root
from robustness.workspace.models import recipe_hash
from robustness.workspace.store import Store
from robustness.workspace.training import fit_many, train_many
from robustness.workspace.workspace import Workspace


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all papers' commands have."""
    parser.add_argument("--data", metavar="DIR", help="data root (ROBUSTNESS_DATA, else the user's cache)")
    parser.add_argument("--store", metavar="DIR", help="weights and evidence (ROBUSTNESS_STORE, else the user's cache)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--workers", type=int, metavar="N", help="trainings, or fittings, at once (default: the cores)")
    parser.add_argument("--engine", metavar="ENGINE", default="local", help=f"what sweeps: {ENGINE}")
    parser.add_argument("--output", metavar="DIR", type=Path, help="where the result goes (default reports/measured)")
    parser.add_argument("--render", action="store_true", help="run nothing, make the page anew from the JSON")


def harness_for(given: argparse.Namespace) -> Workspace:
    """Return what the options name."""
    # Whether there is a GPU where an engine works, it says itself.
    device = given.device if work(given).engine.name == "local" or hardware.gpu_count() else "cpu"
    return Workspace(
        Store(store_root(given.store), say=say), data_root(given.data), device=device, progress=progress_bar
    )


class Work(NamedTuple):
    """Who does the work: how many processes train on this machine, which engine sweeps, on which device."""

    workers: int | None = None
    engine: engines.EngineSpec = engines.EngineSpec()
    device: str = "cpu"


def work(given: argparse.Namespace) -> Work:
    """Return who trains and sweeps, as the options say it; EngineError if the engine cannot be."""
    return Work(given.workers, engines.parse(given.engine), given.device)


def say(message: str) -> None:
    """Say what a person waits for, beside what the command prints."""
    print(message, file=sys.stderr, flush=True)


def machine(harness: Workspace) -> dict[str, Any]:
    """Say when and on what a result is made."""
    return {
        "made": datetime.now(UTC).date().isoformat(),
        "device": hardware.device_fingerprint(harness.device),
        "cores": hardware.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            "pytest-robustness": robustness.__version__,
            **{name: version(name) for name in ("torch", "numpy")},
        },
    }


def images(of: Images) -> dict[str, Any]:
    """Say which images."""
    return {"name": of.name, "n": len(of), "fingerprint": of.fingerprint}


def training(file: Path, log: Path | None = None) -> dict[str, Any]:
    """
    Return what a weights file says of its making, and the end of its log; what is not known is None.

    A training that was interrupted has no time.
    """
    told = weights.metadata(file)
    seconds = float(told["seconds"]) if told.get("seconds") else None
    found: dict[str, Any] = {"recipe": told["recipe"], "weights": told["checksum"], "seconds": seconds}
    if log is None:
        return found
    rows = list(csv.DictReader(log.read_text(encoding="utf-8").splitlines())) if log.is_file() else []
    last = rows[-1] if rows else {}
    numbers = {name: float(last[name]) if last.get(name) else None for name in ("loss", "held_out_accuracy")}
    return found | {"epochs": len(rows) or None, **numbers}


def evidence_rows(about: Mapping[str, Any], evidence: Evidence, metrics: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Return a row per strength: its status, and each metric; of a transfer also its transferability."""
    measured = (*metrics, *(() if evidence.source is None else ("transferability",)))
    for strength, status in zip(evidence.strengths, evidence.status, strict=True):
        row = {**about, "strength": strength, "status": status, "n": len(evidence)}
        for metric in measured if status == OK else ():
            value = claims.measure(evidence, strength, metric).value
            row[metric] = round(value, 6) if math.isfinite(value) else None
        yield row


def swept(evidence: Evidence, run: str) -> dict[str, Any]:
    """Say which evidence numbers come from."""
    told = evidence.provenance
    return {
        "key": told["key"],
        "digest": evidence.digest,
        "seconds": told["seconds"],
        "in_this_run": told["run"] == run,
        "doubts": told["doubts"],
    }


def train(every: Mapping[str, Card], harness: Workspace, work: Work) -> dict[str, Any]:
    """Train every model, first those that others need; return what each says of its training."""
    told: dict[str, Any] = {}
    for level in levels(every):
        what = f"training {len(told) + 1} to {len(told) + len(level)} of {len(every)} models"
        files = train_many(
            [every[name] for name in level], harness.store.root, harness.data_root, work.workers, say=say,
            progress=progress_bar, what=what, device=harness.device,
        )  # fmt: skip
        for name, file in zip(level, files, strict=True):
            log = harness.store.path("logs", recipe_hash(harness, every[name]), "csv")
            told[name] = training(file, log)
    return told


def train_and_sweep(every: Mapping[str, Card], harness: Workspace, options: argparse.Namespace) -> dict[str, Any]:
    """Train every model and make all evidence, as the options say; return what each says of its training."""
    by = work(options)
    trained = train(every, harness, by)
    sweep(every, harness, by)
    return trained


def sweep(every: Mapping[str, Card], harness: Workspace, work: Work, only: str | None = None) -> None:
    """
    Have an engine other than local make the evidence of all sweeps; the local one makes each when it is read.

    The generators that they need are fitted before. ``only`` names one sweep, of the cards that have it.
    """
    wanted = [
        (card, sweep) for card in every.values() for sweep in ("clean", *card.file.sweeps) if only in (None, sweep)
    ]  # fmt: skip
    made = [(card, sweep) for card, sweep in wanted if card.perturbation(sweep).family == "gan"]
    fit_many(
        [(harness.source(card, sweep) or card, card.perturbation(sweep)) for card, sweep in made], harness, work.workers
    )
    engines.fill(harness, work.engine, wanted, work.device)


def levels(every: Mapping[str, Card]) -> list[list[str]]:
    """Return the names in the order of what they need: each level needs earlier ones alone."""
    left, found = dict(every), []
    done: set[str] = set()
    while left:
        ready = [name for name, card in left.items() if _needed(card) <= done]
        found.append(ready)
        done |= set(ready)
        left = {name: card for name, card in left.items() if name not in done}
    return found


def _needed(card: Card) -> set[str]:
    return {Path(path).stem for path in card.file.recipe.needs.values()} if card.file.recipe else set()


def write(tables: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Path]:
    """
    Write cards as files, which name each other; a file that is there and the same stays as it is.

    A card's own name is its key, with what a name may not contain replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, table in tables.items():
        paths[name] = folder / f"{name}.toml"
        text = tomlkit.dumps({**table, "name": files.as_name(name)})
        if not paths[name].is_file() or paths[name].read_text(encoding="utf-8") != text:
            paths[name].write_text(text, encoding="utf-8")
    return paths
