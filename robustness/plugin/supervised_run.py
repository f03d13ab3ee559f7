"""Supervises a run, so that one that does not finish fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from robustness.plugin.config import CARDS, aside, is_worker, main_again

TELL = pytest.StashKey[Callable[[str], None]]()
"""The environment variable with the pipe to the waiting process, if there is one."""

COMMAND = ("console_main", "_console_main")
"""Functions that pytest's command calls, by version."""

OTHER = ("help", "version", "markers", "cacheshow", "collectonly", "looponfail")
"""Options of runs without models."""


def supervise_early(config: pytest.Config) -> None:
    """Supervise a run from before its first import, if the command line or the ini file names models."""
    options = config.known_args_namespace
    if any(getattr(options, f"robustness_{name}", None) or config.getini(f"robustness_{name}") for name in CARDS):
        supervise(config, options)


def supervise(config: pytest.Config, options: Any) -> None:
    """Continue in a child process, once, if pytest is the main program: a program that calls it may have more to do."""
    if TELL in config.stash or is_worker(config) or any(getattr(options, name, None) for name in OTHER):
        return
    if not _is_program(sys._getframe()):
        return
    from robustness.util import supervisor

    with aside(config):  # the waiting process also writes past pytest's capture
        config.stash[TELL] = supervisor.supervised()


def _is_program(frame: FrameType | None) -> bool:
    """Return whether pytest's own command called this, not another program."""
    while frame is not None:
        if _is_command(frame):
            return True
        caller = frame.f_back
        if frame.f_code is pytest.main.__code__ and (
            caller is None or not (_is_command(caller) or caller.f_code is main_again.__code__)
        ):
            return False
        frame = caller
    return False


def _is_command(frame: FrameType) -> bool:
    return frame.f_code.co_name in COMMAND and frame.f_globals.get("__name__") == "_pytest.config"


def tell(config: pytest.Config, what: str) -> None:
    """Report the progress of the run to the waiting process."""
    if TELL in config.stash:
        config.stash[TELL](what)
