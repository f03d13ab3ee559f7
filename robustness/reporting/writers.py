"""Writes the report as a file, atomically: HTML, JSON, Markdown, CSV or LaTeX by the file's suffix."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from robustness.reporting.markdown_latex import latex_tables, markdown_page
from robustness.reporting.report import RunReport
from robustness.reporting.report_file import ReportError, checksum
from robustness.reporting.sweep_report import CellClaim, NumberReport
from robustness.util import atomic_write
from robustness.util.text import one_line

MEASURED = (*NumberReport.model_fields, *CellClaim.model_fields)
HEADER = (
    *("model", "scale", "data", "images", "seed", "device", "sweep", "kind", "unit", "strength", "status"),
    *("metric", *MEASURED, "candidate"),
)
"""Columns of the CSV; new ones are added at the end."""


FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters with which a spreadsheet starts a formula, in both widths."""


def json_text(report: RunReport) -> str:
    """Write the report itself, with a checksum over it."""
    whole = report.as_json()
    whole["checksum"] = checksum(whole)
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(report: RunReport) -> str:
    """Write one row per cell and metric; a cell without numbers has rows for its claims, with empty numbers."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, HEADER, lineterminator="\n")
    writer.writeheader()
    for row in _rows(report):
        writer.writerow({key: _inert(value) for key, value in row.items()})
    return stream.getvalue()


def _rows(report: RunReport) -> Iterator[dict[str, Any]]:
    for model in report.models:
        about = {"model": model.name, "scale": model.scale, "seed": model.seed, "device": model.device}
        about |= {"candidate": model.candidate, "data": model.data.name, "images": model.data.n}
        for sweep in model.sweeps:
            swept = {"sweep": sweep.name, "kind": sweep.kind, "unit": sweep.unit}
            for cell in sweep.cells:
                here = {**about, **swept, "strength": cell.strength, "status": cell.status}
                for metric in dict.fromkeys((*cell.metrics, *cell.claims)) or [""]:
                    claim = cell.claims.get(metric)
                    measured = {**dict(cell.number(metric)), **({} if claim is None else dict(claim))}
                    yield here | {"metric": metric} | {key: measured.get(key) for key in MEASURED}


def _inert(value: Any) -> Any:
    r"""Keep a spreadsheet from evaluating text: put a quote before text that it would take for a formula.

    Control characters are escaped, and white space becomes one space.

    >>> _inert("=1+1"), _inert("-20"), _inert(0.5), _inert("two\n lines")
    ("'=1+1", '-20', 0.5, 'two lines')
    """
    if not isinstance(value, str):
        return value
    value = one_line(value)
    if not value.startswith(FORMULA):
        return value
    with suppress(ValueError):
        if math.isfinite(float(value)):
            return value
    return f"'{value}"


def html_text(report: RunReport) -> str:
    """Write the page; its modules are imported only on request."""
    from robustness.reporting.html.page import html_page

    return html_page(report)


FORMS: dict[str, Callable[[RunReport], str]] = {
    ".html": html_text,
    ".md": markdown_page,
    ".json": json_text,
    ".csv": csv_text,
    ".tex": latex_tables,
}
"""By suffix. To add a format: a function of the report, and a line here."""

ILLUSTRATED = ".html"
"""The format with pictures; if it is requested, the other formats of the same run have them too."""


def check(path: Path) -> None:
    """
    Check before a run whether a report can be written there.

    >>> check(Path("a.x"))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ReportError: a report file must end in one of .html, .md, .json, .csv, .tex, got a.x
    """
    if path.suffix.lower() not in FORMS:
        raise ReportError(f"a report file must end in one of {', '.join(FORMS)}, got {path}")
    if path.is_dir():
        raise ReportError(f"a report file must not be a folder, got {path}; name a file in it")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise ReportError(
            f"a report must lie in a folder, got {parent}, which is a file; choose another folder for {path.name}"
        )


def write(report: RunReport, path: Path) -> None:
    """Write the report in the format of the file's suffix; ReportError if writing fails."""
    check(path)
    content = FORMS[path.suffix.lower()](report).encode()
    try:
        with atomic_write.atomic_writer(path) as stream:
            stream.write(content)
    except OSError as error:
        raise ReportError(
            f"{path} could not be written ({error.strerror or error}), the old file is unchanged; free disk space, or "
            "choose another file with --robustness-report"
        ) from error
