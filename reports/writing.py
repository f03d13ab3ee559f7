"""Write pages: numbers and tables as Markdown, templates, result files, and the part of a page that a command owns."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from robustness.errors import RobustnessError
from robustness.util import paths

if TYPE_CHECKING:
    from jinja2 import Environment

ROOT = Path(__file__).parents[1]
ANOTHER_PROCESSOR = (
    "**Another processor trains another net**: its arithmetic differs in the last bits, and training amplifies them, "
    "so its numbers differ as those of another seed do."
)


@cache
def printed(package: str) -> Mapping[str, Any]:
    """Read what a paper prints: `reports/published/PACKAGE.toml`."""
    return paths.parse_toml((ROOT / "reports" / "published" / f"{package}.toml").read_bytes())


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ROOT / "reports"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # Markdown is not escaped
    environment.globals |= {"table": table, "another_processor": ANOTHER_PROCESSOR}
    environment.filters |= {"number": number, "spread": spread, "shown": shown, "fixed": format, "table": table_of}
    environment.filters |= {"capital": lambda text: text[0].upper() + text[1:], "range": value_range}
    environment.filters["known"] = lambda values: [math.nan if value is None else value for value in values]
    return environment


def render(template: str, **context: Any) -> str:
    """Fill in a template below `reports/`."""
    text = _environment().get_template(template).render(context)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a Markdown table; cells are written unchanged."""
    return str(tabulate(rows, heads, tablefmt="github", disable_numparse=True))


def table_of(text: str) -> str:
    r"""
    Align the rows of a table in a template, whose first row has the heads.

    >>> print(table_of("| a | b |\n| long |  |"), end="")
    | a    | b   |
    |------|-----|
    | long |     |
    """
    lines = (line.strip()[1:-1].split("|") for line in text.splitlines() if line.strip())
    heads, *rows = ([cell.strip() for cell in cells] for cells in lines)
    return table(heads, rows) + "\n"


def summary(values: Iterable[float]) -> dict[str, Any]:
    """
    Return values with their mean and sample standard deviation; missing values (NaN) become None and are left out.

    >>> summary([0.25, 0.75])
    {'mean': 0.5, 'deviation': 0.353553, 'values': [0.25, 0.75]}
    >>> summary([math.nan])
    {'mean': None, 'deviation': None, 'values': [None]}
    """
    rounded = [None if math.isnan(value) else round(value, 6) for value in values]
    known = [value for value in rounded if value is not None]
    return {
        "mean": round(statistics.fmean(known), 6) if known else None,
        "deviation": round(statistics.stdev(known), 6) if len(known) > 1 else None,
        "values": rounded,
    }


def spread(summary: Mapping[str, Any], places: int = 4) -> str:
    """
    Write mean ± deviation, with a count of the known values if some are missing.

    >>> spread({"mean": 0.5, "deviation": 0.25, "values": [0.25, None, 0.75]})
    '0.5000 ± 0.2500 (2 of 3)'
    """
    known = sum(value is not None for value in summary["values"])
    deviation = "" if summary["deviation"] is None else f" ± {number(summary['deviation'], places)}"
    missing = "" if known == len(summary["values"]) else f" ({known} of {len(summary['values'])})"
    return number(summary["mean"], places) + deviation + missing


def number(value: float | None, places: int = 4) -> str:
    """
    Write a number, or a dash if it is missing.

    >>> number(0.5), number(None), number(math.nan)
    ('0.5000', '–', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{value:.{places}f}"


def shown(values: Sequence[float], places: int = 4) -> str:
    """
    Write mean ± standard deviation, a dash if there is no value.

    >>> shown([0.25, 0.75]), shown([])
    ('0.5000 ± 0.3536', '–')
    """
    return spread(summary(values), places) if values else "–"


def value_range(values: Iterable[float], places: int = 3) -> str:
    """
    Write the smallest and the largest of some numbers, a dash if none is known.

    >>> value_range([0.5, math.nan, 0.25]), value_range([])
    ('0.250 to 0.500', '–')
    """
    known = [value for value in values if math.isfinite(value)]
    return f"{min(known):.{places}f} to {max(known):.{places}f}" if known else "–"


def seeds(result: Mapping[str, Any]) -> str:
    """
    Write the seeds of a result.

    >>> seeds({"seeds": [0]}), seeds({"seeds": [0, 1, 2]})
    ('seed 0', 'seeds 0, 1, 2')
    """
    numbers = result["seeds"]
    return f"seed{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def dumped(result: Mapping[str, Any]) -> str:
    """
    Write a result as JSON that a person can read and whose diffs are short: innermost lists are on one line.

    >>> print(dumped({"matrix": [[1, 2], [3, 4]]}), end="")
    {
      "matrix": [
        [1, 2],
        [3, 4]
      ]
    }
    """
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
    # No string holds a line break, so only lists match.
    innermost = re.compile(r"\[\n\s+([^][{}]*?)\n\s+\]")
    return innermost.sub(lambda match: "[" + re.sub(r",\n\s+", ", ", match[1]) + "]", text) + "\n"


def inserted(text: str, module: str, body: str) -> str:
    """
    Replace the part of a page between a module's two marks.

    Raises:
        RobustnessError: If the page lacks the marks.
    """
    begin = f"<!-- measured: begin; written by `python -m {module}`, edit nothing here -->"
    end = "<!-- measured: end -->"
    before, begins, rest = text.partition(begin)
    _, ends, after = rest.partition(end)
    if not begins or not ends:
        raise RobustnessError(f"the page must have the lines\n{begin}\n{end}\nbetween which the tables go")
    return f"{before}{begin}\n\n{body}\n{end}{after}"
