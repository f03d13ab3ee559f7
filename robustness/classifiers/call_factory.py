"""Call a user's factory: capture what it prints, and let it neither hang nor end the run."""

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

# Seconds that importing and calling a factory may take, unless ROBUSTNESS_FACTORY_SECONDS is set.
DEFAULT_SECONDS = 300.0


# Reports a long wait; pytest's plugin replaces it by one that bypasses the capture.
notify: Callable[[str], object] = lambda message: sys.stderr.write(f"robustness: {message}\n")


def seconds_from_environment(
    environment: Mapping[str, str] = os.environ,
    name: str = "ROBUSTNESS_FACTORY_SECONDS",
    default: float = DEFAULT_SECONDS,
) -> float:
    """
    Return a time limit in seconds from an environment variable; ModelError if its value is invalid.

    >>> seconds_from_environment({}), seconds_from_environment({"ROBUSTNESS_FACTORY_SECONDS": "5"})
    (300.0, 5.0)
    """
    text = environment.get(name) or str(default)
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 < limit < threading.TIMEOUT_MAX:
        raise ModelError(f"{name} must be a number of seconds above 0, got {text!r}")
    return limit


def call_with_timeout(what: str, call: Callable[[], T]) -> tuple[T, str]:
    """
    Return what a call of user code returns and what it prints; ModelError if it exits or takes too long.

    It runs in its own thread: a thread that hangs cannot be ended, only abandoned. What it raises is raised here.

    >>> call_with_timeout("nets:net", lambda: print("hello") or 3)
    (3, 'hello')
    """
    results: list[T] = []
    errors: list[BaseException] = []
    printed = io.StringIO()

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # SystemExit too, which would silently end this thread alone
            errors.append(error)

    thread, limit = threading.Thread(target=run, name=f"calling {what}", daemon=True), seconds_from_environment()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        thread.start()
        thread.join(limit)
    if thread.is_alive():
        raise ModelError(
            f"{what} has not returned after {limit:g} seconds; does it wait for input, a download or a lock? "
            "ROBUSTNESS_FACTORY_SECONDS sets the limit"
        )
    if errors:
        if isinstance(errors[0], SystemExit):
            raise ModelError(
                f"{what} called sys.exit({errors[0].code!r}); a factory must return its module: put the code of a "
                'program below `if __name__ == "__main__":`'
            ) from errors[0]
        if isinstance(errors[0], ModelError) or not is_foreign(errors[0]):
            raise errors[0]
        raise ModelError(
            f"{what} raised {describe_error(errors[0])}; a factory must return its module: call what skips or ends "
            "tests in tests only"
        ) from errors[0]
    return results[0], printed.getvalue().strip()


def is_foreign(error: BaseException) -> bool:
    """
    Return whether an error would control the test run: skip, fail, exit, interrupt.

    A model's code must not control the test run by raising one.

    >>> is_foreign(SystemExit(0)), is_foreign(unittest.SkipTest()), is_foreign(ValueError())
    (True, True, False)
    """
    return not isinstance(error, Exception) or isinstance(error, unittest.SkipTest) or type(error).__name__ == "Exit"


def describe_error(error: BaseException) -> str:
    """
    Return an error's type and the first line of its message.

    >>> describe_error(ValueError("no such file"))
    'ValueError: no such file'
    """
    message = str(error).strip()
    return f"{type(error).__name__}: {message.splitlines()[0] if message else 'no message'}"[:300]


def check_arguments(what: str, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """
    Raise ModelError if a factory does not accept the arguments; it is not called.

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
        passed = ", ".join(f"{key} = {value!r}" for key, value in arguments.items()) or "nothing"
        raise ModelError(
            f"{what} cannot be called: {error}; it takes {signature} and gets {passed}: write its arguments in "
            "[model.arguments] of the card, or --robustness-argument KEY=VALUE"
        ) from None
