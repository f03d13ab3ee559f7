"""Baselines: the predictions of accepted models, as a small file for review and a packed one of every image."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustness.cards import renames
from robustness.errors import StoreError
from robustness.gate import comparability as protocol
from robustness.gate.differences import GateError
from robustness.metrics import detection, registry
from robustness.metrics.evidence import OK, Evidence
from robustness.util import atomic_write, paths
from robustness.util.hashing import sha256_json
from robustness.workspace.store import Store

FORMAT = "pytest-robustness/baseline/1"
PACK = re.compile(r"[^/\\]+\.[0-9a-f]{16}\.npz")


@dataclass(frozen=True)
class AcceptedModel:
    """One accepted model: its provenance, and its evidence by sweep, including "clean"."""

    about: Mapping[str, Any]
    swept: Mapping[str, Evidence]


@dataclass(frozen=True)
class Baseline:
    """
    Accepted models of one name, all with the same sweeps.

    ``predictions`` and, where the decision can discard, ``discarded`` are (models, cells, N), cells in the order of the
    protocol's sweeps and their strengths. So are ``scores``, by their name in evidence, where areas are gated.
    """

    model: str
    protocol: Mapping[str, Any]
    accepted: Sequence[Mapping[str, Any]]
    status: Mapping[str, Mapping[str, str]]
    labels: NDArray[np.int32]
    predictions: NDArray[np.int32]
    discarded: NDArray[np.bool_] | None = None
    scores: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    accepted_on: date | None = None
    """The day, UTC, on which it was written; None if an older version wrote it."""

    def evidence(self, which: int, sweep: str, beside: Evidence) -> Evidence:
        """Return an accepted model's evidence in one sweep; `beside` has the source of a transfer."""
        names, start = self.protocol["sweeps"], 0
        for name in sorted(names):
            strengths = tuple(names[name]["strengths"])
            if name == sweep:
                break
            start += len(strengths)
        rows = slice(start, start + len(strengths))
        unknown = np.full((len(strengths), len(self.labels)), np.nan, np.float32)
        probability, threshold = None if self.discarded is None else self.discarded[which, rows].astype(np.float32), 0.5
        if "attack_probability" in self.scores:
            probability, threshold = (
                self.scores["attack_probability"][which, rows],
                float(self.scores["threshold"][which]),
            )
        probabilities = self.scores.get("probabilities")
        return Evidence(
            self.labels, tuple(self.protocol["data"]["classes"]), strengths, self.predictions[which, rows],
            unknown, unknown, unknown, unknown, tuple(self.status[sweep][strength] for strength in strengths),
            {"decision": {"threshold": threshold}},
            attack_probability=probability,
            probabilities=None if probabilities is None else probabilities[which, rows],
            clean=None if sweep == "clean" or "clean" not in names else self.evidence(which, "clean", beside),
            source=beside.source,
        )  # fmt: skip


SCORES = ("attack_probability", "probabilities")
"""Fields of evidence that some metrics need, at four bytes per number (`Metric.baseline_scores`)."""


def write(path: Path, model: str, accepted: Sequence[AcceptedModel], metrics: Sequence[str] = ()) -> None:
    """
    Write a baseline atomically: first the packed file, which takes effect with the JSON.

    Scores are stored for the `metrics` that need them.
    """
    models = sorted(accepted, key=lambda one: str(one.about["weights"]))
    how = protocol.of_evidence(models[0].swept)
    packed = _packed(models, how, metrics)
    file = f"{path.stem}.{hashlib.sha256(packed).hexdigest()[:16]}.npz"
    document = {
        "format": FORMAT,
        "model": model,
        "accepted_on": datetime.now(UTC).date().isoformat(),
        "protocol": how,
        "status": {name: _joined_status(models, name) for name in how["sweeps"]},
        "accepted": [dict(one.about) for one in models],
        "right": _right(models, how),
        "outcomes": {"file": file, "sha256": hashlib.sha256(packed).hexdigest()},
    }
    store = Store(path.parent)
    try:
        store.write(path.parent / file, packed)
        store.write(path, _signed(document))
    except StoreError as error:
        raise GateError(
            f"{path} could not be written ({error.__cause__}), the old file is unchanged; free disk space, or choose "
            "another file with --to"
        ) from error
    for old in path.parent.glob(f"{glob.escape(path.stem)}.{'[0-9a-f]' * 16}.npz"):
        if old.name != file:
            old.unlink(missing_ok=True)


