"""Format text: on one line, escaped, with plurals, in plain tables."""

from __future__ import annotations

import html
import re

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
} | {character: f"\\{character}" for character in "&%$#_{}"}
DASH = "—"
"""Stands for a number that there is not."""
NAME = 40
"""Characters of a metric's or sweep's name in a table; the JSON has all of it."""
BARE = re.compile(f"[-+.e0-9]*|{DASH}")
"""An entry that is a number, or stands for one, and nothing else."""


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
    Escape text for Markdown, also in a table's cell.

    A comment splits ``@name``, so that a code host notifies nobody.

    >>> markdown("a|b <script> *x*")
    'a\\|b &lt;script&gt; \\*x\\*'
    >>> markdown("@all ~~x~~ $y$")
    '\\@<!-- -->all \\~\\~x\\~\\~ \\$y\\$'
    """
    escaped = re.sub(r"([\\`*_{}\[\]#|!~$@])", r"\\\1", html.escape(one_line(text, limit), quote=False))
    return escaped.replace("@", "@<!-- -->")


def latex(text: object) -> str:
    r"""
    Escape text for LaTeX.

    >>> latex("100 % of R&D_{x}")
    '100 \\% of R\\&D\\_\\{x\\}'
    """
    return "".join(LATEX.get(character, character) for character in one_line(text))


def pluralize(n: int, noun: str) -> str:
    """
    Return a number with its noun.

    >>> pluralize(1, "claim"), pluralize(0, "claim")
    ('1 claim', '0 claims')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def size(count: float) -> str:
    """
    Format a number of bytes.

    >>> size(999), size(3_456_000), size(7e12)
    ('999 B', '3.5 MB', '7.0 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.95:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    r"""
    Format a table as lines; columns of numbers are right-aligned.

    >>> print(*table(["V", "SNR dB", "verdict"], [["clean", "—", "ok"], ["0.1", "9.5", "FAILED"]]), sep="\n")
    V        SNR dB  verdict
    -----  --------  ---------
    clean         —  ok
    0.1         9.5  FAILED
    """
    from tabulate import tabulate

    columns = list(zip(*rows, strict=True))
    align = ["right" if all(BARE.fullmatch(entry) for entry in column) else "left" for column in columns]
    text = tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=align)
    return [line.rstrip() for line in text.splitlines()]
