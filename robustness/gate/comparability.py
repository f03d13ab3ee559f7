"""What two models must have in common to be compared: data, labels, seed and sweeps; and where they differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from robustness.metrics.evidence import Evidence

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


def of_report(model: Mapping[str, Any]) -> dict[str, Any]:
    """Describe how one model of a run's report was measured, as far as the report says."""
    sweeps = {
        sweep["name"]: {
            "perturbation": {"kind": sweep["kind"], **sweep["parameters"]},
            "unit": sweep["unit"],
            "strengths": [cell["strength"] for cell in sweep["cells"]],
        }
        for sweep in model["sweeps"]
    }
    data = {"name": model["data"]["name"], "images": model["data"]["n"], "fingerprint": model["data"]["fingerprint"]}
    return {"data": data, "seed": model["seed"], "sweeps": sweeps}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """
    List every difference between two protocols, a line each; the name of data that are the same is none.

    >>> differences({"data": {"images": 600}, "seed": 0}, {"data": {"images": 200}, "seed": 0})
    ['data.images: 600 and 200']
    """
    was, now = dict(_leaves(one)), dict(_leaves(other))
    same_data = "data.fingerprint" in was and was["data.fingerprint"] == now.get("data.fingerprint")
    found = []
    for place in dict.fromkeys([*was, *now]):
        a, b = was.get(place, "nothing"), now.get(place, "nothing")
        if a != b and not (place == "data.name" and same_data):
            found.append(f"{place}: {_short(a)} and {_short(b)}")
    return found


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}.{key}" if place else str(key))
    else:
        # Numbers that a file has kept are the same ones, but a tuple comes back as a list.
        yield place, list(value) if isinstance(value, tuple | list | np.ndarray) else value


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"
