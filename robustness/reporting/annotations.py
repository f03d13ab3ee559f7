"""What is red in a run as GitHub Actions' workflow commands, which it shows beside the job and the commit."""

from __future__ import annotations

from collections.abc import Iterator

from robustness.errors import printable
from robustness.reporting.outcomes import red_claims, with_it
from robustness.reporting.report import RunReport
from robustness.reporting.report_types import RED
from robustness.util.text import pluralize

SHOWN = 10
"""Of a level: GitHub shows no more of one step."""


def of(report: RunReport) -> Iterator[str]:
    """Return an error for all that is red, a warning for what is open; the last of too many counts the others."""
    for level, found in (("error", list(_errors(report))), ("warning", list(_warnings(report)))):
        shown = found if len(found) <= SHOWN else found[: SHOWN - 1]
        yield from (command(level, title, message) for title, message in shown)
        if left := len(found) - len(shown):
            yield command(level, "robustness", f"and {pluralize(left, level)} more, in the report")


def _errors(report: RunReport) -> Iterator[tuple[str, str]]:
    for problem in report.run.problems:
        yield "robustness", problem
    for model in report.models:
        gate = model.gate
        if gate is not None and gate.outcome in RED:
            yield f"{model.name}: gate {gate.outcome}", gate.message
    for model in report.models:
        for claim, fallen in red_claims(model):
            more = f"; {with_it(model, fallen)}" if fallen else ""
            yield f"{claim.id}: {claim.outcome}", f"{claim.message}{more}"


def _warnings(report: RunReport) -> Iterator[tuple[str, str]]:
    if not report.run.complete:
        yield "robustness", "the run was interrupted: the report is partial"
    for model in report.models:
        gate = model.gate
        if gate is not None and gate.outcome == "inconclusive":
            yield f"{model.name}: gate inconclusive", gate.message
        yield from ((f"{c.id}: waived", c.message) for c in model.claims if c.outcome == "waived")
    for skip in report.counts.skips:
        yield f"{skip.model}: {pluralize(skip.claims, 'claim')} skipped", skip.reason


def command(level: str, title: str, message: str) -> str:
    r"""
    Write one workflow command; what would end it, or begin another, is escaped as GitHub does.

    >>> command("error", "a:b", "50 %\n::error::no")
    '::error title=a%3Ab::50 %25%0A::error::no'
    """
    return f"::{level} title={_escaped(title, ':,')}::{_escaped(message)}"


def _escaped(text: str, more: str = "") -> str:
    for character in f"%\r\n{more}":
        text = text.replace(character, f"%{ord(character):02X}")
    return printable(text)
