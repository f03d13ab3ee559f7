"""Train and sweep for signs-adversarial: the networks of one seed on clean and on attacked images, as one result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from reports import running
from reports.rows import packed
from reports.signs_adversarial.protocol import SOURCES, STEPS, Scale
from robustness.cards import Card
from robustness.cards.selection import limit_test_images
from robustness.workspace.workspace import Workspace

FORMAT = "pytest-robustness/report/signs-adversarial/2"
METRICS = ("accuracy", "precision", "recall")


def result(cards: Mapping[str, Card], trained: Mapping[str, Any], source: str, scale: Scale, harness: Workspace) -> Any:
    """Sweep the networks of a seed, and return all numbers with where they come from, as they go into its file."""
    began = time.perf_counter()
    rows, evidence = [], {}
    for name, card in cards.items():
        running.say(name)
        _, seed, system = name.split("-", 2)
        about = {"source": source, "fold": int(seed), "system": system, "images": "test"}
        for sweep in ("clean", *card.file.sweeps):
            swept = harness.evidence(fewer(card, sweep, scale.few, harness), sweep)
            rows += list(running.evidence_rows({**about, "sweep": sweep}, swept, METRICS))
            evidence[f"{name}:{sweep}"] = running.swept(swept, harness.store.run)
    for notice in harness.notices:
        running.say(notice)
    first = next(iter(cards.values()))
    data = {"tested on": harness.images(first), "trained on": harness.images(first, "train")}
    return {
        "format": FORMAT,
        "paper": "signs-adversarial",
        "scale": scale.name,
        "source": source,
        "about": SOURCES[source].about,
        "seeds": [rows[0]["fold"]],
        "plan": {"epochs": scale.epochs, "width": scale.width, "few": scale.few, "steps": STEPS},
        "provenance": {
            **running.machine(harness),
            "sweeping": round(time.perf_counter() - began, 1),
            "data": {name: running.images(images) for name, images in data.items()},
        },
        "models": dict(trained),
        "evidence": evidence,
        **packed(rows),
    }


def fewer(card: Card, sweep: str, few: int, harness: Workspace) -> Card:
    """Return the card as a sweep is done: attacks of many steps on a few of its images."""
    if not sweep.endswith("pgd"):
        return card
    return limit_test_images(card, min(few, len(harness.images(card))))
