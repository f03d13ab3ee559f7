"""Run a paper's trainings and sweeps, and record where the numbers come from."""

from __future__ import annotations

import csv
import math
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tomlkit

import robustness
from robustness import cards, claims, engines
from robustness.cards import Card
from robustness.classifiers import weights
from robustness.data.images import Images
from robustness.metrics.evidence import OK, Evidence
from robustness.util import hardware, paths
from robustness.util.progress import progress_bar
from robustness.workspace.models import recipe_hash
from robustness.workspace.training import fit_many, train_many
from robustness.workspace.workspace import Workspace


def say(message: str) -> None:
    """Write a line of progress to the standard error stream."""
    print(message, file=sys.stderr, flush=True)


def protocol(package: str) -> SimpleNamespace:
    """Read data sets, scales and other tables of a paper: `reports/PACKAGE/protocol.toml`."""
    tables = paths.parse_toml((Path(__file__).parent / package / "protocol.toml").read_bytes())
    for kind in ("source", "scale"):
        default = tables.get(kind, {})
        tables[f"{kind}s"] = {
            name: SimpleNamespace(**{"name": name, **default, **table}) for name, table in tables[f"{kind}s"].items()
        }
    return SimpleNamespace(**tables)


@dataclass(frozen=True)
class Run:
    """One data set at one scale: where its cards and results are stored, and who trains and sweeps."""

    source: str
    scale: Any
    workspace: Workspace
    folder: Path
    """Cards and data files of the run: below the checkout, so that cards can import its models."""
    workers: int | None = None
    engine: engines.EngineSpec = field(default_factory=engines.EngineSpec)
    device: str = "cpu"
    context: Any = None
    """What a paper computes once per run."""

    def cards(self, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Card]:
        """Write tables as cards, and load them."""
        return {name: cards.load(path) for name, path in write_cards(tables, self.folder).items()}

    def train(self, every: Mapping[str, Card]) -> dict[str, Any]:
        """Train every model, first those that others need; return a record of each training."""
        records: dict[str, Any] = {}
        store = self.workspace.store
        for level in levels(every):
            files = train_many(
                [every[name] for name in level], store.root, self.workspace.data_root, self.workers, say=say,
                progress=progress_bar, device=self.workspace.device,
                what=f"training {len(records) + 1} to {len(records) + len(level)} of {len(every)} models",
            )  # fmt: skip
            for name, file in zip(level, files, strict=True):
                log = store.path("logs", recipe_hash(self.workspace, every[name]), "csv")
                records[name] = training_record(file, log)
        return records

    def sweep(self, pairs: Sequence[tuple[Card, str]]) -> None:
        """
        Fit the generators of some sweeps, then let an engine other than local compute them.

        The local engine computes each sweep when its evidence is read.
        """
        attacks = [(card, sweep) for card, sweep in pairs if card.perturbation(sweep).needs_fitting]
        sources = [(self.workspace.source(card, sweep) or card, card.perturbation(sweep)) for card, sweep in attacks]
        fit_many(sources, self.workspace, self.workers)
        engines.fill(self.workspace, self.engine, pairs, self.device)


def sweeps(every: Mapping[str, Card]) -> list[tuple[Card, str]]:
    """Return each card with each of its sweeps, the clean one first."""
    return [(card, sweep) for card in every.values() for sweep in ("clean", *card.file.sweeps)]


def levels(every: Mapping[str, Card]) -> list[list[str]]:
    """Return the names in the order of training: the models of each level need those of earlier levels alone."""
    waiting, ordered, trained = dict(every), [], set[str]()
    while waiting:
        ready = [name for name, card in waiting.items() if _needed(card) <= trained]
        ordered.append(ready)
        trained |= set(ready)
        waiting = {name: card for name, card in waiting.items() if name not in trained}
    return ordered


def _needed(card: Card) -> set[str]:
    return {Path(path).stem for path in card.file.recipe.needs.values()} if card.file.recipe else set()


def write_cards(tables: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Path]:
    """Write tables as card files that name each other; a file with the same content is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.toml" for name in tables}
    for name, table in tables.items():
        text = tomlkit.dumps({**table, "name": paths.as_name(name)})
        if not files[name].is_file() or files[name].read_text(encoding="utf-8") != text:
            files[name].write_text(text, encoding="utf-8")
    return files


def machine(workspace: Workspace) -> dict[str, Any]:
    """Return when, on which device and with which versions a result is computed."""
    return {
        "made": datetime.now(UTC).date().isoformat(),
        "device": hardware.device_fingerprint(workspace.device),
        "cores": hardware.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            "pytest-robustness": robustness.__version__,
            **{name: version(name) for name in ("torch", "numpy")},
        },
    }


def images_record(images: Images) -> dict[str, Any]:
    """Return name, size and hash of some images."""
    return {"name": images.name, "n": len(images), "fingerprint": images.fingerprint}


def training_record(file: Path, log: Path) -> dict[str, Any]:
    """Return what a weights file and the last row of its log say; unknown numbers are None."""
    metadata = weights.metadata(file)
    rows = list(csv.DictReader(log.read_text(encoding="utf-8").splitlines())) if log.is_file() else []
    last = rows[-1] if rows else {}
    return {
        "recipe": metadata["recipe"],
        "weights": metadata["checksum"],
        "seconds": float(metadata["seconds"]) if metadata.get("seconds") else None,
        "epochs": len(rows) or None,
        **{name: float(last[name]) if last.get(name) else None for name in ("loss", "held_out_accuracy")},
    }


def evidence_record(evidence: Evidence, run: str) -> dict[str, Any]:
    """Return the key and digest of evidence, how long it took, and its doubts."""
    provenance = evidence.provenance
    return {
        "key": provenance["key"],
        "digest": evidence.digest,
        "seconds": provenance["seconds"],
        "in_this_run": provenance["run"] == run,
        "doubts": provenance["doubts"],
    }


def evidence_rows(fields: Mapping[str, Any], evidence: Evidence, metrics: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Return a row per strength: its status and each metric; for a transfer attack also its transferability."""
    names = (*metrics, *(() if evidence.source is None else ("transferability",)))
    for strength, status in zip(evidence.strengths, evidence.status, strict=True):
        row = {**fields, "strength": strength, "status": status, "n": len(evidence)}
        for metric in names if status == OK else ():
            value = claims.measure(evidence, strength, metric).value
            row[metric] = round(value, 6) if math.isfinite(value) else None
        yield row
