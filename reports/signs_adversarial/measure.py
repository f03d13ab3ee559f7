"""Train and sweep for signs-adversarial: both networks on clean and on attacked images, as one result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from reports import running
from robustness import claims
from robustness.cards import Card
from robustness.evidence import OK, Evidence
from robustness.harness import Harness

FORMAT = "pytest-robustness/report/signs-adversarial/1"
BEFORE, AFTER = "before", "after"
"""Adversarial training; the roles of the two cards."""


def result(pair: Mapping[str, Card], few: int, harness: Harness, work: running.Work) -> dict[str, Any]:
    """Train and sweep both; ``few`` test images are attacked by many steps, all by one."""
    named = {card.name: card for card in pair.values()}
    models = running.train(named, harness, work)
    rows, evidence = [], {}
    for role, card in pair.items():
        for sweep, images, found in swept(card, few, harness):
            running.say(f"{card.name}: {sweep} on {images:,} images")
            rows += [{"role": role, "sweep": sweep, **row} for row in _rows(found)]
            evidence[f"{card.name}:{sweep}"] = running.swept(found, harness.store.run)
    for notice in harness.notices:
        running.say(notice)
    scales = {card.file.scale for card in pair.values()}
    return {
        "format": FORMAT,
        "paper": "signs-adversarial",
        "scale": scales.pop() if len(scales) == 1 else "mixed",
        "provenance": {
            **running.machine(harness),
            "data": running.images(harness.images(pair[BEFORE])),
            "trained_on": running.images(harness.images(pair[BEFORE], "train")),
        },
        "cards": {role: {"name": card.name, "description": card.file.description} for role, card in pair.items()},
        "models": models,
        "evidence": evidence,
        "rows": rows,
    }


def swept(card: Card, few: int, harness: Harness) -> Iterator[tuple[str, int, Evidence]]:
    """Give every sweep of a card with the number of images: PGD's on a few of them."""
    data = card.file.data.model_copy(update={"tested": min(few, len(harness.images(card)))})
    smaller = replace(card, file=card.file.model_copy(update={"data": data}))
    for sweep in ("clean", *card.file.sweeps):
        of = smaller if sweep == "pgd" else card
        found = harness.evidence(of, sweep)
        yield sweep, len(found), found


def _rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    for strength, status in zip(evidence.strengths, evidence.status, strict=True):
        row: dict[str, Any] = {"strength": strength, "status": status, "n": len(evidence), "accuracy": None}
        if status == OK:
            found = claims.measure(evidence, strength, "accuracy")
            row |= {"accuracy": round(found.value, 6), "interval": [round(bound, 6) for bound in found.interval]}
        yield row
