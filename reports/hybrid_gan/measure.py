"""Train, build and sweep for hybrid-gan: everything that its tables and claims are made of, as one result."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reports import running
from reports.hybrid_gan import data, protocol
from reports.hybrid_gan.building import KINDS, Target
from reports.hybrid_gan.pairs import losses, pairs
from reports.hybrid_gan.protocol import Scale
from reports.hybrid_gan.streams import drawn
from reports.rows import packed
from reports.strips import strip
from robustness import aids, cards, claims
from robustness.cards import Card
from robustness.datasets.checks import Indices
from robustness.datasets.images import Images
from robustness.evidence import OK, Evidence
from robustness.harness import Harness
from robustness.measures.confusion import confusion_matrix
from robustness.measures.metrics import measure_matrix
from robustness.measures.statistics import wilson
from robustness.modules import state_hash
from robustness.perturbations import ConditionalGAN
from robustness.progress import bar

FORMAT = "pytest-robustness/report/hybrid-gan/1"
EPSILON = 8 / 255
"""Of the FGSM examples that detectors are shown."""
ANOTHER = 1
"""The seed of the generators that no hybrid set was made with."""


@dataclass(frozen=True)
class Built:
    """A hybrid set with its targets: where it lies, what of its source it was made of, and what was trained for it."""

    source: str
    scale: Scale
    folder: Path
    found: Mapping[str, Images]
    rows: Mapping[str, tuple[Indices, Indices]]
    cards: Mapping[str, Card]
    """Of the targets."""
    targets: Sequence[Target]
    models: Mapping[str, Any]
    counts: Mapping[str, int]

    @property
    def root(self) -> Path:
        """The data root of the run's cards."""
        return self.folder / "data"


def _inside(harness: Harness, folder: Path, seed: int) -> Harness:
    return Harness(harness.store, folder / "data", device=harness.device, seed=seed, progress=bar)


def build(source: str, scale: Scale, folder: Path, harness: Harness, work: running.Work) -> Built:
    """Train the targets, fit a generator to each, and write the hybrid set; what is there already is not made again."""
    inside, root = _inside(harness, folder, harness.seed), folder / "data"
    found = data.images(source, harness.data_root, harness.store.root)
    rows = data.sources(found, scale)
    data.write_targets(found, rows, root)
    targets = _cards(protocol.targets(source, scale, data.TARGETS), folder)
    models = running.train(targets, inside, work)
    fitted = [_target(inside, card, scale) for card in targets.values()]
    counts = data.write_hybrid(found, rows, fitted, root)
    return Built(source, scale, folder, found, rows, targets, fitted, models, counts)


def result(built: Built, harness: Harness, work: running.Work) -> dict[str, Any]:
    """Train the networks on a hybrid set, and judge them and the targets; what is there already is not made again."""
    began = time.perf_counter()
    source, scale, folder = built.source, built.scale, built.folder
    first, other = (_inside(harness, folder, seed) for seed in (harness.seed, ANOTHER))
    tables = protocol.trained(source, scale, data.HYBRID, data.REAL)
    models = {**built.models, **running.train(_cards(tables, folder), first, work)}
    _write_probes(built, other)
    attacked = protocol.undefended(protocol.targets(source, scale, data.TARGETS), scale)
    judged = dict(protocol.attacked(tables, source, data.HYBRID, data.REAL, scale))
    shown = _cards({**attacked, **judged}, folder)
    swept = _swept(shown, first, other, built.root)
    for notice in first.notices:
        running.say(notice)
    return {
        "format": FORMAT,
        "paper": "hybrid-gan",
        "scale": scale.name,
        "source": source,
        "width": scale.width,
        "epochs": scale.epochs,
        "hybrid": dict(built.counts),
        "provenance": {
            **running.machine(harness), "took": round(time.perf_counter() - began, 1),
            "data": {part: running.images(images) for part, images in built.found.items()},
        },
        "models": models,
        "strips": [strip(first, shown[f"{name}@targets"], "own", name.rpartition("-")[2]) for name in built.cards],
        **swept,
    }  # fmt: skip


def _write_probes(built: Built, other: Harness) -> None:
    """Write what detectors are tested on beside the hybrid set, unless it is there."""
    hidden = built.found["test"].select(built.rows["test"][1], "test of the hybrid set")
    for own in built.targets:
        if (network := own.name.rpartition("-")[2]) in protocol.CLASSIFIERS:
            another = _target(other, built.cards[own.name], built.scale)
            data.write_probes(hidden, own, another, EPSILON, built.root / protocol.probes(network))


def _swept(judged: Mapping[str, Card], first: Harness, other: Harness, root: Path) -> dict[str, Any]:
    """Give the cells of every card's sweeps, pairs of twins, contaminated streams, and where evidence comes from."""
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


def _jobs(card: Card, first: Harness, other: Harness) -> Iterator[tuple[Harness, str, str]]:
    """Give a card's sweeps with the names of their rows, and its ``own`` with the generator of another seed."""
    for sweep in ("clean", *card.file.sweeps):
        yield first, sweep, sweep
    if "own" in card.file.sweeps:
        yield other, "own", "another"


def _cards(tables: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Card]:
    return {name: cards.load(path) for name, path in running.write(tables, folder).items()}


def _target(harness: Harness, card: Card, scale: Scale) -> Target:
    perturbation = ConditionalGAN.model_validate({"kind": "conditional-gan", **scale.generator})
    running.say(f"the generator of {card.name}")
    fitted = aids.generator(harness, card, perturbation)
    module = harness.classifier(card).module
    return Target(card.name, module, fitted, f"{state_hash(module)}{state_hash(fitted)}", harness.device)


def _cells(name: str, sweep: str, evidence: Evidence, kinds: np.ndarray) -> Iterator[dict[str, Any]]:
    """Give every cell: of all images, and on the hybrid set of the real and of the adversarial ones apart."""
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
    """Give the share that a detector takes for adversarial, of each kind of probe."""
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
