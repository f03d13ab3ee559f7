"""A parent process that waits for a run and detects if it ended early, because a model may end its process at once."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import NoReturn

Tell = Callable[[str], None]
"""Tells that the run has ``begun``, or the exit status with which it is over; before that it is not believed to be."""

AFTER = 60.0
"""Seconds that a process may take for its end once its run is over: threads left behind may hold it for ever."""
TURN = 1.0
"""Seconds between two looks at a child that sends no signal."""
BEGUN = "begun"
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
OF_THE_KERNEL = 0x80
"""The code of a signal that a terminal sends: to all processes of its group, so that the run has got it too."""


def supervised() -> Tell:
    """
    Continue in a child process; this one waits for it and exits with its status, or fails with a message if it ended
    early.

    If a fork is unsafe (other threads, a GPU in use) or unavailable, only `os._exit` is watched. Torch must not have
    computed anything yet.
    """
    if not _possible():
        return _watched()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    reading, writing = os.pipe()
    heard = {getattr(signal, name) for name in (*FORWARDED, "SIGCHLD")}
    before, parent = signal.pthread_sigmask(signal.SIG_BLOCK, heard), os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other threads: `_possible` has looked
        child = os.fork()
    if child:
        os.close(writing)
        os.set_blocking(reading, False)
        _end(*_waited(child, reading, heard))
    os.close(reading)
    _die_with(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return partial(_send, writing, os.getpid())


def _possible() -> bool:
    if sys.platform != "linux" or threading.active_count() > 1:  # nothing else says who has sent a signal
        return False
    # OpenBLAS's threads, which NumPy starts, are ready for a fork; OpenMP's, which torch starts, are not.
    return "torch" not in sys.modules or len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208


def _die_with(parent: int) -> None:
    """Let the kernel end this process when its parent ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _send(writing: int, process: int, what: str) -> None:
    if os.getpid() == process:  # a fork of this process speaks for itself
        with contextlib.suppress(OSError):
            os.write(writing, f"{what}\n".encode())


def _waited(child: int, reading: int, heard: set[signal.Signals]) -> tuple[int, list[str]]:
    """Forward signals to a child until it ends; return its status and its message."""
    output, left = "", AFTER
    while True:
        about = signal.sigtimedwait(heard, TURN)
        if about is not None and about.si_signo not in heard:  # how Python says that time ran out in a stopped process
            about = None
        if about is not None and about.si_signo != signal.SIGCHLD and about.si_code != OF_THE_KERNEL:
            os.kill(child, about.si_signo)
        ended, status = os.waitpid(child, os.WNOHANG)
        with contextlib.suppress(BlockingIOError):
            while some := os.read(reading, 4096):
                output += some.decode()
        lines = output.split()
        if ended:
            return os.waitstatus_to_exitcode(status), lines
        if about is None and any(line != BEGUN for line in lines):
            left -= TURN
            if left <= 0:
                say("the run finished, but its process did not end because of running threads; it is killed")
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return int(lines[-1]), lines


def _end(code: int, messages: list[str]) -> NoReturn:
    """Exit with the run's reported status, or fail with a message."""
    begun, over = BEGUN in messages, [int(line) for line in messages if line != BEGUN]
    if over:
        code = code or over[-1]
    elif code < 0:
        name = signal.Signals(-code).name
        say(f"the run did not finish: its process was killed by {name}; {WHAT_ENDS}")
    elif begun or not code:
        code = code or 1
        say(f"the run did not finish: its process ended early; {WHAT_ENDS}; exit status {code}")
    if code < 0:
        with contextlib.suppress(OSError, ValueError):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
            if -code not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(-code, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
            os.kill(os.getpid(), -code)
        code = 128 - code
    os._exit(code)


WHAT_ENDS = (
    "a model, its factory or an import may have called os._exit, crashed in native code or run out of memory; the "
    "remaining tests did not run, and an existing report file is from an older run"
)


def _watched() -> Tell:
    """Watch `os._exit`: a message and the run's status, whoever calls it."""
    leave, process, over = os._exit, os.getpid(), list[int]()

    def watched(status: int) -> NoReturn:
        if os.getpid() == process:  # forked processes end so, and may
            if not over:
                say(f"the run did not finish: something called os._exit({status}); {WHAT_ENDS}")
            status = status or (over[-1] if over else 1)
        leave(status)

    os._exit = watched
    return lambda what: over.append(int(what)) if what != BEGUN else None


def say(message: str) -> None:
    """Write to the original standard error."""
    with contextlib.suppress(OSError):
        os.write(2, f"robustness: {message}\n".encode())