def _signed(document: Mapping[str, Any]) -> bytes:
    """Return the reviewed file's content, with the checksum of a document."""
    signed = {**document, "checksum": sha256_json(document)}
    lines = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", _on_one_line, json.dumps(signed, indent=1, ensure_ascii=False))
    return f"{lines}\n".encode()


REPAIR = "restore it from version control, or rebuild it with `robustness baseline accept`"


def _document(path: Path) -> dict[str, Any]:
    """Read the reviewed file, without its checksum; GateError if it has another format or was edited."""
    document: dict[str, Any] = paths.parse_json(paths.read_bytes(path))
    checksum = document.pop("checksum")
    if document["format"] != FORMAT:
        raise GateError(f"{path}: a baseline of another format ({document['format']}); {REPAIR}")
    if checksum != sha256_json(document):
        raise GateError(f"{path}: its checksum does not match its content (edited or damaged); {REPAIR}")
    return document


def migrate(path: Path) -> list[renames.Change]:
    """Rewrite the names in a baseline that have changed, whole or not at all; return what changed."""
    try:
        document, changes = renames.renamed_baseline(_document(path))
        if changes:
            atomic_write.replace(path, _signed(document))
    except OSError as error:
        raise GateError(f"{path}: could not be read ({error.strerror}); {REPAIR}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GateError(f"{path}: not a baseline (truncated or foreign); {REPAIR}") from error
    return changes


def read(path: Path) -> Baseline:
    """Read a baseline; GateError if it is missing or not as the command wrote it."""
    try:
        document = _document(path)
        _, changes = renames.renamed_baseline(document)
        if changes:
            raise GateError(renames.advice(path, changes))
        pack = document["outcomes"]["file"]
        if not PACK.fullmatch(pack):
            raise GateError(f"{path}: must name an .npz file beside it, got {pack!r}; {REPAIR}")
        packed = paths.read_bytes(path.parent / pack)
        if hashlib.sha256(packed).hexdigest() != document["outcomes"]["sha256"]:
            raise GateError(f"{path.parent / pack}: does not match {path.name}; {REPAIR}")
        baseline = _unpacked(document, packed)
        if wrong := _unlike(document, baseline):
            raise GateError(f"{path}: its {wrong} differ from those in {pack}; {REPAIR}")
        return baseline
    except OSError as error:
        raise GateError(f"{error.filename or path}: could not be read ({error.strerror}); {REPAIR}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise GateError(f"{path}: not a baseline (truncated or foreign); {REPAIR}") from error


def _unlike(document: Mapping[str, Any], baseline: Baseline) -> str:
    """Return which part of the reviewed file differs from the packed outcomes, which the gate uses."""
    names, data = document["protocol"]["sweeps"], document["protocol"]["data"]
    cells = [(name, strength) for name in sorted(names) for strength in names[name]["strengths"]]
    shape, classes = (len(document["accepted"]), len(cells), data["images"]), len(data["classes"])
    like: list[NDArray[Any]] = [baseline.predictions, *([] if baseline.discarded is None else [baseline.discarded])]
    like += [baseline.scores[name] for name in SCORES if name in baseline.scores]
    if baseline.labels.shape != shape[2:] or any(each.shape[:3] != shape for each in like) or not shape[0]:
        return "models, cells or images"
    if hashlib.sha256(baseline.labels.astype("<i4").tobytes()).hexdigest() != data["labels"]:
        return "labels"
    if baseline.labels.min(initial=0) < 0 or baseline.labels.max(initial=0) >= classes:
        return "classes"
    if any(not isinstance(document["status"][name][strength], str) for name, strength in cells):
        return "cells"
    right = (baseline.predictions == baseline.labels).sum(2)
    recorded = np.array([document["right"][name][strength] for name, strength in cells])
    return "counts of correct predictions" if recorded.shape != right.T.shape or (recorded != right.T).any() else ""


def _packed(models: Sequence[AcceptedModel], how: Mapping[str, Any], metrics: Sequence[str]) -> bytes:
    """Encode predictions as differences from the labels: mostly zeros, which compress well."""
    first = next(iter(models[0].swept.values()))
    classes = len(first.classes)
    small = np.uint8 if classes < 255 else np.int32
    predictions = np.stack([np.concatenate([one.swept[name].predictions for name in how["sweeps"]]) for one in models])
    missing = predictions < 0
    shifts = np.where(missing, classes, (predictions - first.labels) % classes).astype(small)
    arrays: dict[str, Any] = {"labels": first.labels.astype(np.int32), "shifts": shifts}
    arrays |= _scores(models, how, sorted({registry.get(metric).baseline_scores for metric in metrics} - {""}))
    if all(e.attack_probability is not None for one in models for e in one.swept.values()):
        flags = [
            np.stack(
                [detection.discarded(one.swept[name], row) for name in how["sweeps"] for row in _rows(one.swept[name])]
            )
            for one in models
        ]
        arrays["discarded"] = np.stack(flags)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _scores(models: Sequence[AcceptedModel], how: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for name in names:
        every = [[getattr(one.swept[sweep], name) for sweep in how["sweeps"]] for one in models]
        if any(each is None for one in every for each in one):
            raise GateError(
                f"the card's gate needs every image's {name}, which the run did not store; run the suites again"
            )
        scores[name] = np.stack([np.concatenate(one) for one in every]).astype(np.float32)
    if "attack_probability" in names:
        thresholds = [next(iter(one.swept.values())).provenance["decision"]["threshold"] for one in models]
        scores["threshold"] = np.array(thresholds, np.float64)
    return scores


def _unpacked(document: Mapping[str, Any], packed: bytes) -> Baseline:
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        declared = sum(member.file_size for member in archive.infolist())
    names, images = document["protocol"]["sweeps"], document["protocol"]["data"]["images"]
    outcomes = len(document["accepted"]) * sum(len(each["strengths"]) for each in names.values()) * images
    most = outcomes * (9 + 4 * len(document["protocol"]["data"]["classes"])) + 8 * images + 2**16
    if declared > most:  # it would be unpacked into memory
        raise ValueError(f"its .npz file would have {declared:,} bytes, and can have {most:,} at most")
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            labels, shifts = arrays["labels"], arrays["shifts"].astype(np.int32)
            discarded = arrays.get("discarded")
            scores = {name: arrays[name] for name in (*SCORES, "threshold") if name in arrays}
    except Exception as error:  # any error of NumPy's header parser on a truncated file
        raise ValueError(f"its .npz file cannot be read: {error}") from error
    classes = len(document["protocol"]["data"]["classes"])
    predictions = np.where(shifts == classes, -1, (shifts + labels) % classes).astype(np.int32)
    return Baseline(
        document["model"],
        document["protocol"],
        document["accepted"],
        document["status"],
        labels,
        predictions,
        discarded,
        scores,
        date.fromisoformat(document["accepted_on"]) if "accepted_on" in document else None,
    )


def _rows(evidence: Evidence) -> range:
    return range(len(evidence.strengths))


def _joined_status(models: Sequence[AcceptedModel], sweep: str) -> dict[str, str]:
    """Return a cell's status: ok if all accepted models have numbers, else why the first has none."""
    each = [one.swept[sweep] for one in models]
    return {
        strength: next((e.status[row] for e in each if e.status[row] != OK), OK)
        for row, strength in enumerate(each[0].strengths)
    }


def _right(models: Sequence[AcceptedModel], how: Mapping[str, Any]) -> dict[str, dict[str, list[int]]]:
    """Count the correct images of each accepted model, by sweep and strength."""
    return {
        name: {
            strength: [int((one.swept[name].predictions[row] == one.swept[name].labels).sum()) for one in models]
            for row, strength in enumerate(models[0].swept[name].strengths)
        }
        for name in how["sweeps"]
    }


def _on_one_line(match: re.Match[str]) -> str:
    return "[" + re.sub(r"\s*\n\s*", " ", match[1]) + "]"
