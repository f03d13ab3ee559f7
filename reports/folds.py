"""
The folds of a result, or its other parts, a file each: one that was measured, here or elsewhere, is not measured again.

A store holds weights and evidence, and is gone with its machine; the file of a fold says what it was made of, and
stands as long as that is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from reports import commands, running
from reports.rows import packed, unpacked
from robustness.cards import Card
from robustness.metrics.evidence import SEMANTICS
from robustness.util import hardware, paths
from robustness.util.hashing import sha256_json
from robustness.workspace.models import recipe_hash
from robustness.workspace.workspace import Workspace

Result = Mapping[str, Any]
JOINED = ("curves", "streams", "pairs", "runs")
"""Lists of a result to which every fold adds."""


def path(output: Path, paper: str, source: str, scale: str, fold: int | str) -> Path:
    """Return the file of one fold, or of another part that a result has."""
    return output / f"{paper}_{source}_{scale}_{fold}.json"


def made_of(harness: Workspace, cards: Mapping[str, Card]) -> str:
    """Hash everything that a fold's numbers depend on: its models' recipes, sweeps, images, and the kind of device."""
    about = {
        name: {
            # As it is written: keys that cards gain later change nothing here.
            "card": paths.parse_toml(card.path.read_bytes()),
            "recipe": recipe_hash(harness, card),
            "images": harness.images(card).fingerprint,
            "sources": {
                sweep: recipe_hash(harness, source)
                for sweep in card.file.sweeps
                if (source := harness.source(card, sweep)) is not None
            },
        }
        for name, card in cards.items()
    }
    device = hardware.device_fingerprint(harness.device)
    return sha256_json({"semantics": SEMANTICS, "device": device, "cards": about})


def holds(file: Path, made_of: str) -> bool:
    """Return whether a file has the numbers of a fold."""
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("made_of") == made_of


def measure(
    file: Path, fold: int, harness: Workspace, cards: Mapping[str, Card], make: Callable[[], Result | None]
) -> None:
    """Make the result of a fold, which these cards are swept for, and keep it; one whose file stands is not made."""
    made = made_of(harness, cards)
    if holds(file, made):
        running.say(f"fold {fold + 1} is measured: {file}")
    elif (found := make()) is not None:
        keep(file, fold, made, found)


def keep(file: Path, fold: int, made_of: str, found: Result) -> None:
    """Write the result of a fold, with what it was made of."""
    commands.keep(file, {**found, "fold": fold, "made_of": made_of})


def results(output: Path, paper: str) -> list[dict[str, Any]]:
    """Return the results of a paper that a folder has, the folds of one data set and scale as one."""
    parts = [json.loads(file.read_text(encoding="utf-8")) for file in output.glob(f"{paper}_*.json")]
    parts.sort(key=lambda part: (part["source"], part["scale"], part["fold"]))
    return [merged(list(of_one)) for _, of_one in groupby(parts, lambda part: (part["source"], part["scale"]))]


def merged(parts: Sequence[Result]) -> dict[str, Any]:
    """Return the folds of one data set and scale as one result."""
    told = [part["provenance"] for part in parts]
    versions = {name: _said(each["versions"][name] for each in told) for name in told[0]["versions"]}
    provenance = {
        **{name: _said(each[name] for each in told) for name in ("made", "device", "cores")},
        "versions": versions,
        "sweeping": sum(each["sweeping"] for each in told),
        "data": _all(each["data"] for each in told),
    }
    return {
        **parts[0],
        "folds": len(parts),
        "seeds": sorted({seed for part in parts for seed in part["seeds"]}),
        "provenance": provenance,
        **{name: _all(part[name] for part in parts) for name in ("models", "evidence")},
        **{name: [each for part in parts for each in part[name]] for name in JOINED if name in parts[0]},
        **packed([row for part in parts for row in unpacked(part)]),
    }


def _said(values: Iterable[Any]) -> str:
    """
    Say what each fold says, once.

    >>> _said(["2.13.0", "2.13.0"]), _said(["2026-11-21", "2026-11-22", "2026-11-21"])
    ('2.13.0', '2026-11-21 and 2026-11-22')
    """
    return " and ".join(dict.fromkeys(map(str, values)))


def _all(tables: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for table in tables for name, value in table.items()}
