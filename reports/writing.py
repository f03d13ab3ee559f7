"""What the pages of all papers are written with: tables, numbers, the result file, tables put into a page."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tabulate import tabulate

from robustness.errors import RobustnessError
from robustness.util import paths

ANOTHER_PROCESSOR = (
    "**Another processor trains another net**: its arithmetic differs in the last bits, and training amplifies them, "
    "so its numbers differ as those of another seed do."
)


NOTHING = "Nothing has been measured yet.\n"


@cache
def printed(paper: str) -> Mapping[str, Any]:
    """Read what a paper prints: `reports/published/PAPER.toml`."""
    return paths.parse_toml((Path(__file__).parent / "published" / f"{paper}.toml").read_bytes())


def joined(results: Sequence[Any], parts: Callable[[Any], Iterable[str]]) -> str:
    """Return everything below the heading of a page: the parts of each result."""
    return "\n\n".join(part for result in results for part in parts(result)) + "\n" if results else NOTHING


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a Markdown table; cells stand as they are given."""
    return str(tabulate(rows, heads, tablefmt="github", disable_numparse=True))


def summary(values: Iterable[float]) -> dict[str, Any]:
    """
    Give values with their mean and sample standard deviation; a value that does not exist (NaN) is null, and left out.

    >>> summary([0.25, 0.75])
    {'mean': 0.5, 'deviation': 0.353553, 'values': [0.25, 0.75]}
    >>> summary([math.nan])
    {'mean': None, 'deviation': None, 'values': [None]}
    """
    shown = [None if math.isnan(value) else round(value, 6) for value in values]
    known = [value for value in shown if value is not None]
    return {
        "mean": round(statistics.fmean(known), 6) if known else None,
        "deviation": round(statistics.stdev(known), 6) if len(known) > 1 else None,
        "values": shown,
    }


def spread(summary: Mapping[str, Any], places: int = 4) -> str:
    """
    Write mean ± deviation; values that do not exist are counted.

    >>> spread({"mean": 0.5, "deviation": 0.25, "values": [0.25, None, 0.75]})
    '0.5000 ± 0.2500 (2 of 3)'
    """
    known = sum(value is not None for value in summary["values"])
    deviation = "" if summary["deviation"] is None else f" ± {number(summary['deviation'], places)}"
    missing = "" if known == len(summary["values"]) else f" ({known} of {len(summary['values'])})"
    return number(summary["mean"], places) + deviation + missing


def number(value: float | None, places: int = 4) -> str:
    """
    Write a number, or a dash where there is none.

    >>> number(0.5), number(None)
    ('0.5000', '–')
    """
    return "–" if value is None else f"{value:.{places}f}"


def seeds(result: Mapping[str, Any]) -> str:
    """
    Return the seeds of a result in words.

    >>> seeds({"seeds": [0]}), seeds({"seeds": [0, 1, 2]})
    ('seed 0', 'seeds 0, 1, 2')
    """
    numbers = result["seeds"]
    return f"seed{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def dumped(result: Mapping[str, Any]) -> str:
    """
    Write a result so that a person can read it and a diff is short: innermost lists are on one line.

    >>> print(dumped({"matrix": [[1, 2], [3, 4]]}), end="")
    {
      "matrix": [
        [1, 2],
        [3, 4]
      ]
    }
    """
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
    # No string holds a line break, so that only lists match.
    innermost = re.compile(r"\[\n\s+([^][{}]*?)\n\s+\]")
    return innermost.sub(lambda found: "[" + re.sub(r",\n\s+", ", ", found[1]) + "]", text) + "\n"


def inserted(text: str, module: str, body: str) -> str:
    """
    Put what a module wrote between its two marks of a page, in place of what is there.

    RobustnessError where the page lacks the marks.
    """
    begin = f"<!-- measured: begin; written by `python -m {module}`, edit nothing here -->"
    end = "<!-- measured: end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise RobustnessError(f"the page must hold the lines\n{begin}\n{end}\nbetween which the tables go")
    return f"{before}{begin}\n\n{body}\n{end}{after}"
