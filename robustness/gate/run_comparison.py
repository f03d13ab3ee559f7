"""Reads what `robustness compare` compares: the reports of two runs, or a baseline and the report of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from robustness.errors import RobustnessError
from robustness.gate import baseline as baselines
from robustness.gate import comparability
from robustness.gate.accept import accepted_from_report
from robustness.gate.baseline import Baseline
from robustness.gate.cell_changes import CellChange, Comparison, Weights, by_image, by_intervals, judged
from robustness.gate.differences import GateError, cell_value, is_defined_for
from robustness.metrics import registry
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.metric import MetricError
from robustness.reporting.report import ModelReport, RunReport
from robustness.reporting.report_file import read_report
from robustness.reporting.sweep_report import CellReport, SweepReport
from robustness.util import paths
from robustness.util.text import pluralize
from robustness.workspace.store import Store

SHORT = 12
"""Characters of a weights file's hash."""


def is_baseline(path: Path) -> bool:
    """Return whether a file is a baseline; one that cannot be read is not."""
    with suppress(OSError, ValueError, AttributeError):
        return bool(json.loads(paths.read_bytes(path)).get("format") == baselines.FORMAT)
    return False


def compare_runs(first: Path, second: Path, store: Store) -> Comparison:
    """
    Compare two runs; GateError, with every difference, if their conditions differ.

    Models are matched by name or, if each run has a single one, with each other.
    """
    reports = [read_report(path) for path in (first, second)]
    pairs, missing, added = _pairs(*reports)
    if not pairs:
        raise GateError(f"{first} and {second} have no model in common; compare runs of the same model")
    unlike = [
        f"{one.name}: {difference}"
        for one, other in pairs
        for difference in comparability.differences(comparability.of_report(one), comparability.of_report(other))
    ]
    if unlike:
        raise GateError("the two runs differ in their conditions (first run, second run):\n  " + "\n  ".join(unlike))
    before, after = (f"{path}: {r.verdict}, {r.run.started}" for path, r in zip((first, second), reports, strict=True))
    weights = [
        Weights(_both(one, other), weights_name(one), weights_name(other), str(one.data.name), one.data.n)
        for one, other in pairs
    ]
    cells = [cell for one, other in pairs for cell in _cells(one, other, store)]
    return Comparison(before, after, weights, judged(cells), missing, added)


def compare_with_baselines(accepted: Mapping[str | None, Path], run: Path, store: Store) -> Comparison:
    """
    Compare models of a run with their baselines, by name; None stands for the model of which the file is the baseline.

    The evidence of the run must be in the store. GateError, with every difference, if conditions differ.
    """
    report, weights, cells, notes = read_report(run), [], list[CellChange](), list[str]()
    for name, path in accepted.items():
        baseline = baselines.read(path)
        model = _model_of(report, name or baseline.model, path, run)
        swept = dict(accepted_from_report(run, model.name, store).swept)
        both = sorted(swept.keys() & baseline.protocol["sweeps"].keys())
        for one, other, what in ((baseline.protocol["sweeps"], both, "the run"), (swept, both, "the baseline")):
            notes += [f"{model.name}: {sweep} is not in {what}" for sweep in one if sweep not in other]
        was = {**baseline.protocol, "sweeps": {sweep: baseline.protocol["sweeps"][sweep] for sweep in both}}
        now = comparability.of_evidence({sweep: swept[sweep] for sweep in sorted(both, key=lambda s: s != "clean")})
        if unlike := comparability.differences(was, now):
            raise GateError(f"{path} and {run} differ in their conditions (baseline, run):\n  " + "\n  ".join(unlike))
        weights.append(Weights(model.name, _accepted(baseline), weights_name(model), model.data.name, model.data.n))
        cells += [
            cell for sweep in model.sweeps if sweep.name in both
            for cell in _cells_of_baseline(baseline, model.name, sweep, swept[sweep.name])
        ]  # fmt: skip
    files = ", ".join(map(str, accepted.values()))
    return Comparison(
        f"{files}: baseline", f"{run}: {report.verdict}, {report.run.started}", weights, judged(cells), notes=notes
    )


def _model_of(report: RunReport, name: str, path: Path, run: Path) -> ModelReport:
    named = [model for model in report.models if model.name == name]
    if not named:
        known = ", ".join(model.name for model in report.models) or "none"
        raise GateError(f"{path} is the baseline of {name}, which {run} does not have; its models: {known}")
    return named[0]


