"""Names in cards and baselines that have changed: one table, for `robustness migrate` and for errors."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from robustness.metrics import registry
from robustness.perturbations import PERTURBATIONS

METRICS = {
    "kept": "coverage",
    "discarded": "rejection_rate",
    "accuracy_filtered": "selective_accuracy",
    "undetected_wrong": "undetected_error_rate",
    "transferability_filtered": "selective_transferability",
    "sensitivity": "max_accuracy_slope",
    "deviation": "accuracy_std",
    "range": "accuracy_range",
    "sensitivity_filtered": "selective_max_accuracy_slope",
    "deviation_filtered": "selective_accuracy_std",
    "range_filtered": "selective_accuracy_range",
}
KINDS = {
    "normal": "gaussian",
    "gan": "advgan",
    "conditional-gan": "conditional-advgan",
    "adaptive": "adaptive-pgd",
    "shift": "translation",
    "blur": "gaussian-blur",
}
PGD = {"relative_step": "relative_step_size", "worst_case": "stop_when_fooled"}
GAN = {"realism": "discriminator_weight", "hinge": "hinge_weight", "rms": "hinge_threshold"}
# Parameters by kind: a perturbation of another distribution may have one of the same name.
PARAMETERS = {
    "pgd": PGD,
    "adaptive-pgd": PGD | {"radii": "radius_fractions", "weights": "detector_weights"},
    "advgan": GAN,
    "conditional-advgan": GAN,
}
# Keys by the table that they stand in; "*" is the name of a sweep.
KEYS: dict[str, Mapping[str, str]] = {
    "": {"probabilities": "store_probabilities"},
    "model": {"entry": "checkpoint_key", "output": "logits_key"},
    "recipe": {"starts": "start"},
    "data": {"of": "pool", "tested": "num_test_images"},
    "data.split": {"share": "fraction"},
    "sweeps.*.strengths": {"clean": "clean_fraction"},
    "claims.*.strengths": {"clean": "clean_fraction"},
    "claims.*": METRICS,
    "search": {"sure": "min_confidence", "examples": "max_examples", "flip_rate": "max_flip_rate"},
}
# Values by their key.
VALUES: dict[str, Mapping[str, str]] = {
    "recipe.start": {"when needed": "automatic", "by command": "manual"},
    "data.test": {"given": "official"},
    "data.split.kind": {"given": "predefined", "grouped": "group", "folds": "kfold"},
    "sweeps.*.kind": KINDS,
    "sweeps.*.unit": {"native": "default", "std": "image-std"},
    "gate.kind": {"weights": "paired", "recipe": "retraining"},
    "gate.metrics": METRICS,
    "waivers.claim": METRICS,
    "waivers.cell": METRICS,
}
PROFILES = "tool.robustness.profiles"
SEMANTICS = {6: 7}
"""The version of evidence that differs from the next one in names alone: a baseline of it stays valid."""


class Change(NamedTuple):
    """A name that has changed: where it stands, as it was, and as it is."""

    place: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.place}: {self.old} → {self.new}"


def below(place: str, key: str) -> str:
    """
    Return the place of what a table holds under a key.

    >>> below("", "sweeps"), below("sweeps", "my noise"), below("sweeps.*", "kind")
    ('sweeps', 'sweeps.*', 'sweeps.*.kind')
    """
    if place == PROFILES:  # in pyproject.toml: a table of sweeps, by the profile's name
        return "sweeps"
    return f"{place}.*" if place in ("sweeps", "claims") else f"{place}.{key}".removeprefix(".")


def new_key(place: str, key: str, kind: str = "") -> str:
    """
    Return the name that a key has now; ``kind`` is the new kind of the sweep that it may belong to.

    >>> new_key("model", "entry"), new_key("sweeps.*", "weights", "adaptive-pgd"), new_key("sweeps.*", "weights")
    ('checkpoint_key', 'detector_weights', 'weights')
    """
    names = PARAMETERS.get(kind, {}) if place == "sweeps.*" else KEYS.get(place, {})
    return _new_name(names, key)


def new_value(place: str, value: Any) -> Any:
    """
    Return the word that a value has now.

    >>> new_value("recipe.start", "by command"), new_value("waivers.claim", "pgd:0.1:kept"), new_value("name", "gan")
    ('manual', 'pgd:0.1:coverage', 'gan')
    """
    names = VALUES.get(place, {})
    if not isinstance(value, str) or not names:
        return value
    before, sign, name = value.rpartition(":") if place.startswith("waivers.") else ("", "", value)
    return f"{before}{sign}{_new_name(names, name)}"


def _new_name(names: Mapping[str, str], name: str) -> str:
    """Return the name of now; a metric or perturbation that another distribution calls by an old name keeps it."""
    if name not in names:
        return name
    taken = (names is METRICS and registry.find(name)) or (names is KINDS and name in PERTURBATIONS)
    return name if taken else names[name]


def renamed(value: Any, place: str = "", shown: str = "") -> tuple[Any, list[Change]]:
    """
    Return a table (or what one holds) with the names of now, and what changed.

    >>> table, changes = renamed({"sweeps": {"far": {"kind": "shift", "strengths": [2]}}})
    >>> table["sweeps"]["far"]["kind"], *map(str, changes)
    ('translation', 'sweeps.far.kind: shift → translation')
    """
    changes: list[Change] = []
    if isinstance(value, Mapping):
        kind, table = sweep_kind(place, value), {}
        for key, each in value.items():
            new = new_key(place, key, kind)
            changes += [Change(shown or "top level", key, new)] * (new != key)
            table[new], inner = renamed(each, below(place, new), f"{shown}.{new}".removeprefix("."))
            changes += inner
        return table, changes
    if isinstance(value, list):
        parts = [renamed(each, place, shown) for each in value]
        return [part for part, _ in parts], [change for _, inner in parts for change in inner]
    new = new_value(place, value)
    return new, [Change(shown, value, new)] if isinstance(value, str) and new != value else []


def sweep_kind(place: str, table: Mapping[str, Any]) -> str:
    """Return the new name of a sweep's kind; "" for another table."""
    return str(new_value("sweeps.*.kind", table.get("kind"))) if place == "sweeps.*" else ""


