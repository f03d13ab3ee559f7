"""Looks: which models a paired gate has judged against one baseline, in a file beside it, and at which levels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from robustness.cards import Card
from robustness.errors import StoreError
from robustness.gate import paired_gate
from robustness.gate.baseline import Baseline
from robustness.gate.differences import DISAGREEMENT, GateCell, GateError
from robustness.gate.sequential_stats import look_level
from robustness.metrics import detection, registry
from robustness.metrics.evidence import Evidence
from robustness.util import paths
from robustness.util.hashing import sha256_json
from robustness.workspace.store import Store

FORMAT = "pytest-robustness/looks/1"
Look = dict[str, str]
"""Of one look: the hash of its `decisions`, that of the `weights`, and the `outcome`."""


def looks_file(baseline: Path) -> Path:
    """Return the file of the looks at a baseline.

    >>> looks_file(Path("baselines/net.json")).name
    'net.looks.json'
    """
    return baseline.with_suffix(".looks.json")


def evaluate_look(
    card: Card,
    baseline: Baseline,
    swept: Mapping[str, Evidence],
    cells: Sequence[GateCell],
    waived: Mapping[str, str],
    store: Store | None,
) -> paired_gate.Decided:
    """
    Judge a model as the next look at its baseline, and count it; without a store it is not counted.

    A model that was judged before has the number and the levels of that look. GateError if a look cannot be counted: a
    verdict that does not count would leave α to the next one.
    """
    gate, path = card.file.gate, looks_file(card.baseline)
    assert gate is not None
    accepted = _accepted(baseline)
    name = f"looks-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()}"
    with nullcontext() if store is None else store.exclusive(name, f"judging {card.name} against its baseline"):
        looks = read(path, accepted)
        look = {"decisions": _decisions(swept, cells, waived), "weights": _weights(swept)}
        before = [one["decisions"] for one in looks]
        number = before.index(look["decisions"]) if look["decisions"] in before else len(looks)
        ends = [one["outcome"] for one in looks[:number]]
        passing, failing = (look_level([end == kind for end in ends], gate.alpha) for kind in ("passed", "failed"))
        outcome, message, table = paired_gate.evaluate_paired_gate(
            gate, baseline, swept, cells, waived, None, (passing, failing)
        )
        if store is not None and number == len(looks):
            card.check_written(path)
            _write(store, path, {"baseline": accepted, "looks": [*looks, {**look, "outcome": str(outcome)}]})
    table["look"] = {"number": number + 1, "passing_level": passing, "failing_level": failing}
    table["notes"] = [
        f"look {number + 1} at this baseline: a pass is tested at {passing:.2g}, a failure at {failing:.2g}, so that "
        f"all looks together err with probability at most {gate.alpha:g}; commit {path.name}, which counts them"
    ]
    return outcome, message, table


def read(path: Path, accepted: str) -> list[Look]:
    """Return the looks at an accepted model; none if the file counts those at another one, or is missing."""
    try:
        document = paths.parse_json(paths.read_bytes(path))
        looks = [{key: str(one[key]) for key in ("decisions", "weights", "outcome")} for one in document["looks"]]
        if document["format"] != FORMAT:
            raise ValueError(document["format"])
        return looks if document["baseline"] == accepted else []
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GateError(
            f"{path}: does not count looks (truncated, or a conflict of two branches: {type(error).__name__}); restore "
            "it from version control, with the lines of both branches"
        ) from error


def _write(store: Store, path: Path, document: Mapping[str, Any]) -> None:
    """Write the file atomically, one look per line: branches that add looks conflict in these lines only."""
    lines = ",\n".join(f"  {json.dumps(look)}" for look in document["looks"])
    text = f'{{\n "format": "{FORMAT}",\n "baseline": "{document["baseline"]}",\n "looks": [\n{lines}\n ]\n}}\n'
    try:
        store.write(path, text.encode())
    except StoreError as error:
        raise GateError(
            f"{path} could not be written ({error.__cause__}), so this look cannot be counted; make it writable, or "
            "remove `looks` from [gate]"
        ) from error


def _accepted(baseline: Baseline) -> str:
    """Hash what a baseline compares with: accepting the same model again does not begin a new count."""
    fields = {
        "protocol": baseline.protocol,
        "weights": [one["weights"] for one in baseline.accepted],
        "predictions": hashlib.sha256(baseline.predictions.tobytes()).hexdigest(),
    }
    return sha256_json(fields)


def _weights(swept: Mapping[str, Evidence]) -> str:
    return str(next(iter(swept.values())).provenance["subject"]["weights"])


def _decisions(swept: Mapping[str, Evidence], cells: Sequence[GateCell], waived: Mapping[str, str]) -> str:
    """Hash everything that the test depends on: the weights alone would not see other code around them."""
    hashed = hashlib.sha256(_weights(swept).encode())
    for cell in cells:
        evidence = swept[cell.sweep]
        bare = cell.strengths or cell.metric == DISAGREEMENT
        scores = "" if bare else registry.get(cell.metric).baseline_scores
        arrays = []
        for row in map(evidence.index, cell.strengths or (cell.strength,)):
            arrays.append(evidence.predictions[row])
            if evidence.attack_probability is not None:
                arrays.append(detection.discarded(evidence, row))
            if scores:
                arrays.append(getattr(evidence, scores)[row])
        hashed.update(f"{cell}:{cell.margin!r}:{str(cell) in waived}".encode())
        for array in arrays:
            hashed.update(array.tobytes())
    return hashed.hexdigest()
