"""From evidence to the numbers that the tables, figures and claims of label-2n are made of: one row a cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from robustness import claims, curves
from robustness.cards import Card
from robustness.evidence import OK, Evidence
from robustness.harness import Harness

TRANSFERRED = ("transferability", "transferability_filtered")
EVERY = ("accuracy", "accuracy_filtered", "kept", "undetected_wrong", "detection_auc")


def rows(harness: Harness, card: Card) -> Iterator[dict[str, Any]]:
    """Give every cell of a card: what was measured on it, None where there is nothing to measure."""
    name, _, images = card.name.partition("@")
    source, fold, system = name.split("-", 2)
    about = {"source": source, "fold": int(fold), "system": system, "images": images}
    clean = harness.evidence(card)
    yield {**about, "sweep": "clean", **_cell(clean, "0", ("accuracy", "accuracy_filtered", "kept"))}
    for sweep in card.file.sweeps:
        evidence = harness.evidence(card, sweep)
        metrics = (*EVERY, *(TRANSFERRED if evidence.source is not None else ()))
        for strength in evidence.strengths:
            yield {**about, "sweep": sweep, **_cell(evidence, strength, metrics)}
        if sweep == "curve":
            last = evidence.strengths[-1]
            yield {**about, "sweep": "shape", **_cell(evidence, last, curves.NAMES)}


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