def advice(path: Path, changes: Sequence[Change]) -> str:
    """Return the sentence on names of a file that have changed, with the command that rewrites it."""
    return (
        f"{path}: {len(changes)} name(s) have changed ({'; '.join(map(str, changes))}); rewrite the file with: "
        f"robustness migrate {shlex.quote(str(path))}"
    )


def renamed_baseline(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[Change]]:
    """Return a baseline's document with the names of now, and what changed; its checksum is left as it is."""
    changes: list[Change] = []
    protocol = dict(document["protocol"])
    sweeps: dict[str, Any] = {}
    for name, sweep in protocol["sweeps"].items():
        shown = f"protocol.sweeps.{name}"
        parts = {
            "perturbation": renamed(sweep["perturbation"], "sweeps.*", f"{shown}.perturbation"),
            "unit": renamed(sweep["unit"], "sweeps.*.unit", f"{shown}.unit"),
        }
        if "adaptation" in sweep.get("source", {}):
            adaptation, inner = renamed(sweep["source"]["adaptation"], "model", f"{shown}.source.adaptation")
            parts["source"] = {**sweep["source"], "adaptation": adaptation}, inner
        sweeps[name] = {**sweep, **{key: part for key, (part, _) in parts.items()}}
        changes += [change for _, inner in parts.values() for change in inner]
    protocol["sweeps"] = sweeps
    if changes and protocol["semantics"] in SEMANTICS:
        protocol["semantics"] = SEMANTICS[protocol["semantics"]]
    return {**document, "protocol": protocol}, changes
