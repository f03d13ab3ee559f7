"""Results of mutation testing, stored beside the card for the reports of later runs. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness.reporting.report import CaughtReport
from robustness.util import paths
from robustness.util.hashing import sha256_json

if TYPE_CHECKING:
    from robustness.cards import Card

FORMAT = "pytest-robustness/mutation/2"
LATER = {"looks": None, "statistic": "cell", "accepted_model": None, "max_disagreement": None}
"""Settings of a gate that are younger than stored results, with their defaults: at these, stored results stay valid."""


def place(card: Card) -> Path:
    """Return the file with a card's results."""
    return paths.place(card.path.parent / "mutation", card.name, ".json")


def result_key(card: Card, weights: str, images: str, seed: int) -> str:
    """Hash what the results depend on, except code and machine: model, data, claims, the gate with its baseline."""
    gate = card.file.gate
    later = {key for key, default in LATER.items() if gate and getattr(gate, key) == default}
    baseline = hashlib.sha256(card.baseline.read_bytes()).hexdigest() if gate and card.baseline.is_file() else None
    fields = {
        "weights": weights,
        "images": images,
        "seed": seed,
        # A sweep that stops early has the verdict of the full one.
        "sweeps": {name: table.model_dump(exclude={"early_stop"}) for name, table in card.file.sweeps.items()},
        "claims": {claim.id: claim.threshold for claim in card.claims()},
        "waivers": sorted(waiver.place for waiver in card.file.waivers),
        "gate": gate.model_dump(exclude=later) if gate else None,
        "baseline": baseline,
    }
    return sha256_json(fields)


def text(document: Mapping[str, Any]) -> str:
    """Return the results of one model or several as JSON."""
    return json.dumps({"format": FORMAT, **document}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def stored_result(card: Card, weights: str, images: str, seed: int) -> tuple[dict[str, Any] | None, str]:
    """Return the stored results if model, data, claims and gate are the same; else None, and the reason."""
    path, again = place(card), f"run `robustness mutate {card.name} --keep` to update it"
    try:
        document = paths.parse_json(paths.read_bytes(path))
        if document["format"] == FORMAT and document["about"] == result_key(card, weights, images, seed):
            return dict(document), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"not a result of `robustness mutate` (truncated or foreign: {type(error).__name__})"
        return None, f"{path}: {why}; {again}"
    return None, f"{path}: was computed for other weights, data, claims or gate settings; {again}"


def summary(document: Mapping[str, Any] | None) -> CaughtReport | None:
    """Return the part for a run's report: the level from which each damage is detected, and the false alarms."""
    with suppress(KeyError, TypeError, ValueError):  # an edited file says nothing
        if document is not None:
            return CaughtReport.model_validate(
                {
                    "damage": [
                        {"kind": row["kind"], "title": row["title"], **row["caught_from"]} for row in document["damage"]
                    ],
                    "retrainings": len(document["retrainings"]),
                    "false_alarms": document["false_alarms"],
                }
            )
    return None
