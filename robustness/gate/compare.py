"""`robustness compare`: two runs side by side, from their reports; image by image if the store has the evidence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from robustness.errors import RobustnessError
from robustness.gate import comparability, paired_stats
from robustness.gate.differences import GateError
from robustness.gate.differences import paired_difference as drop_of
from robustness.metrics.evidence import Evidence
from robustness.metrics.registry import gateable
from robustness.reporting.report import ModelReport, RunReport
from robustness.reporting.report_file import read_report
from robustness.reporting.sweep_report import SweepReport
from robustness.util.text import DASH, NAME, one_line, table
from robustness.workspace.store import Store

HEADER = ["cell", "first", "second", "difference", "[90 %]", "lost", "gained", "McNemar p"]


def compare_runs(first: Path, second: Path, store: Store) -> Iterator[str]:
    """
    Return the lines that show two runs side by side; GateError, with every difference, if their conditions differ.

    Models are matched by name or, if each run has a single one, with each other.
    """
    reports = [read_report(path) for path in (first, second)]
    for path, report in zip((first, second), reports, strict=True):
        yield one_line(f"{path}: {report.verdict}, {report.run.started}")
    pairs, alone = _pairs(*reports)
    if not pairs:
        raise GateError(f"{first} and {second} have no model in common; compare runs of the same model")
    unlike = [
        f"{one.name}: {difference}"
        for one, other in pairs
        for difference in comparability.differences(comparability.of_report(one), comparability.of_report(other))
    ]
    if unlike:
        raise GateError("the two runs differ in their conditions (first run, second run):\n  " + "\n  ".join(unlike))
    for one, other in pairs:
        names = dict.fromkeys((one.name, other.name))
        yield from ("", one_line(f"{' and '.join(names)} on {one.data.name}, n = {one.data.n}"), "")
        yield from table(HEADER, list(_rows(one, other, store)))
    if alone:
        yield from ("", one_line(f"in one run only: {', '.join(alone)}"))


def _pairs(first: RunReport, second: RunReport) -> tuple[list[tuple[ModelReport, ModelReport]], list[str]]:
    one, other = ({model.name: model for model in report.models} for report in (first, second))
    if len(one) == len(other) == 1:
        return list(zip(one.values(), other.values(), strict=True)), []
    return [(one[name], other[name]) for name in one if name in other], sorted(set(one) ^ set(other))


def _rows(one: ModelReport, other: ModelReport, store: Store) -> Iterator[list[str]]:
    others = {sweep.name: sweep for sweep in other.sweeps}
    for was in one.sweeps:
        now = others[was.name]
        evidence = [_stored_evidence(store, sweep) for sweep in (was, now)]
        for before, after in zip(was.cells, now.cells, strict=True):
            shown = [metric for metric in before.metrics if metric == "accuracy" or metric in before.claims]
            for metric in shown or ["accuracy"]:
                name = one_line(f"{was.name}:{before.strength}:{metric}", NAME)
                old, new = before.number(metric).value, after.number(metric).value
                if old is None or new is None:
                    gone = [DASH if value is None else f"{value:.4f}" for value in (old, new)]
                    status = next((c.status for c in (before, after) if c.status != "ok"), "")
                    yield [name, *gone, one_line(status, NAME) or DASH, "", "", "", ""]
                    continue
                moved = [f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}"]
                yield [name, *moved, *_by_image(evidence, before.strength, metric)]


def _stored_evidence(store: Store, sweep: SweepReport) -> Evidence | None:
    """Return the evidence that a report names, if the store still has it unchanged."""
    if sweep.evidence is None or sweep.evidence.key is None:
        return None
    with suppress(RobustnessError, OSError):
        evidence = Evidence.from_bytes(store.read(store.path("evidence", sweep.evidence.key)))
        if evidence.digest == sweep.evidence.digest:
            return evidence
    return None


def _by_image(pair: list[Evidence | None], strength: str, metric: str) -> list[str]:
    """Return interval, flips and McNemar's p-value of a cell; nothing if the metric or the store does not allow it."""
    one, other = pair
    if one is None or other is None or not gateable(metric):
        return [""] * 4
    try:
        drop = drop_of(metric, one, other, strength)
    except (RobustnessError, KeyError):
        return [""] * 4
    if drop.changes is None:
        return [""] * 4
    lost, gained = int((drop.changes > 0).sum()), int((drop.changes < 0).sum())
    low, high = paired_stats.interval([lost], [gained], [drop.n])
    ends = sorted(-drop.sign * end for end in (low[0], high[0]))
    p = paired_stats.mcnemar([lost], [gained])[0]
    return [f"[{ends[0]:+.4f}, {ends[1]:+.4f}]", str(lost), str(gained), f"{p:.3g}"]