def weights_name(model: ModelReport) -> str:
    """Return the name of a model's weights: the file that was tested instead of the card's, and the hash."""
    shown = model.weights[:SHORT] if model.weights else "no hash"
    return f"{Path(model.candidate).name} ({shown})" if model.candidate else f"the card's ({shown})"


def _accepted(baseline: Baseline) -> str:
    hashes = ", ".join(str(one["weights"])[:SHORT] for one in baseline.accepted[:3])
    more = ", …" if len(baseline.accepted) > 3 else ""
    return f"{pluralize(len(baseline.accepted), 'accepted model')} ({hashes}{more})"


def _both(one: ModelReport, other: ModelReport) -> str:
    return " and ".join(dict.fromkeys((one.name, other.name)))


def _pairs(first: RunReport, second: RunReport) -> tuple[list[tuple[ModelReport, ModelReport]], list[str], list[str]]:
    """Return the models to compare, those that the second run lacks, and those that it alone has."""
    one, other = ({model.name: model for model in report.models} for report in (first, second))
    if len(one) == len(other) == 1:
        return list(zip(one.values(), other.values(), strict=True)), [], []
    both = [(one[name], other[name]) for name in one if name in other]
    return both, sorted(one.keys() - other.keys()), sorted(other.keys() - one.keys())


def _cells(one: ModelReport, other: ModelReport, store: Store) -> Iterator[CellChange]:
    others = {sweep.name: sweep for sweep in other.sweeps}
    for was in one.sweeps:
        now = others[was.name]
        evidence = [_stored_evidence(store, sweep) for sweep in (was, now)]
        for before, after in zip(was.cells, now.cells, strict=True):
            for metric in _metrics(before, after):
                old, new = before.number(metric), after.number(metric)
                note = next((c.status for c in (before, after) if c.status != OK), "")
                cell = CellChange(
                    _both(one, other), was.name, before.strength, metric, old.value, new.value,
                    note=note, claims=(_outcome(before, metric), _outcome(after, metric)),
                )  # fmt: skip
                yield by_intervals(by_image(cell, *evidence), old, new)


def _metrics(*cells: CellReport) -> Sequence[str]:
    """Return the metrics to compare in a cell: accuracy, and what is claimed in either run."""
    shown = (metric for cell in cells for metric in cell.metrics if metric == "accuracy" or metric in cell.claims)
    return list(dict.fromkeys(shown)) or ["accuracy"]


def _outcome(cell: CellReport, metric: str) -> str:
    return cell.claims[metric].outcome if metric in cell.claims else ""


def _stored_evidence(store: Store, sweep: SweepReport) -> Evidence | None:
    """Return the evidence that a report names, if the store still has it unchanged."""
    if sweep.evidence is None or sweep.evidence.key is None:
        return None
    with suppress(RobustnessError, OSError):
        evidence = Evidence.from_bytes(store.read(store.path("evidence", sweep.evidence.key)))
        if evidence.digest == sweep.evidence.digest:
            return evidence
    return None


def _cells_of_baseline(baseline: Baseline, model: str, sweep: SweepReport, now: Evidence) -> Iterator[CellChange]:
    """Compare each cell with the accepted model that was worst in it: with several, one of them is the worst."""
    accepted = [baseline.evidence(which, sweep.name, now) for which in range(len(baseline.accepted))]
    for cell in sweep.cells:
        for metric in _metrics(cell):
            known = registry.get(metric)
            if not registry.gateable(metric) or not is_defined_for(metric, sweep.name, transferred=False):
                continue
            if known.baseline_scores and known.baseline_scores not in baseline.scores:
                continue
            values = [_value(metric, was, cell.strength) for was in accepted]
            there = [(value, was) for value, was in zip(values, accepted, strict=True) if value is not None]
            worst = min(there, key=lambda each: each[0] if known.better == "higher" else -each[0], default=None)
            status = baseline.status[sweep.name][cell.strength]
            note = cell.status if status == OK else status
            change = CellChange(
                model, sweep.name, cell.strength, metric, worst[0] if worst else None, cell.number(metric).value,
                note="" if note == OK else note, claims=("", _outcome(cell, metric)),
            )  # fmt: skip
            yield by_image(change, worst[1] if worst else None, now)


def _value(metric: str, evidence: Evidence, strength: str) -> float | None:
    if evidence.status[evidence.index(strength)] != OK:
        return None
    with suppress(GateError, MetricError):
        return cell_value(metric, evidence, strength)
    return None
