"""Conditions that two models must share to be compared: data, labels, seed and sweeps; and their differences."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from robustness.metrics.evidence import Evidence
from robustness.reporting.report import ModelReport
from robustness.util import diff

ALIKE = ("perturbation", "unit", "source")
"""Fields of provenance that must be equal in a sweep, besides its strengths. The model is what is compared."""


def of_evidence(swept: Mapping[str, Evidence]) -> dict[str, Any]:
    """
    Describe the conditions of several sweeps' evidence in plain types, without the model and the machine.

    The machine is left out on purpose: device types differ in the last bits of a few logits, and a baseline for a
    single machine is useless in CI.
    """
    clean = next(iter(swept.values()))
    about = clean.provenance["subject"]
    return {
        "data": {
            "name": clean.provenance.get("images", {}).get("name", ""),
            "images": len(clean),
            "fingerprint": about["images"],
            "labels": hashlib.sha256(clean.labels.astype("<i4").tobytes()).hexdigest(),
            "classes": list(clean.classes),
        },
        "seed": about["seed"],
        "semantics": about["semantics"],
        # Baselines without this key keep the former default.
        **({} if (dtype := about.get("dtype", "float32")) == "float32" else {"dtype": dtype}),
        "sweeps": {name: _sweep(evidence) for name, evidence in sorted(swept.items())},
    }


def _sweep(evidence: Evidence) -> dict[str, Any]:
    subject = evidence.provenance["subject"]
    return {key: subject[key] for key in ALIKE if key in subject} | {"strengths": list(evidence.strengths)}


def of_report(model: ModelReport) -> dict[str, Any]:
    """Describe the conditions of one model in a run's report, as far as it has them."""
    sweeps = {
        sweep.name: {
            "perturbation": {"kind": sweep.kind, **sweep.parameters},
            "unit": sweep.unit,
            "strengths": [cell.strength for cell in sweep.cells],
        }
        for sweep in model.sweeps
    }
    data = {"name": model.data.name, "images": model.data.n, "fingerprint": model.data.fingerprint}
    return {"data": data, "seed": model.seed, "sweeps": sweeps}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """
    List every difference between two protocols, one per line; another name for the same data does not count.

    >>> differences({"data": {"name": "a", "fingerprint": "f"}, "seed": 0}, {"data": {"name": "b", "fingerprint": "f"}})
    ['seed: 0 and nothing']
    """
    fingerprint = one.get("data", {}).get("fingerprint")
    same_data = fingerprint is not None and fingerprint == other.get("data", {}).get("fingerprint")
    return [line for line in diff.diff_nested(one, other) if not (same_data and line.startswith("data.name: "))]
