"""The numbers that the tables, figures and claims of label-2n are made of: from evidence one row a cell, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reports import rows as rows_
from reports.label_2n import alarms
from reports.label_2n.theory import after, before
from reports.rows import Row
from robustness import claims
from robustness.cards import Card
from robustness.metrics import strength_curves as curves
from robustness.metrics.evidence import OK, Evidence
from robustness.workspace.workspace import Workspace

TRANSFERRED = ("transferability", "selective_transferability")
HALF, ALARMS = "0.5", "1 % false alarms"
"""The two thresholds of the filter; a row that names none is of the first one."""
TWIN, OWN = "the undefended network", "its own network"
"""Whose examples the detector BIN was trained on."""
EVERY = ("accuracy", "selective_accuracy", "coverage", "undetected_error_rate", "detection_auc")


def rows(harness: Workspace, name: str, card: Card) -> Iterator[dict[str, Any]]:
    """
    Return every cell of the card of this key: what was measured on it, None if there is nothing to measure.

    At the threshold 0.5; of examples that the threshold did not shape also at that of 1 % false alarms. Attacks on the
    system itself know the threshold 0.5, and would be others at another one.
    """
    name, _, images = name.partition("@")
    source, number, system = name.split("-", 2)
    about = {"source": source, "fold": int(number), "system": system, "images": images}
    every = {sweep: harness.evidence(card, sweep) for sweep in ("clean", *card.file.sweeps)}
    yield from _swept(about, every)
    if images != "few":
        limit = alarms.measured(harness, card)
        moved = {sweep: alarms.at(evidence, limit) for sweep, evidence in every.items()}
        yield from _swept({**about, "threshold": ALARMS, "limit": limit}, moved)


def _swept(about: Row, every: Mapping[str, Evidence]) -> Iterator[dict[str, Any]]:
    clean = _cell(every["clean"], "0", ("accuracy", "selective_accuracy", "coverage"))
    yield {**about, "sweep": "clean", **clean}
    for sweep, evidence in every.items():
        if sweep == "clean":
            continue
        metrics = (*EVERY, *(TRANSFERRED if evidence.source is not None else ()))
        cells = [_cell(evidence, strength, metrics) for strength in evidence.strengths]
        if sweep != "mixed":
            cells = [cell | _half(clean, cell) for cell in cells]
        for cell in cells:
            yield {**about, "sweep": sweep, **cell}
        if sweep == "curve":
            yield {**about, "sweep": "shape", "strength": evidence.strengths[-1], **_shapes(clean, cells)}


def _cell(evidence: Evidence, strength: str, metrics: tuple[str, ...]) -> dict[str, Any]:
    row = evidence.index(strength)
    found: dict[str, Any] = {"strength": strength, "status": evidence.status[row], "n": len(evidence)}
    if evidence.status[row] != OK:
        return found
    for metric in metrics:
        value = claims.measure(evidence, strength, metric).value
        found[metric] = None if math.isnan(value) else round(value, 6)
    if evidence.attack_probability is not None:
        found["attack_probability"] = round(float(np.mean(evidence.attack_probability[row])), 6)
    return found


def _half(clean: Row, cell: Row) -> dict[str, Any]:
    """
    Return the accuracies where half of the images are perturbed, as in the paper: every image counts both ways.

    A share of p = 1/2 is theirs by section 4's formulas, exactly, for what goes in is what was kept.
    """
    if cell["status"] != OK or clean["status"] != OK:
        return {}
    found: dict[str, Any] = {"half_accuracy": round(before(clean["accuracy"], cell["accuracy"], 0.5), 6)}
    if clean["coverage"] + cell["coverage"] > 0:
        accuracies = (clean["selective_accuracy"] or 0.0, cell["selective_accuracy"] or 0.0)
        found["half_selective_accuracy"] = round(after(*accuracies, 0.5, clean["coverage"], cell["coverage"]), 6)
    return found


def _shapes(clean: Row, cells: Sequence[Row]) -> dict[str, Any]:
    """Return sensitivity, deviation and range of both accuracies of half perturbed images, from ε 0 on."""
    found: dict[str, Any] = {}
    sizes = np.array([0.0, *(float(cell["strength"]) for cell in cells)])
    for selective, metric in (("", "accuracy"), (curves.SELECTIVE, "selective_accuracy")):
        values = [clean.get(metric), *(cell.get(f"half_{metric}") for cell in cells)]
        if None not in values:
            accuracies = np.array(values, float)
            found |= {
                f"{selective}{name}": round(curves.shape(name, sizes, accuracies)[0], 6) for name in curves.SHAPES
            }
    return found


class Measured(rows_.Measured):
    """The rows of one data set, with its curve over ε."""

    def curve(self, system: str, metric: str, above: float = -1.0) -> list[float]:
        """Return the means over the folds at every ε above one, in their order."""
        return [self.mean(system, "curve", metric, name) for name in self.strengths("curve") if float(name) > above]

    def over_curve(self, system: str, metric: str, above: float = -1.0) -> list[float]:
        """Return each fold's mean over every ε above one; NaN where any is missing."""
        curves = [self.folds(system, "curve", metric, name) for name in self.strengths("curve") if float(name) > above]
        return [sum(of_fold) / len(of_fold) for of_fold in zip(*curves, strict=True)]


class Reading(NamedTuple):
    """A way to read what the paper leaves open: the filter's threshold, and whose examples BIN was trained on."""

    threshold: str = HALF
    examples: str = TWIN


READINGS = tuple(Reading(threshold, examples) for threshold in (HALF, ALARMS) for examples in (TWIN, OWN))


def read(source: str, rows: Sequence[Row], scale: str, reading: Reading = READINGS[0]) -> Measured:
    """
    Return the rows of one reading.

    Where BIN's examples are those of its own network these systems stand under the names of the other ones, so that
    every table and criterion is the same.
    """
    own = {row["system"].removesuffix("+own") for row in rows if row["system"].endswith("+own")}
    found = []
    for row in rows:
        name, _, detector = row["system"].partition("+")
        due = ("own" if name in own and reading.examples == OWN else "bin") if detector else ""
        if detector == due and (row.get("threshold") or HALF) == reading.threshold:
            found.append({**row, "system": f"{name}+bin"} if detector else row)
    return Measured(source, found, scale)


def readings(rows: Sequence[Row]) -> list[Reading]:
    """Return the readings that were measured."""
    thresholds = {row.get("threshold") or HALF for row in rows}
    examples = {TWIN, *(OWN for row in rows if row["system"].endswith("+own"))}
    return [reading for reading in READINGS if reading.threshold in thresholds and reading.examples in examples]
