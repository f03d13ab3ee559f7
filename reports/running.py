"""What a paper's result file says of where its numbers come from: machine, versions, trainings, evidence."""

from __future__ import annotations

import csv
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import robustness
from robustness import hardware, weights
from robustness.datasets.images import Images
from robustness.evidence import Evidence
from robustness.harness import Harness


def machine(harness: Harness) -> dict[str, Any]:
    """Say when and on what a result is made."""
    return {
        "made": datetime.now(UTC).date().isoformat(),
        "device": hardware.device_kind(harness.device),
        "cores": hardware.cores(),
        "versions": {
            "python": platform.python_version(),
            "pytest-robustness": robustness.__version__,
            **{name: version(name) for name in ("torch", "numpy")},
        },
    }


def images(of: Images) -> dict[str, Any]:
    """Say which images."""
    return {"name": of.name, "n": len(of), "fingerprint": of.fingerprint}


def training(file: Path, log: Path | None = None) -> dict[str, Any]:
    """
    Give what a weights file says of its making, and the log of the best epoch; what is not known is None.

    A training that was interrupted has no time.
    """
    told = weights.metadata(file)
    seconds = float(told["seconds"]) if told.get("seconds") else None
    found: dict[str, Any] = {"recipe": told["recipe"], "weights": told["checksum"], "seconds": seconds}
    if log is None:
        return found
    rows = list(csv.DictReader(log.read_text(encoding="utf-8").splitlines())) if log.is_file() else []
    last = rows[-1] if rows else {}
    accuracy = last.get("held_out_accuracy")
    return found | {"epochs": len(rows) or None, "held_out_accuracy": float(accuracy) if accuracy else None}


def swept(evidence: Evidence, run: str) -> dict[str, Any]:
    """Say which evidence numbers come from."""
    told = evidence.provenance
    return {
        "key": told["key"],
        "digest": evidence.digest,
        "seconds": told["seconds"],
        "in_this_run": told["run"] == run,
        "doubts": told["doubts"],
    }
