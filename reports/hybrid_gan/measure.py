"""Train and sweep for hybrid-gan: everything that its tables and claims are made of, part by part."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reports import commands, running
from reports.hybrid_gan import data, protocol
from reports.hybrid_gan.building import KINDS
from reports.hybrid_gan.built import ANOTHER, Begun, Built, write_probes
from reports.hybrid_gan.pairs import losses, pairs
from reports.hybrid_gan.streams import drawn
from reports.rows import packed
from reports.running import Work
from reports.strips import strip
from robustness import claims
from robustness.cards import Card
from robustness.metrics.confusion import confusion_matrix
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.intervals import wilson
from robustness.metrics.registry import measure_matrix
from robustness.workspace.workspace import Workspace

FORMAT = "pytest-robustness/report/hybrid-gan/1"
ANEW = "own"
"""The sweep that is made with the generator of another seed too."""


def train(built: Built, names: Sequence[str], harness: Workspace, work: Work) -> dict[str, Any]:
    """Train some networks, targets among them, unless they are there; give what each says of its training."""
    of = built.of
    every = {**protocol.targets(of.source, of.scale, data.TARGETS), **_tables(of)}
    cards = commands.loaded({name: every[name] for name in names}, of.folder)
    return running.train(cards, of.harness(harness), work)


def result(
    built: Built, part: str, names: Sequence[str], told: Mapping[str, Any], harness: Workspace, work: Work
) -> dict[str, Any]:
    """Sweep the networks of a part, and give all numbers with where they come from, as they go into its file."""
    began = time.perf_counter()
    of = built.of
    first, other = of.harness(harness), of.harness(harness, ANOTHER)
    targets = protocol.targets(of.source, of.scale, data.TARGETS)
    undefended = protocol.undefended({name: targets[name] for name in names if name in targets}, of.scale)
    trained = {name: table for name, table in _tables(of).items() if name in names}
    attacked = dict(protocol.attacked(trained, of.source, data.HYBRID, data.REAL, of.scale))
    shown = commands.loaded({**undefended, **attacked}, of.folder)
    for name in shown:
        if name.endswith("@probes"):
            write_probes(built, name.partition("@")[0].rpartition("-")[2], harness)
    running.sweep(shown, first, work)
    running.sweep(shown, other, work, ANEW)
    swept = _swept(shown, first, other, of.root)
    for notice in first.notices:
        running.say(notice)
    hybrid = {"name": "the hybrid set", "n": 2 * built.counts["test kind"], "fingerprint": built.made_of}
    return {
        "format": FORMAT,
        "paper": "hybrid-gan",
        "scale": of.scale.name,
        "source": of.source,
        "seeds": [harness.seed],
        "networks": dict(protocol.TITLES),
        "width": of.scale.width,
        "epochs": {name: protocol.epochs(of.scale, name) for name in protocol.CLASSIFIERS},
        "targets": {"width": of.scale.of_targets.width, "epochs": of.scale.of_targets.epochs},
        "hybrid": dict(built.counts),
        "provenance": {
            **running.machine(harness),
            "sweeping": round(time.perf_counter() - began, 1),
            "data": {**{name: running.images(images) for name, images in of.found.items()}, f"set of {part}": hybrid},
        },
        "models": {name: told[name] for name in names},
        "strips": [strip(first, shown[name], "own", name.partition("@")[0].rpartition("-")[2]) for name in undefended],
        **swept,
    }


def _tables(of: Begun) -> dict[str, dict[str, Any]]:
    return protocol.trained(of.source, of.scale, data.HYBRID, data.REAL)


def _swept(judged: Mapping[str, Card], first: Workspace, other: Workspace, root: Path) -> dict[str, Any]:
    """Return the cells of every card's sweeps, pairs of twins, contaminated streams, and where evidence comes from."""
    kinds = np.load(root / data.HYBRID)["test_kind"]
    cells, streams, origins, lost = [], [], {}, {}
    for name, card in judged.items():
        model, _, images = name.partition("@")
        for harness, sweep, called in _jobs(card, first, other):
            running.say(f"{name}: {called}")
            told = harness.evidence(card, sweep)
            cells += list(_cells(name, called, told, kinds))
            origins[f"{name}:{called}"] = running.swept(told, harness.store.run)
            if images == "probes":
                cells += list(_probed(name, told))
            if images == "hybrid":
                streams += [{"model": model, **row} for row in drawn(told.predictions[0] == told.labels, kinds)]
            if images == "real" and called != "clean":
                lost[model.partition("-")[2], called] = losses(told)
    return {"streams": streams, "pairs": list(pairs(lost)), "evidence": origins, **packed(cells)}


def _jobs(card: Card, first: Workspace, other: Workspace) -> Iterator[tuple[Workspace, str, str]]:
    """Return a card's sweeps with the names of their rows, and its ``own`` with the generator of another seed."""
    for sweep in ("clean", *card.file.sweeps):
        yield first, sweep, sweep
    if ANEW in card.file.sweeps:
        yield other, ANEW, "another"


def _cells(name: str, sweep: str, evidence: Evidence, kinds: np.ndarray) -> Iterator[dict[str, Any]]:
    """Return every cell: of all images, and on the hybrid set of the real and of the adversarial ones apart."""
    model, _, images = name.partition("@")
    mixed = images == "hybrid"
    for row, (strength, status) in enumerate(zip(evidence.strengths, evidence.status, strict=True)):
        about = {"model": model, "images": images, "sweep": sweep, "strength": strength, "status": status}
        if status != OK:
            yield {**about, "kind": "all", "n": len(evidence)}
            continue
        for kind, of in (("all", None), *(((k, i) for i, k in enumerate(KINDS)) if mixed else ())):
            chosen = np.full(len(evidence), True) if of is None else kinds == of
            yield {**about, "kind": kind, **_numbers(evidence, row, chosen)}


def _probed(name: str, evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Return the share that a detector takes for adversarial, of each kind of probe."""
    each = len(evidence) // len(data.PROBES)
    for place, what in enumerate(data.PROBES):
        called = int((evidence.predictions[0][place * each : (place + 1) * each] == 1).sum())
        low, high = wilson(called, each)
        about = {"model": name.partition("@")[0], "images": "probes", "sweep": "clean", "strength": "0", "kind": what}
        found = {"called_adversarial": round(called / each, 6), "low": round(low, 6), "high": round(high, 6)}
        yield {**about, "status": OK, "n": each, **found}


def _numbers(evidence: Evidence, row: int, chosen: np.ndarray) -> dict[str, Any]:
    labels, predictions = evidence.labels[chosen], evidence.predictions[row][chosen]
    matrix = confusion_matrix(labels, predictions, len(evidence.classes))
    right = int((labels == predictions).sum())
    low, high = wilson(right, len(labels))
    found: dict[str, Any] = {"n": len(labels), "accuracy": round(right / len(labels), 6)}
    for metric in ("precision", "recall"):
        value = measure_matrix(metric, matrix, evidence.classes).value
        found[metric] = None if np.isnan(value) else round(value, 6)
    found |= {"low": round(low, 6), "high": round(high, 6)}
    if chosen.all() and evidence.probabilities is not None and len(set(labels.tolist())) > 1:
        found["roc_auc"] = round(claims.measure(evidence, evidence.strengths[row], "roc_auc").value, 6)
    finite = evidence.snr[row][chosen]
    finite = finite[np.isfinite(finite)]
    found["snr"] = round(float(finite.mean()), 3) if len(finite) else None
    return found
