"""Expected failures, shown to the user as a sentence instead of a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterable

WORD = re.compile(r"\S{1000,}")
AGAIN = "run again when no process writes there"
"""The repair of whatever was written while a run read it."""


class RobustnessError(Exception):
    """
    The base of every error that the harness raises on purpose.

    A value that goes on for a thousand characters is shown by its ends: a sentence is to be read.

    >>> len(str(RobustnessError("`name` must be short, got " + "x" * 20_000)))
    177
    """

    def __init__(self, *said: object) -> None:
        super().__init__(*(WORD.sub(lambda found: f"{found[0][:100]}…{found[0][-50:]}", str(each)) for each in said))


class CardError(RobustnessError):
    """A model card that cannot be read: file, key, value and what is allowed."""


class DataError(RobustnessError):
    """Images or labels that cannot be used."""


class DataMissing(DataError):
    """
    A data set that is not on this machine.

    >>> str(DataMissing("no MNIST in /data", command="robustness data mnist --root /data"))
    'no MNIST in /data; get it with: robustness data mnist --root /data'
    """

    def __init__(self, reason: str, *, command: str = "") -> None:
        super().__init__(f"{reason}; get it with: {command}" if command else reason)
        self.command = command


class ModelError(RobustnessError):
    """A factory, weights file or module that cannot serve as a classifier."""


class TrainingError(RobustnessError):
    """A recipe that failed to return weights."""


class SweepError(RobustnessError):
    """A sweep that could not be made."""


class EngineError(RobustnessError):
    """A cluster, or a way of working, that cannot be had as it was asked for, or that failed."""


class GradientError(RobustnessError):
    """An attack by gradient on a model that has none to give."""


class MissingLibrary(RobustnessError):
    """A library that a perturbation needs and that is not installed; the extra that installs it."""


class EntryPointError(RobustnessError, ValueError):
    """An entry point of another distribution that cannot be used: which one, why, and the repair."""


class Busy(RobustnessError):
    """Something that another process is at, for whoever would rather not wait."""


class StoreError(RobustnessError):
    """A file of the store that is torn, foreign or changed, and therefore not believed."""


def nearest(value: object, known: Iterable[str]) -> str:
    """
    Return a hint on the known word that was probably meant, or ""; the case of letters does not count.

    >>> nearest("FSGM", ["fgsm", "pgd"])
    "; did you mean 'fgsm'?"
    """
    import difflib

    folded = {name.casefold(): name for name in known}
    match = difflib.get_close_matches(str(value).casefold(), folded, 1)
    return f"; did you mean {folded[match[0]]!r}?" if match else ""


def shown(name: object) -> str:
    r"""
    Write a name, or another value, so that it is one line of text, whatever it holds and however long it is.

    >>> shown("cat/two\nlines.png")
    "'cat/two\\nlines.png'"
    """
    quoted = repr(name)
    return quoted if len(quoted) <= 160 else f"{quoted[:100]}…{quoted[-50:]}"


def plain(name: str) -> str:
    """
    Return a name unchanged if it is short and one line of text, otherwise as ``shown`` returns it.

    >>> plain("layer.0.weight"), len(plain("x" * 300))
    ('layer.0.weight', 151)
    """
    return name if name.isprintable() and len(name) <= 160 else shown(name)


def printable(text: str) -> str:
    r"""
    Return text as it may be printed: no control characters, and no command to a CI that reads what is printed.

    GitHub takes a line that begins with ``::``, and one with ``##[`` anywhere, for a command.

    >>> printable("  two\x1b[31m\rred"), printable("a\n ::error::x"), printable("a ##[error]b")
    ('  two\\x1b[31m\\rred', 'a\n : :error::x', 'a # #[error]b')
    """
    lines = (
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in s) for s in text.split("\n")
    )
    return "\n".join(re.sub(r"^(\s*):(?=:)", r"\1: ", line) for line in lines).replace("##[", "# #[")
