"""Renders the report as a page: the templates' variables and filters."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from robustness.cards.schema import NO_CLAIM
from robustness.reporting.gate_rows import caught_grid, caught_sentences, gate_grid, gate_sentences, waiver_sentences
from robustness.reporting.html import curves, heatmaps
from robustness.reporting.outcomes import explained, inside, red_claims, with_it
from robustness.reporting.overview import CHANGES, RELEASE, change_rows, is_quiet, model_names, release_rows
from robustness.reporting.report import RunReport
from robustness.reporting.report_types import RED
from robustness.reporting.table_rows import (
    MARKS,
    PAGE,
    has_numbers,
    repeated_columns,
    sweep_table,
    sweeps_with_table,
)
from robustness.reporting.terminal import summary
from robustness.reporting.text import (
    data_summary,
    doubts,
    explain_missing,
    standing,
    sweeps_not_run,
    table_notes,
    title,
)
from robustness.reporting.worst_cases import worst_case_grid, worst_case_notes, worst_case_title
from robustness.util.text import one_line, pluralize

if TYPE_CHECKING:
    from jinja2 import Environment

VERDICTS = {"passed": "✓", "failed": "✗", "partial": "◐", "measured": "○"}
"""A sign for each verdict; other verdicts have that of an incomplete run."""


def html_page(report: RunReport) -> str:
    """Return the complete report as one self-contained HTML page."""
    return _environment().get_template("page.html").render(report=report)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("robustness.reporting.html"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    for function in (
        pluralize,
        change_rows,
        is_quiet,
        release_rows,
        repeated_columns,
        model_names,
        doubts,
        sweeps_not_run,
        data_summary,
        table_notes,
        standing,
        title,
        explain_missing,
        summary,
        has_numbers,
        worst_case_notes,
        worst_case_title,
    ):
        environment.globals[function.__name__] = function
    environment.globals |= {
        "FATES": ["claims", *(fate for fate in reversed(MARKS) if fate != NO_CLAIM)],
        "CHANGES": CHANGES,
        "MARKS": MARKS,
        "RED": RED,
        "RELEASE": RELEASE,
        "REDS": [MARKS[outcome] for outcome in RED],
        "VERDICTS": VERDICTS,
        "attractors": heatmaps.attractors,
        "caught_grid": caught_grid,
        "caught_sentences": caught_sentences,
        "confusion": heatmaps.confusion_heatmap,
        "corruptions": heatmaps.corruptions,
        "curves": curves.curves,
        "frame": curves,
        "gate_grid": gate_grid,
        "gate_sentences": gate_sentences,
        "waiver_sentences": waiver_sentences,
        "sweep_table": lambda model, sweep, without: sweep_table(model, sweep, PAGE, without),
        "explained": explained,
        "inside": inside,
        "red_claims": red_claims,
        "with_it": with_it,
        "short": one_line,
        "sweeps_with_table": sweeps_with_table,
        "transfers": heatmaps.transfers,
        "worst_case_grid": lambda model, case: worst_case_grid(model, case, PAGE),
    }
    return environment


def _shown(value: Any) -> Any:
    """Put values on one line of printable characters; the template's own text is unchanged."""
    if value is None:
        return ""
    return one_line(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
