"""Whether a retrained model passes its gate: all its evidence, tested against the baseline, with a table of reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from robustness.cards import Card
from robustness.errors import CardError
from robustness.gate import baseline as baselines
from robustness.gate import comparability, looks, paired_gate, retraining_gate
from robustness.gate.baseline import Baseline
from robustness.gate.differences import DISAGREEMENT, GateCell, GateError, by_critical_strength, is_defined_for
from robustness.metrics import detection, registry
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.metric import MetricError
from robustness.workspace.store import Store

RETRAINED = (
    "if this model was retrained by its recipe, another seed alone makes differences of this kind; "
    'kind = "retraining" compares it with several accepted retrainings (docs/gate.md)'
)
"""A note on a failed paired gate of a card with a recipe."""

Outcome = Literal["passed", "failed", "inconclusive", "error"]


@dataclass(frozen=True)
class GateDecision:
    """The outcome of a gate, its message, and its numbers in plain types (docs/gate.md)."""

    outcome: Outcome
    message: str
    table: Mapping[str, Any] = field(default_factory=dict)


def decide(
    card: Card, get: Callable[[str], Evidence], store: Store | None = None, max_age: int | None = None
) -> GateDecision:
    """
    Test a card's model against its baseline; `get` returns the evidence of a sweep by its name.

    If the card counts looks, this one is counted under a lock in `store`; without a store it is judged and not counted.

    A baseline that was accepted more than ``max_age`` days ago is an error, and so is one that does not say when.

    If nothing can be compared (no baseline, another protocol, a cell without numbers), the outcome is "error".
    """
    gate = card.file.gate
    assert gate is not None
    # Sweep before reading the baseline: a run that fails because there is none can then be accepted.
    swept = {name: get(name) for name in card.gated_sweeps}
    keys = {name: evidence.provenance.get("key") for name, evidence in swept.items()}
    try:
        baseline = _baseline(card)
        _check_age(card, baseline, max_age)
        _check_comparable(card, baseline, swept)
        cells = tested = _cells(card, baseline, swept)
        waived = {w.cell: str(w) for w in card.file.waivers if w.cell is not None and not w.expired}
        hold = paired_gate.evaluate_paired_gate if gate.kind == "paired" else retraining_gate.evaluate_retraining_gate
        same = _identical(baseline, swept, cells)
        if gate.statistic == "critical-strength":
            cells = by_critical_strength(cells)
        if (limit := gate.max_disagreement) is not None:
            places = dict.fromkeys((cell.sweep, cell.strength) for cell in tested)
            cells = [*cells, *(GateCell(sweep, strength, DISAGREEMENT, limit) for sweep, strength in places)]
        if gate.looks is not None and same is None:
            outcome, message, table = looks.evaluate_look(card, baseline, swept, cells, waived, store)
        else:
            outcome, message, table = hold(gate, baseline, swept, cells, waived, same)
    except (GateError, MetricError, CardError) as error:
        return GateDecision("error", f"{card.name}: {error}", {"evidence": keys})
    about: dict[str, Any] = {"kind": gate.kind, "alpha": gate.alpha, "baseline": _about(baseline)}
    about["notes"] = [*_notes(baseline, swept, same=same is not None), *table.pop("notes", [])]
    about["evidence"] = keys
    if outcome == "failed" and gate.kind == "paired" and card.file.recipe is not None:
        weights = next(iter(swept.values())).provenance["subject"]["weights"]
        about["notes"] += [RETRAINED] * all(one["weights"] != weights for one in baseline.accepted)
    return GateDecision(outcome, f"{card.name}: the {gate.kind} gate {message}", {**about, **table})


def _baseline(card: Card) -> Baseline:
    path = card.baseline
    if not path.exists():
        raise GateError(
            f"its card has a gate, but the baseline {path} is missing; create it: robustness baseline accept run.json "
            f"--model {card.name}" + (f" --to {path}" if card.file.gate and card.file.gate.baseline else "")
        )
    baseline = baselines.read(path)
    assert card.file.gate is not None
    if baseline.model != (card.file.gate.accepted_model or card.name):
        raise GateError(
            f"{path}: is the baseline of {baseline.model}; set gate.baseline to another file, or, if {card.name} is "
            f'that model in another form, accepted_model = "{baseline.model}"'
        )
    for metric in card.file.gate.metrics:
        if (scores := registry.get(metric).baseline_scores) and scores not in baseline.scores:
            raise GateError(
                f"{path}: was accepted without the data that {metric} needs; accept it again with the current card: "
                f"robustness baseline accept run.json --model {card.name}"
            )
    return baseline


def _check_age(card: Card, baseline: Baseline, max_age: int | None) -> None:
    """Raise GateError if a baseline is older than this many days, or of unknown age; None accepts any."""
    again = f"accept the model in use again: robustness baseline accept run.json --model {card.name}"
    if max_age is not None and baseline.accepted_on is None:
        raise GateError(f"{card.baseline}: does not say when it was accepted (an older version wrote it); {again}")
    if max_age is not None and (age := _age(baseline)) > max_age:
        raise GateError(
            f"{card.baseline}: was accepted {age} days ago, and --robustness-baseline-max-age is {max_age}; {again}"
        )


def _age(baseline: Baseline) -> int:
    """Return how many days ago a baseline with a date was accepted."""
    assert baseline.accepted_on is not None
    return (datetime.now(UTC).date() - baseline.accepted_on).days


def _check_comparable(card: Card, baseline: Baseline, swept: Mapping[str, Evidence]) -> None:
    was: dict[str, Any] = dict(baseline.protocol)
    if card.file.gate is not None and card.file.gate.sweeps is not None:
        was["sweeps"] = {name: how for name, how in was["sweeps"].items() if name in swept}
    if unlike := comparability.differences(was, comparability.of_evidence(swept)):
        raise GateError(
            "baseline and model differ in their conditions (baseline, model):\n  "
            + "\n  ".join(unlike)
            + "\naccept a run of this protocol, or restore the old one"
        )


def _cells(card: Card, baseline: Baseline, swept: Mapping[str, Evidence]) -> list[GateCell]:
    """Return every cell in which both have numbers; it is an error if only the candidate has none."""
    gate, cells, without = card.file.gate, [], []
    assert gate is not None
    for sweep, evidence in swept.items():
        for row, strength in enumerate(evidence.strengths):
            if baseline.status[sweep][strength] != OK:
                continue
            if evidence.status[row] != OK:
                without.append(f"{sweep} at {strength}: {evidence.status[row]}")
                continue
            cells += [
                GateCell(sweep, strength, metric, _margin(gate.margin, gate.margins, sweep, row))
                for metric in gate.metrics
                if is_defined_for(metric, sweep, transferred=evidence.source is not None)
            ]
    if without:
        raise GateError(
            f"{len(without)} cell(s) have numbers in the baseline but not now:\n  " + "\n  ".join(without[:20])
        )
    if not cells:
        raise GateError("there is no cell to compare: baseline and model have no cell with numbers in common")
    return cells


def _identical(baseline: Baseline, swept: Mapping[str, Evidence], cells: Sequence[GateCell]) -> int | None:
    """
    Return the index of the accepted model with the same weights and the same decision on every image.

    The weights alone are not enough: other code or another device may decide differently.
    """
    weights = next(iter(swept.values())).provenance["subject"]["weights"]
    for which, one in enumerate(baseline.accepted):
        if one["weights"] == weights:
            was = {name: baseline.evidence(which, name, evidence) for name, evidence in swept.items()}
            if all(_decides_alike(cell, was[cell.sweep], swept[cell.sweep]) for cell in cells):
                return which
    return None


def _decides_alike(cell: GateCell, was: Evidence, now: Evidence) -> bool:
    """Return whether a cell's classes, rejections, and the scores in the baseline are the same."""
    before, after = was.index(cell.strength), now.index(cell.strength)
    alike = np.array_equal(was.predictions[before], now.predictions[after])
    if was.attack_probability is not None and now.attack_probability is not None:
        alike &= np.array_equal(detection.discarded(was, before), detection.discarded(now, after))
    if name := registry.get(cell.metric).baseline_scores:
        alike &= np.array_equal(getattr(was, name)[before], getattr(now, name)[after])
    return alike


