"""Progress in a terminal: bars and lines that begin on a line of their own, never behind pytest's dots."""

import os
import pty
import re
import subprocess
import sys
import termios

import pytest
from helpers import LIMIT

AT_ONCE = """
from robustness.util import progress

progress.DELAY = progress.BETWEEN_BARS = progress.BETWEEN_LINES = 0
"""
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def shown(project, *arguments, size=(40, 120)):
    """What a terminal gets of a run."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, size)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "suites", *arguments]
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=project.root, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    assert process.wait(LIMIT) == 0
    os.close(ours)
    return ANSI.sub("", b"".join(parts).decode()).replace("\r\n", "\n")


@pytest.mark.parametrize("arguments", [("-n0",), ("-n0", "-q"), ("-n2",)])
def test_progress_begins_on_a_line_of_its_own(project, arguments):
    """Catches: `..robustness: sweeping` in one line; no bar at all because pytest's capture is no terminal."""
    project.write("conftest.py", project.root.joinpath("conftest.py").read_text() + AT_ONCE)
    text = shown(project, *arguments)
    lines = [line for line in text.split("\n") if "robustness: sweeping" in line]
    assert len(lines) >= 3
    assert all(re.match(r"[\r ]*robustness: sweeping", line) for line in lines), lines
    bars = [line for line in lines if "%|" in line]
    assert bool(bars) == (arguments != ("-n2",))  # two processes would draw over each other
    assert "7 passed" in text


def test_a_terminal_of_unknown_width_has_lines(project):
    """Catches: bars of no width, so nothing at all, in containers that have a terminal without a size."""
    project.write("conftest.py", project.root.joinpath("conftest.py").read_text() + AT_ONCE)
    text = shown(project, "-n0", size=(0, 0))
    assert re.search(r"^robustness: sweeping tiny:\w+: \d+/\d+ ", text, re.MULTILINE)


def test_a_plain_run_in_a_log_has_lines(project):
    """Catches: bars of control characters in CI's log; a line that is glued to dots there."""
    project.write("conftest.py", project.root.joinpath("conftest.py").read_text() + AT_ONCE)
    process = project.start("suites", "-n0")
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, out
    lines = [line for line in err.splitlines() if "sweeping" in line]
    assert lines
    assert all(re.fullmatch(r"robustness: sweeping tiny:\w+: \d+/\d+ \(\d+ s\)", line) for line in lines)
    assert "\r" not in err
