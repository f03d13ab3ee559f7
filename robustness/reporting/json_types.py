"""Values as JSON has them, and text from elsewhere made harmless where it is shown."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def plain(value: Any) -> Any:
    """
    Give a value in JSON's types alone; a number that is not finite becomes null, anything unknown its text.

    >>> plain({"seconds": np.float32(0.5), "threads": (1, np.int64(2)), 3: math.inf})
    {'seconds': 0.5, 'threads': [1, 2], '3': None}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    # Half a surrogate pair, as in a file's undecodable name, could not be written as UTF-8.
    return str(value).encode(errors="backslashreplace").decode()


def settled(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """
    Give a measurement's plain numbers; `note` says why one that should be there is null.

    >>> settled({"value": math.nan, "note": "no images"})
    {'value': None, 'note': 'no images'}
    >>> settled({"value": 2.0, "low": math.nan, "high": math.nan, "note": ""})
    {'value': 2.0, 'low': None, 'high': None, 'note': 'no interval'}
    """
    given = {key: value.item() if isinstance(value, np.generic) else value for key, value in numbers.items()}
    value, low, note = given.get("value"), given.get("low"), str(given.get("note") or "")
    if isinstance(value, float) and not math.isfinite(value):
        note = note or ("not a number" if math.isnan(value) else "infinite")
    elif isinstance(low, float) and not math.isfinite(low):
        note = f"{note}; no interval" if note else "no interval"
    return {key: plain(value) for key, value in given.items()} | ({"note": plain(note)} if given else {})


def one_line(text: object, limit: int | None = None) -> str:
    r"""
    Put text on one line of printable characters, with an ellipsis from `limit` on.

    >>> one_line("two\n lines, \x1b[31mred")
    'two lines, \\x1b[31mred'
    >>> one_line("digits-mlp", 7)
    'digits…'
    """
    words = " ".join(str(text).split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1].rstrip() + "…"


def markdown(text: object, limit: int | None = None) -> str:
    r"""
    Write text as Markdown that shows it as it is, in a table's cell too.

    Neither does it call anybody: a code host notifies whom ``@name`` names, but for the comment in between.

    >>> markdown("a|b <script> *x*")
    'a\\|b &lt;script&gt; \\*x\\*'
    >>> markdown("@all ~~x~~ $y$")
    '\\@<!-- -->all \\~\\~x\\~\\~ \\$y\\$'
    """
    escaped = re.sub(r"([\\`*_{}\[\]#|!~$@])", r"\\\1", html.escape(one_line(text, limit), quote=False))
    return escaped.replace("@", "@<!-- -->")


def latex(text: object, limit: int | None = None) -> str:
    r"""
    Write text as LaTeX that shows it as it is.

    >>> latex("100 % of R&D_{x}")
    '100 \\% of R\\&D\\_\\{x\\}'
    """
    return "".join(LATEX.get(character, character) for character in one_line(text, limit))


def count(n: int, noun: str) -> str:
    """
    Write a number with its noun.

    >>> count(1, "claim"), count(0, "claim")
    ('1 claim', '0 claims')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