def _margin(margin: float | None, margins: Mapping[str, Sequence[float]], sweep: str, row: int) -> float:
    return margins[sweep][row] if sweep in margins else margin or 0.0


def _about(baseline: Baseline) -> dict[str, Any]:
    return {"accepted": len(baseline.accepted), "models": [dict(one) for one in baseline.accepted]}


def _notes(baseline: Baseline, swept: Mapping[str, Evidence], *, same: bool) -> list[str]:
    """Return notes that do not affect the comparison."""
    provenance = next(iter(swept.values())).provenance
    notes = []
    ran = provenance.get("versions", {})
    for name, before in {k: v for one in baseline.accepted for k, v in one.get("versions", {}).items()}.items():
        if name in ran and ran[name] != before:
            notes.append(f"accepted with {name} {before}, measured now with {ran[name]}")
    devices = sorted({str(one.get("device")) for one in baseline.accepted} - {str(provenance.get("device"))})
    if devices:
        notes.append(f"accepted on {', '.join(devices)}, measured now on {provenance.get('device')}")
    weights = provenance["subject"]["weights"]
    if weights in [one["weights"] for one in baseline.accepted]:
        other = "" if same else ", but predictions differ: the code, the device or versions have changed"
        notes.append(f"its weights equal those of an accepted model{other}")
    if bare := sum(status != OK for name in swept for status in baseline.status[name].values()):
        notes.append(f"{bare} cell(s) without numbers in the baseline are not compared")
    if baseline.accepted_on is not None:
        notes.append(f"the baseline was accepted on {baseline.accepted_on} ({_age(baseline)} days ago)")
    return notes
