"""`robustness run`: the suites on the selected models, or on one shard of them, as pytest runs them."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from robustness.errors import RobustnessError

OWN = Path("suites")
"""A folder of suites in the current folder takes precedence over the installed ones."""


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    Split the arguments of `robustness run` from those after ``--``, for pytest.

    >>> split(["run", "mlp", "--shard", "1/4", "--", "-n", "auto"])
    (['run', 'mlp', '--shard', '1/4'], ['-n', 'auto'])
    """
    rest = list(arguments)
    if "run" not in rest or "--" not in rest[rest.index("run") :]:
        return rest, []
    at = rest.index("--", rest.index("run"))
    return rest[:at], rest[at + 1 :]


def start(options: Namespace) -> NoReturn:
    """Become pytest: signals, output and exit code are its own."""
    command = [sys.executable, "-m", "pytest", *suites(), *pytest_options(options), *options.pytest]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command)


def suites() -> list[str]:
    """Return pytest's arguments for the suites: those in this folder, else the installed ones."""
    if OWN.joinpath("test_regression.py").is_file():
        return [str(OWN)]
    if find_spec("robustness.suites") is not None:
        return ["--pyargs", "robustness.suites"]
    raise RobustnessError(
        "the installation lacks the suites; reinstall it: pip install --force-reinstall pytest-robustness"
    )


def pytest_options(options: Namespace) -> Iterator[str]:
    """Return the command's options as plugin options; unset ones are left to the ini file."""
    if options.shard is not None:
        from robustness.cards import shards

        shards.parse(options.shard)
    if options.engine is not None:
        from robustness import engines

        engines.parse(options.engine)
    several = {"model": options.models, "card": options.card or (), "report": options.report or ()}
    single = {name: getattr(options, name) for name in ("shard", "engine", "store", "data")}
    single |= {"seed": options.seed or None, "device": None if options.device == "auto" else options.device}
    single |= {"dtype": None if options.dtype == "float32" else options.dtype}
    for name, values in several.items():
        yield from (f"--robustness-{name}={value}" for value in values)
    yield from (f"--robustness-{name}={value}" for name, value in single.items() if value is not None)
    if options.strict:
        yield "--robustness-strict"
