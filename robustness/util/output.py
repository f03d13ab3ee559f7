"""Output that never fails: on terminals without some characters, and into closed pipes."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable

UNREAD = 141
"""The exit code if the reader, such as `head`, closes the pipe, as in a shell."""
ERRORS = "robustness.readable"
SPELT = {
    "ε": "eps", "α": "alpha", "β": "beta", "δ": "delta", "Δ": "Delta", "λ": "lambda", "σ": "sigma", "Σ": "Sum",
    "≥": ">=", "≤": "<=", "≠": "!=", "≈": "~", "±": "+/-", "×": "x", "−": "-", "–": "-", "—": "-", "·": "*", "∞": "inf",
    "√": "sqrt ", "∇": "grad ", "‖": "||", "²": "^2", "⁰": "^0", "⁵": "^5", "⁻": "^-", "₂": "_2", "ₓ": "_x", "ᵀ": "^T",
    "…": "...", "“": '"', "”": '"', "‘": "'", "’": "'", "→": "->", "←": "<-", "°": " degrees", "§": "section ",
    "✓": "ok", "✗": "x", "◐": "o", "○": "o", "\u0303": "~", "\u0304": "-",
}  # fmt: skip
"""ASCII replacements of this project's characters for terminals that lack them."""


def spell(error: UnicodeError) -> tuple[str, int]:
    r"""Return ASCII for characters that an encoding lacks, and the next position: a handler of `codecs`.

    >>> "ε ≥ 0.1 – 中".encode("ascii", ERRORS)
    b'eps >= 0.1 - \\u4e2d'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    spelt = (SPELT.get(each) or each.encode("ascii", "backslashreplace").decode() for each in lacking)
    return "".join(spelt), error.end


codecs.register_error(ERRORS, spell)


def prepare() -> None:
    """Let standard output and error spell out what their encoding lacks; an error handler that a user chose stays."""
    for stream in {id(s): s for s in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}.values():
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape", "backslashreplace"):
            stream.reconfigure(errors=ERRORS)


def run(program: Callable[[], int]) -> int:
    """
    Run a program whose output can be printed everywhere, and return its exit code.

    Args:
        program: The program: it prints and returns an exit code, or raises SystemExit.

    Returns:
        The exit code; 141 if the pipe is closed.
    """
    prepare()
    try:
        try:
            return program()
        finally:  # help, too, which ends by SystemExit
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed when Python ends
        return UNREAD
