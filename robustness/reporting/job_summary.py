"""The summary of a GitHub Actions job: reports are appended to it as Markdown, because other steps write to it too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from robustness.reporting import writers
from robustness.reporting.markdown_latex import markdown_page
from robustness.reporting.report import RunReport
from robustness.reporting.report_file import ReportError
from robustness.reporting.terminal import summary
from robustness.util.text import markdown

NAME = "github"
"""Stands for the summary where a report's file is named."""
VARIABLE = "GITHUB_STEP_SUMMARY"
LIMIT = 1_000_000
"""Bytes; GitHub shows no summary of a step that is larger than 1 MiB."""


def is_job_summary(path: Path) -> bool:
    """Return whether a path stands for the job's summary, or is its file."""
    own = os.environ.get(VARIABLE)
    return path.name == NAME or (bool(own) and path.resolve() == Path(own or "").resolve())


def check(path: Path) -> None:
    """Check before a run whether a report can be written there; the summary can, everywhere."""
    if not is_job_summary(path):
        writers.check(path)


def write(report: RunReport, path: Path) -> str:
    """
    Write a report to its file, or append it to the job's summary; ReportError if writing fails.

    Returns:
        What was done, in a few words. Outside of GitHub Actions nothing is appended.
    """
    if is_job_summary(path):
        return append(lambda: markdown_page(report), lambda: short_page(report))
    writers.write(report, path)
    return ""


def append(page: Callable[[], str], short: Callable[[], str]) -> str:
    """Append a page to the job's summary, or the short one if it is too long; return what was done."""
    if not (own := os.environ.get(VARIABLE)):
        return f"none, because ${VARIABLE} is not set: this is no job of GitHub Actions"
    file = Path(own)
    try:
        taken = file.stat().st_size if file.exists() else 0
        content = next((p for text in (page, short) if len(p := text().encode()) + taken < LIMIT), None)
        if content is None:
            return "nothing was appended to the job's summary: it is full"
        with file.open("ab") as stream:
            stream.write(content + b"\n")
    except OSError as error:
        raise ReportError(f"the job's summary {file} could not be written ({error.strerror or error})") from error
    return "appended to the job's summary"


def short_page(report: RunReport) -> str:
    """Return the verdict and its reasons, without tables."""
    lines = [f"# Robustness report: {report.decision}", "", *(f"- {markdown(line)}" for line in summary(report, None))]
    return "\n".join([*lines, "", "The tables are too long for this page; write them to a file.", ""])
