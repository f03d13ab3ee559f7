"""Calling somebody else's factory: what it prints is kept apart, and it may neither hang nor end the run."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import sys
import threading
import unittest
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from robustness.errors import ModelError

T = TypeVar("T")

LIMIT = 300.0
"""Seconds that importing and calling a factory may take, unless ROBUSTNESS_FACTORY_SECONDS says otherwise."""


say: Callable[[str], object] = lambda message: sys.stderr.write(f"robustness: {message}\n")
"""Says how long is waited; pytest's plugin puts its own here, which writes past the capture."""


def seconds(
    environment: Mapping[str, str] = os.environ, name: str = "ROBUSTNESS_FACTORY_SECONDS", default: float = LIMIT
) -> float:
    """
    Return the time limit; ModelError where the environment's is no number of seconds.

    >>> seconds({}), seconds({"ROBUSTNESS_FACTORY_SECONDS": "5"})
    (300.0, 5.0)
    """
    given = environment.get(name) or str(default)
    try:
        limit = float(given)
    except ValueError:
        limit = -1.0
    if not 0 < limit < threading.TIMEOUT_MAX:
        raise ModelError(f"{name} must be a number of seconds above 0, got {given!r}")
    return limit


def call_with_timeout(what: str, make: Callable[[], T]) -> tuple[T, str]:
    """
    Return what a user's code makes, and what it printed meanwhile; ModelError where it exits, or takes too long.

    It runs in a thread of its own: one that hangs cannot be ended, only left behind. What it raises is raised here.

    >>> call_with_timeout("nets:net", lambda: print("hello") or 3)
    (3, 'hello')
    """
    outcome: list[T] = []
    errors: list[BaseException] = []
    printed = io.StringIO()

    def run() -> None:
        try:
            outcome.append(make())
        except BaseException as error:  # SystemExit too, which would end this thread alone, in silence
            errors.append(error)

    thread, limit = threading.Thread(target=run, name=f"calling {what}", daemon=True), seconds()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        thread.start()
        thread.join(limit)
    if thread.is_alive():
        raise ModelError(
            f"{what} has not come back after {limit:g} seconds; does it wait for input, a download or a lock? "
            "ROBUSTNESS_FACTORY_SECONDS allows for more"
        )
    if errors:
        if isinstance(errors[0], SystemExit):
            raise ModelError(
                f"{what} called sys.exit({errors[0].code!r}); a factory must return its module: keep what is a program "
                'below `if __name__ == "__main__":`'
            ) from errors[0]
        if isinstance(errors[0], ModelError) or not is_foreign(errors[0]):
            raise errors[0]
        raise ModelError(
            f"{what} raised {described(errors[0])}; a factory must return its module: what skips or ends tests is for "
            "tests"
        ) from errors[0]
    return outcome[0], printed.getvalue().strip()


def is_foreign(error: BaseException) -> bool:
    """
    Return whether an error is one that means something to whoever runs tests: skip, fail, exit, interrupt.

    A model's code that raises one must not have a say in that.

    >>> is_foreign(SystemExit(0)), is_foreign(unittest.SkipTest()), is_foreign(ValueError())
    (True, True, False)
    """
    return not isinstance(error, Exception) or isinstance(error, unittest.SkipTest) or type(error).__name__ == "Exit"


def described(error: BaseException) -> str:
    """
    Return an error's type and the first line of what it says.

    >>> described(ValueError("no such file"))
    'ValueError: no such file'
    """
    message = str(error).strip()
    return f"{type(error).__name__}: {message.splitlines()[0] if message else 'no message'}"[:300]


def check_arguments(what: str, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """
    Refuse arguments that a factory does not take, before it is called; ModelError names them and what it takes.

    >>> check_arguments("nets:net", lambda classes, width=8: None, {"width": 4})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    robustness.errors.ModelError: nets:net cannot be called: missing a required argument: 'classes'; ...
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some built-in callables have none
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        given = ", ".join(f"{key} = {value!r}" for key, value in arguments.items()) or "nothing"
        raise ModelError(
            f"{what} cannot be called: {error}; it takes {signature} and is given {given}: put its arguments into "
            "[model.arguments] of the card, or --robustness-argument KEY=VALUE"
        ) from None
