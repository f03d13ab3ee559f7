"""Train and sweep for label-2n: everything that its tables, figures and claims are made of, as one result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from reports import running
from reports.label_2n import numbers
from reports.label_2n.protocol import Scale
from reports.rows import packed
from robustness.cards import Card
from robustness.workspace.workspace import Workspace

FORMAT = "pytest-robustness/report/label-2n/1"


def result(
    cards: Mapping[str, Card], trained: Mapping[str, Any], source: str, scale: Scale, number: int, harness: Workspace
) -> dict[str, Any]:  # fmt: skip
    """Sweep every system of a run, and return all numbers with where they come from, as they go into its file."""
    began, (fold, seed) = time.perf_counter(), scale.runs[number]
    rows, evidence, data = [], {}, {}
    for i, (name, card) in enumerate(cards.items()):
        running.say(f"{name} ({i + 1} of {len(cards)})")
        rows += list(numbers.rows(harness, name, card))
        for sweep in ("clean", *card.file.sweeps):
            evidence[f"{name}:{sweep}"] = running.swept(harness.evidence(card, sweep), harness.store.run)
        data[f"{name.split('-')[1]}@{name.partition('@')[2]}"] = running.images(harness.images(card))
    for notice in harness.notices:
        running.say(notice)
    return {
        "format": FORMAT,
        "paper": "label-2n",
        "scale": scale.name,
        "source": source,
        "seeds": [seed],
        "folds_of_the_protocol": len(scale.runs),
        "runs": [{"fold": fold, "of": scale.folds, "seed": seed}],
        "width": scale.width,
        "plan": dict(scale.plan),
        "few": scale.few,
        "steps": scale.steps,
        "provenance": {**running.machine(harness), "sweeping": round(time.perf_counter() - began, 1), "data": data},
        "models": trained,
        "evidence": evidence,
        **packed(rows),
    }
