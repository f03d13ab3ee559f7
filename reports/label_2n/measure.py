"""Train and sweep for label-2n: everything that its tables, figures and claims are made of, as one result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports import running
from reports.label_2n import numbers, protocol
from reports.label_2n.protocol import Scale
from reports.rows import packed
from robustness import cards
from robustness.harness import Harness

FORMAT = "pytest-robustness/report/label-2n/1"


def result(
    tables: Mapping[str, Any], trained: Mapping[str, Any], source: str, scale: Scale, folder: Path, harness: Harness
) -> dict[str, Any]:  # fmt: skip
    """Sweep every system, and give all numbers with where they come from, as they go into the JSON file."""
    began = time.perf_counter()
    paths = running.write(protocol.evaluated(tables, source, scale), folder)
    rows, evidence, data = [], {}, {}
    for i, (name, path) in enumerate(paths.items()):
        running.say(f"{name} ({i + 1} of {len(paths)})")
        card = cards.load(path)
        rows += list(numbers.rows(harness, card))
        for sweep in ("clean", *card.file.sweeps):
            evidence[f"{name}:{sweep}"] = running.swept(harness.evidence(card, sweep), harness.store.run)
        data[f"{card.name.split('-')[1]}@{name.partition('@')[2]}"] = running.images(harness.images(card))
    for notice in harness.notices:
        running.say(notice)
    return {
        "format": FORMAT,
        "paper": "label-2n",
        "scale": scale.name,
        "source": source,
        "folds": len({row["fold"] for row in rows}),
        "folds_of_the_protocol": scale.folds,
        "width": scale.width,
        "plan": dict(scale.plan),
        "few": scale.few,
        "steps": scale.steps,
        "provenance": {**running.machine(harness), "sweeping": round(time.perf_counter() - began, 1), "data": data},
        "models": trained,
        "evidence": evidence,
        **packed(rows),
    }
