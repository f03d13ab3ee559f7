"""What two models must have in common to be compared: data, labels, seed and sweeps; and where they differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from robustness.metrics.evidence import Evidence
from robustness.reporting.report import ModelReport
from robustness.util import diff

ALIKE = ("perturbation", "unit", "source")
"""Of what evidence depends on: what must be alike in a sweep, beside its strengths. The model is what is compared."""


def of_evidence(swept: Mapping[str, Evidence]) -> dict[str, Any]:
    """
    Describe how evidence of several sweeps was made, in plain types, but for the model and the machine.

    The machine is left out on purpose: kinds of device differ in the last bits of a few logits, and a baseline that
    only holds on one machine gates nothing in CI.
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
        # What baselines without it always had stays theirs.
        **({} if (dtype := about.get("dtype", "float32")) == "float32" else {"dtype": dtype}),
        "sweeps": {name: _sweep(evidence) for name, evidence in sorted(swept.items())},
    }


def _sweep(evidence: Evidence) -> dict[str, Any]:
    subject = evidence.provenance["subject"]
    return {key: subject[key] for key in ALIKE if key in subject} | {"strengths": list(evidence.strengths)}


def of_report(model: ModelReport) -> dict[str, Any]:
    """Describe how one model of a run's report was measured, as far as the report says."""
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
    List every difference between two protocols, a line each; the name of data that are the same is none.

    >>> differences({"data": {"name": "a", "fingerprint": "f"}, "seed": 0}, {"data": {"name": "b", "fingerprint": "f"}})
    ['seed: 0 and nothing']
    """
    fingerprint = one.get("data", {}).get("fingerprint")
    same_data = fingerprint is not None and fingerprint == other.get("data", {}).get("fingerprint")
    return [line for line in diff.diff_nested(one, other) if not (same_data and line.startswith("data.name: "))]
