"""Train and sweep for eyes-parseval: everything that its tables, figures and claims are made of, as one result."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from reports import running
from reports.eyes_parseval.protocol import SOURCES, Scale
from reports.rows import packed
from reports.strips import strip
from robustness.cards import Card
from robustness.metrics import roc_auc
from robustness.metrics.evidence import OK, Evidence
from robustness.workspace.workspace import Workspace

FORMAT = "pytest-robustness/report/eyes-parseval/1"
METRICS = ("accuracy", "precision", "recall", "roc_auc")
POINTS = np.logspace(-4, 0, 41)
"""False-positive rates at which curves are kept: the report draws them on a logarithmic axis."""
CURVES = {("clean", "0"), ("fgsm-snr", "33"), ("twin-snr", "33")}
"""Sweep and strength of the cells that have a curve."""
SHOWN = ("wrn", "parseval", "wrn-adv", "parseval-adv")
"""Systems whose images are shown, of the first fold."""


def result(cards: Mapping[str, Card], trained: Mapping[str, Any], source: str, scale: Scale, harness: Workspace) -> Any:
    """Sweep every system of a fold, and give all numbers with where they come from, as they go into its file."""
    began = time.perf_counter()
    rows, curves, evidence, data = [], [], {}, {}
    for i, (name, card) in enumerate(cards.items()):
        running.say(f"{name} ({i + 1} of {len(cards)})")
        for sweep in ("clean", *card.file.sweeps):
            found = harness.evidence(card, sweep)
            rows += list(running.evidence_rows({**_about(name), "sweep": sweep}, found, METRICS))
            curves += list(_curves(name, sweep, found))
            evidence[f"{name}:{sweep}"] = running.swept(found, harness.store.run)
        data[name.split("-")[1]] = running.images(harness.images(card))
    first = next(iter(cards)).rpartition("-")[0]
    for notice in harness.notices:
        running.say(notice)
    return {
        "format": FORMAT,
        "paper": "eyes-parseval",
        "scale": scale.name,
        "source": source,
        "seeds": [harness.seed],
        "about": SOURCES[source].about,
        "folds_of_the_protocol": scale.folds,
        "plan": {"epochs": scale.epochs, "period": scale.period, "k": scale.k, "depth": scale.depth},
        "provenance": {
            **running.machine(harness),
            "sweeping": round(time.perf_counter() - began, 1),
            "data": data,
        },
        "models": dict(trained),
        "evidence": evidence,
        "curves": curves,
        "strips": [strip(harness, cards[f"{first}-{system}"], "fgsm-snr", system) for system in SHOWN],
        **packed(rows),
    }


def _about(name: str) -> dict[str, Any]:
    source, fold, system = name.split("-", 2)
    return {"source": source, "fold": int(fold), "system": system, "images": "fold"}


def _curves(name: str, sweep: str, evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Return the micro-averaged ROC curve of some cells, at rates that all share."""
    for row, strength in enumerate(evidence.strengths):
        if (sweep, strength) in CURVES and evidence.status[row] == OK and evidence.probabilities is not None:
            true = np.eye(len(evidence.classes), dtype=bool)[evidence.labels]
            found = roc_auc.roc_curve(true.ravel(), evidence.probabilities[row].ravel())
            rates = np.interp(POINTS, found.false_positive_rates, found.true_positive_rates)
            yield {**_about(name), "sweep": sweep, "strength": strength, "rates": [round(float(r), 4) for r in rates]}
