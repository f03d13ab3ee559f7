"""The numbers of label-2n from evidence, a row per cell, and the readings of what the paper leaves open."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reports import rows as rows_
from reports.label_2n.protocol import FALSE_ALARMS
from reports.label_2n.theory import after, before
from reports.rows import Row, unpacked
from robustness import claims
from robustness.cards import Card
from robustness.data.images import Images
from robustness.data.splits import held_out
from robustness.decisions import Filtering
from robustness.metrics import strength_curves as curves
from robustness.metrics.evidence import OK, Evidence
from robustness.workspace.workspace import Workspace

# The two thresholds of the filter; a row that names none is of the first one.
HALF, ALARMS = "0.5", "1 % false alarms"
# Whose examples the detector BIN was trained on.
TWIN, OWN = "the undefended network", "its own network"
CLEAN = ("accuracy", "selective_accuracy", "coverage")
METRICS = (*CLEAN, "undetected_error_rate", "detection_auc")
TRANSFERRED = ("transferability", "selective_transferability")


def rows(workspace: Workspace, name: str, card: Card, evidence: Mapping[str, Evidence]) -> Iterator[dict[str, Any]]:
    """
    Return every cell of a card; a number that does not exist is None.

    Examples that the threshold did not shape are also judged at that of 1 % false alarms. Attacks on the system itself
    know the threshold 0.5, and would be others at another one.
    """
    name, _, images = name.partition("@")
    source, number, system = name.split("-", 2)
    fields = {"source": source, "fold": int(number), "system": system, "images": images}
    yield from _cells(fields, evidence)
    if images != "few":
        limit = alarm_threshold(workspace, card)
        moved = {sweep: at_threshold(part, limit) for sweep, part in evidence.items()}
        yield from _cells({**fields, "threshold": ALARMS, "limit": limit}, moved)


def _cells(fields: Row, evidence: Mapping[str, Evidence]) -> Iterator[dict[str, Any]]:
    clean = _cell(evidence["clean"], "0", CLEAN)
    yield {**fields, "sweep": "clean", **clean}
    for sweep, part in evidence.items():
        if sweep == "clean":
            continue
        metrics = (*METRICS, *(TRANSFERRED if part.source is not None else ()))
        cells = [_cell(part, strength, metrics) for strength in part.strengths]
        if sweep != "mixed":
            cells = [cell | _half(clean, cell) for cell in cells]
        for cell in cells:
            yield {**fields, "sweep": sweep, **cell}
        if sweep == "curve":
            yield {**fields, "sweep": "shape", "strength": part.strengths[-1], **_shapes(clean, cells)}


def _cell(evidence: Evidence, strength: str, metrics: Sequence[str]) -> dict[str, Any]:
    row = evidence.index(strength)
    cell: dict[str, Any] = {"strength": strength, "status": evidence.status[row], "n": len(evidence)}
    if evidence.status[row] == OK:
        for metric in metrics:
            value = claims.measure(evidence, strength, metric).value
            cell[metric] = None if math.isnan(value) else round(value, 6)
        if evidence.attack_probability is not None:
            cell["attack_probability"] = round(float(np.mean(evidence.attack_probability[row])), 6)
    return cell


def _half(clean: Row, cell: Row) -> dict[str, Any]:
    """
    Return the accuracies if half of the images are perturbed, as in the paper: every image counts both ways.

    They follow exactly from section 4's formulas with p = 1/2, because the inputs are the measured fractions.
    """
    if cell["status"] != OK or clean["status"] != OK:
        return {}
    half: dict[str, Any] = {"half_accuracy": round(before(clean["accuracy"], cell["accuracy"], 0.5), 6)}
    if clean["coverage"] + cell["coverage"] > 0:
        accuracies = (clean["selective_accuracy"] or 0.0, cell["selective_accuracy"] or 0.0)
        half["half_selective_accuracy"] = round(after(*accuracies, 0.5, clean["coverage"], cell["coverage"]), 6)
    return half


def _shapes(clean: Row, cells: Sequence[Row]) -> dict[str, Any]:
    """Return the shape metrics of both accuracies of half perturbed images, from ε 0 on."""
    shapes: dict[str, Any] = {}
    sizes = np.array([0.0, *(float(cell["strength"]) for cell in cells)])
    for prefix, metric in (("", "accuracy"), (curves.SELECTIVE, "selective_accuracy")):
        values = [clean.get(metric), *(cell.get(f"half_{metric}") for cell in cells)]
        if None not in values:
            accuracies = np.array(values, float)
            shapes |= {f"{prefix}{name}": round(curves.shape(name, sizes, accuracies)[0], 6) for name in curves.SHAPES}
    return shapes


# The second threshold of the filter


def threshold(probabilities: npt.ArrayLike, share: float = FALSE_ALARMS) -> float:
    """Return the smallest attack probability above which at most a fraction of the images lies."""
    rising = np.sort(np.asarray(probabilities, float))
    return float(rising[len(rising) - 1 - math.floor(share * len(rising) + 1e-9)])


def validation_images(workspace: Workspace, card: Card) -> Images:
    """Return the images of the card's training part on which no training of its run was fitted, all of them clean."""
    from models.loop import Plan

    images, recipe = workspace.images(card, "train"), card.file.recipe
    assert recipe is not None
    # All recipes of a run hold out the same fraction with the same seed; a joined model has no training of its own.
    share = recipe.arguments.get("held_out", Plan.held_out)
    _, rows = held_out(images.labels, images.groups, share, recipe.seed)
    return images.select(rows, f"held-out of {images.name}")


