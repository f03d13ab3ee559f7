"""Reads a report's JSON file and checks its consistency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustness.errors import RobustnessError
from robustness.reporting.report import FORMAT, ModelReport, RunReport, verdict
from robustness.reporting.report_types import OUTCOMES
from robustness.reporting.run_info import ModelTally
from robustness.util import paths
from robustness.util.hashing import sha256_json
from robustness.util.validation_messages import format_problem

AGAIN = "use the unedited file that --robustness-report FILE.json wrote, or run the suites again"
OLDER = ("pytest-robustness/report/1",)
"""Formats of earlier versions, whose outcomes and gates have other names."""
SHOWN = 5
"""Maximum problems in an error."""


class ReportError(RobustnessError):
    """A report that cannot be read, or written."""


def read_report(path: Path) -> RunReport:
    """
    Read the JSON report of a run.

    Args:
        path: The file that ``--robustness-report FILE.json`` wrote.

    Returns:
        The report, without its checksum.

    Raises:
        ReportError: The file is truncated, edited, or of an older or another format.
    """
    try:
        document = paths.parse_json(paths.read_bytes(path))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: not a readable JSON report: {error}; {AGAIN}") from error
    version = document.get("format") if isinstance(document, dict) else None
    if version in OLDER:
        raise ReportError(
            f"{path}: a report of an older version ({version}); this one reads {FORMAT}; run the suites again"
        )
    if version != FORMAT:
        raise ReportError(f"{path}: format must be {FORMAT}, got {version!r}; {AGAIN}")
    recorded = document.pop("checksum", None)
    try:
        report = RunReport.model_validate(document)
    except ValidationError as error:
        wrong = [format_problem(dict(each), document, RunReport) for each in error.errors()]
        raise ReportError(f"{path}: not a complete report (edited?): {_first(wrong)}; {AGAIN}") from error
    # Reports of older versions have no checksum.
    wrong = ["its checksum does not match its content"] * (recorded not in (None, checksum(document)))
    if wrong := [*wrong, *contradictions(report)]:
        raise ReportError(f"{path}: edited or damaged: {_first(wrong)}; {AGAIN}")
    return report


def _first(wrong: list[str]) -> str:
    return "; ".join(wrong[:SHOWN])


def checksum(document: Mapping[str, Any]) -> str:
    """Return the sha256 of a report's JSON without its checksum."""
    return sha256_json({key: value for key, value in document.items() if key != "checksum"})


def contradictions(report: RunReport) -> Iterator[str]:
    """
    Return the contradictions in a report: none in one that a run has written.

    Counts and verdict are derived again from claims and gates.
    """
    counts, models = report.counts, report.models
    rows = {row.name: row for row in counts.models}
    if [model.name for model in models] != list(rows):
        yield "its counts do not match its models"
        return
    for model in models:
        yield from _of_model(model, rows[model.name])
    for key in ("claims", *OUTCOMES, "not selected", "measured"):
        if (expected := sum(row.of(key) for row in rows.values())) != (counted := counts.of(key)):
            yield f"it counts {counted} claims as {key}, but its models have {expected}"
    fates = dict(Counter(model.gate.outcome for model in models if model.gate is not None))
    if fates != counts.gates.by_fate():
        yield f"it counts gates as {_listed(counts.gates.by_fate())}, but its models have {_listed(fates)}"
    if sum(skip.claims for skip in counts.skips) != counts.skipped:
        yield f"it counts {counts.skipped} claims as skipped, but gives reasons for another number"
    if (derived := verdict(counts, report.run)) != report.verdict:
        yield f"its verdict is {report.verdict!r}, but its counts say {derived!r}"


def _of_model(model: ModelReport, row: ModelTally) -> Iterator[str]:
    tally = Counter(claim.outcome for claim in model.claims)
    if any(row.of(outcome) != tally[outcome] for outcome in OUTCOMES):
        counted = _listed({outcome: row.of(outcome) for outcome in OUTCOMES})
        yield f"its counts of {model.name} are {counted}, but its claims say {_listed(tally)}"
    if row.not_selected < 0 or row.claims != tally.total() + row.not_selected:
        yield f"it counts {row.claims} claims of {model.name}, but has {tally.total()}"
    cells = {
        (sweep.name, cell.strength, metric): claim.outcome
        for sweep in model.sweeps for cell in sweep.cells for metric, claim in cell.claims.items()
    }  # fmt: skip
    for claim in model.claims:
        shown = cells.get((claim.sweep, claim.strength, claim.metric), claim.outcome)
        if shown != claim.outcome:
            yield f"{claim.id} is {claim.outcome} among its claims but {shown} in its table"
        value, least = claim.numbers.value, claim.bound == "at least"
        beyond = value is not None and value != claim.threshold and (value < claim.threshold) == least
        if claim.outcome == "passed" and beyond:
            yield f"{claim.id} passed, but {value} is not {claim.bound} {claim.threshold}"


def _listed(tally: Mapping[Any, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in tally.items() if n) or "none"
