"""Runs work in a subprocess and reports its death: some libraries end the process in which they run."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from robustness.engines.spec import FillResult, Job
from robustness.errors import EngineError, RobustnessError
from robustness.workspace.parallel import exit_with_parent

PATIENCE = 20.0
"""Seconds that the process has to end after a request."""
LINES = 5
"""Lines of the log in an error."""

Tell = Callable[[str, Any], None]


def run(what: str, job: Job, say: Callable[[str], None], show: Callable[[int, int], None] | None = None) -> FillResult:
    """
    Call ``what(job, tell)`` (``module:callable``) in another process, and return its result; ``show`` its progress.

    Its output goes to a log below the store. EngineError if it dies.
    """
    log = job.store / "logs" / f"engine-{job.run}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    except OSError as error:
        raise EngineError(
            f"{job.store} cannot be written ({error.strerror or error}): an engine writes its results to the store; "
            "choose another folder with --robustness-store or ROBUSTNESS_STORE"
        ) from error
    spawn = multiprocessing.get_context("spawn")  # a fork of a process that has used torch's threads may hang
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_begin, args=(what, job, theirs, str(log)), daemon=False)
    process.start()
    theirs.close()
    filled = FillResult()
    try:
        while _hear(ours, filled, say, show):
            pass
        process.join(PATIENCE)
    except EOFError:
        process.join(PATIENCE)
        raise EngineError(_died(job.engine.name, process.exitcode, log)) from None
    finally:
        _end(process)
        ours.close()
    log.unlink(missing_ok=True)
    return filled


def _hear(
    ours: Connection, filled: FillResult, say: Callable[[str], None], show: Callable[[int, int], None] | None
) -> bool:
    """Handle one message, and return whether more follow; EOFError if the process ended without a result."""
    try:
        kind, value = ours.recv()
    except OSError as error:
        raise EOFError from error
    if kind == "say":
        say(value)
    elif kind == "progress" and show:
        show(*value)
    elif kind == "kind":
        filled.kind = value
    elif kind == "notice":
        filled.notices.append(value)
    elif kind == "failed":
        filled.failed[value[0]] = value[1]
    elif kind == "refused":
        raise EngineError(value)
    return bool(kind != "over")


def _end(process: Any) -> None:
    if process.is_alive():
        process.terminate()
        process.join(PATIENCE)
    if process.is_alive():
        process.kill()
    process.join()


def _died(name: str, status: int | None, log: Path) -> str:
    by = f"killed by {signal.Signals(-status).name}" if status is not None and status < 0 else f"exit status {status}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    last = "".join(f"\n  {line[:300]}" for line in lines[-LINES:])
    return (
        f"the process that drives {name} died ({by}): the cluster is gone, or it was killed; finished chunks are "
        f"stored, run the same command again to continue; its log is {log}{last}"
    )


def _begin(what: str, job: Job, theirs: Connection, log: str) -> None:
    """Run in the subprocess: leave Ctrl-C to the parent, end when it dies, and print to the log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    threading.Thread(target=exit_with_parent, daemon=True).start()
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(target, stream)
    module, _, name = what.partition(":")
    lock = threading.Lock()

    def tell(kind: str, value: Any = None) -> None:
        with lock:
            theirs.send((kind, value))

    try:
        getattr(importlib.import_module(module), name)(job, tell)
        tell("over")
    except RobustnessError as error:
        tell("refused", str(error))
    except Exception:
        traceback.print_exc()
        sys.exit(1)
