"""Reads a report's JSON file and checks its consistency."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from robustness.errors import RobustnessError
from robustness.reporting.consistency import checksum, contradictions
from robustness.reporting.report import FORMAT, RunReport
from robustness.util import paths
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
    found = document.get("format") if isinstance(document, dict) else None
    if found in OLDER:
        raise ReportError(
            f"{path}: a report of an older version ({found}); this one reads {FORMAT}; run the suites again"
        )
    if found != FORMAT:
        raise ReportError(f"{path}: format must be {FORMAT}, got {found!r}; {AGAIN}")
    said = document.pop("checksum", None)
    try:
        report = RunReport.model_validate(document)
    except ValidationError as error:
        wrong = [format_problem(dict(each), document, RunReport) for each in error.errors()]
        raise ReportError(f"{path}: not a complete report (edited?): {_first(wrong)}; {AGAIN}") from error
    # Reports of older versions have no checksum.
    wrong = ["its checksum does not match its content"] * (said not in (None, checksum(document)))
    if wrong := [*wrong, *contradictions(report)]:
        raise ReportError(f"{path}: edited or damaged: {_first(wrong)}; {AGAIN}")
    return report


def _first(wrong: list[str]) -> str:
    return "; ".join(wrong[:SHOWN])