def alarm_threshold(workspace: Workspace, card: Card, batch_size: int = 500) -> float:
    """Return the threshold at which a card's model discards 1 % of its clean validation images."""
    import torch

    images, decision, probabilities = validation_images(workspace, card), card.file.model.decision, []
    assert isinstance(decision, Filtering)
    module = workspace.classifier(card).module
    device = next(module.parameters()).device
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            logits = module(torch.from_numpy(images.batch(start, start + batch_size)).to(device))
            probabilities.append(-torch.expm1(decision.log_passed(logits)).cpu().numpy())
    return threshold(np.concatenate(probabilities))


def at_threshold(evidence: Evidence, value: float) -> Evidence:
    """Return evidence with another threshold of the decision: nothing else of a sweep depends on it."""
    decision = {**evidence.provenance["decision"], "threshold": value}
    clean = None if evidence.clean is None else at_threshold(evidence.clean, value)
    return replace(evidence, provenance={**evidence.provenance, "decision": decision}, clean=clean)


# Readings


class Measured(rows_.Measured):
    """The rows of one data set, with its curve over ε."""

    def curve(self, system: str, metric: str, above: float = -1.0) -> list[float]:
        """Return the means over the folds at every larger ε, in their order."""
        return [self.mean(system, "curve", metric, name) for name in self.strengths("curve") if float(name) > above]

    def over_curve(self, system: str, metric: str, above: float = -1.0) -> list[float]:
        """Return each fold's mean over every larger ε; NaN if any is missing."""
        numbers = [self.folds(system, "curve", metric, e) for e in self.strengths("curve") if float(e) > above]
        return [sum(fold) / len(fold) for fold in zip(*numbers, strict=True)]

    def limits(self, system: str) -> list[float]:
        """Return each fold's threshold of the filter, which is 0.5 if a row names no other."""
        return [float(HALF) if math.isnan(limit) else limit for limit in self.folds(system, "clean", "limit")]


class Reading(NamedTuple):
    """A reading of what the paper leaves open: the filter's threshold, and whose examples BIN was trained on."""

    threshold: str = HALF
    examples: str = TWIN


READINGS = tuple(Reading(threshold, examples) for threshold in (HALF, ALARMS) for examples in (TWIN, OWN))


def read(source: str, rows: Sequence[Row], scale: str, reading: Reading = READINGS[0]) -> Measured:
    """
    Return the rows of one reading.

    Systems whose detector was trained on examples of their own network are renamed to those of the first reading, so
    every table and criterion is the same.
    """
    retrained = {row["system"].removesuffix("+own") for row in rows if row["system"].endswith("+own")}
    chosen = []
    for row in rows:
        name, _, detector = row["system"].partition("+")
        expected = ("own" if name in retrained and reading.examples == OWN else "bin") if detector else ""
        if detector == expected and (row.get("threshold") or HALF) == reading.threshold:
            chosen.append({**row, "system": f"{name}+bin"} if detector else row)
    return Measured(source, chosen, scale)


def measured(result: Mapping[str, Any], reading: Reading = READINGS[0]) -> Measured:
    """Return the rows of a result in one reading."""
    return read(result["source"], unpacked(result), result["scale"], reading)


def readings(rows: Sequence[Row]) -> list[Reading]:
    """Return the readings that were measured."""
    thresholds = {row.get("threshold") or HALF for row in rows}
    examples = {TWIN, *(OWN for row in rows if row["system"].endswith("+own"))}
    return [reading for reading in READINGS if reading.threshold in thresholds and reading.examples in examples]
