"""Train and sweep for label-2n: everything that its tables, figures and claims are made of, as one result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reports import running
from reports.label_2n import numbers, protocol
from reports.label_2n.protocol import Scale
from robustness import cards
from robustness.cards import Card
from robustness.harness import Harness
from robustness.parallel import train_many
from robustness.progress import bar
from robustness.trained import recipe_hash

FORMAT = "pytest-robustness/report/label-2n/1"
Say = Callable[[str], None]


def train(tables: Mapping[str, Any], folder: Path, harness: Harness, workers: int | None, say: Say) -> dict[str, Any]:
    """Train every model, first those that others need; give what each says of its training."""
    paths = protocol.write(tables, folder)
    every = {name: cards.load(path) for name, path in paths.items()}
    told: dict[str, Any] = {}
    for level in levels(every):
        what = f"training {len(told) + 1} to {len(told) + len(level)} of {len(every)} models"
        files = train_many(
            [every[name] for name in level], harness.store.root, harness.data_root, workers, say=say, progress=bar,
            what=what, device=harness.device,
        )  # fmt: skip
        for name, file in zip(level, files, strict=True):
            log = harness.store.path("logs", recipe_hash(harness, every[name]), "csv")
            told[name] = running.training(file, log)
    return told


def levels(every: Mapping[str, Card]) -> list[list[str]]:
    """Give the names in the order of what they need: each level needs earlier ones alone."""
    left, found = dict(every), []
    done: set[str] = set()
    while left:
        ready = [name for name, card in left.items() if _needed(card) <= done]
        found.append(ready)
        done |= set(ready)
        left = {name: card for name, card in left.items() if name not in done}
    return found


def _needed(card: Card) -> set[str]:
    return {Path(path).stem for path in card.file.recipe.needs.values()} if card.file.recipe else set()


def result(
    tables: Mapping[str, Any], trained: Mapping[str, Any], source: str, scale: Scale, folder: Path, harness: Harness,
    say: Say,
) -> dict[str, Any]:  # fmt: skip
    """Sweep every system, and give all numbers with where they come from, as they go into the JSON file."""
    began = time.perf_counter()
    paths = protocol.write(protocol.evaluated(tables, source, scale), folder)
    rows, evidence, data = [], {}, {}
    for i, (name, path) in enumerate(paths.items()):
        say(f"{name} ({i + 1} of {len(paths)})")
        card = cards.load(path)
        rows += list(numbers.rows(harness, card))
        for sweep in ("clean", *card.file.sweeps):
            evidence[f"{name}:{sweep}"] = running.swept(harness.evidence(card, sweep), harness.store.run)
        data[f"{card.name.split('-')[1]}@{name.partition('@')[2]}"] = running.images(harness.images(card))
    for notice in harness.notices:
        say(notice)
    columns = list(dict.fromkeys(key for row in rows for key in row))
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
        "columns": columns,
        "rows": [[row.get(column) for column in columns] for row in rows],
    }


def unpacked(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Give the rows of a result by their columns' names, without what is missing.

    >>> unpacked({"columns": ["n", "kept"], "rows": [[3, None], [4, 0.5]]})
    [{'n': 3, 'kept': None}, {'n': 4, 'kept': 0.5}]
    """
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
