"""`get_or_make`: one process makes an entry, the others wait and read; what fails or dies leaves nothing."""

import errno
import fcntl
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import helpers
import pytest

from robustness.data import file_index
from robustness.errors import RobustnessError, StoreError, SweepError
from robustness.util import locks
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

KEY = "ab" + "0" * 62
WAITING = "waiting for another process: making it\n"


def workspace(root, run=None, say=None):
    return Workspace(Store(root, run, say), root)


def calls(root):
    """How often the entry was made in this store, by whichever process."""
    file = root / "calls"
    return len(file.read_text()) if file.is_file() else 0


def entry(of, work=lambda: None, prepare=None):
    """Get an entry of the store, the text "whole"; `work` is done when it is made, before it is written."""
    path = of.store.path("weights", KEY)

    def read(file):
        if file.read_text() != "whole":
            raise StoreError("it is damaged")
        return file.read_text()

    def make():
        with (of.store.root / "calls").open("a") as stream:
            stream.write("x")
        work()
        of.store.write(path, b"whole")
        return "whole"

    return of.get_or_make(
        "weights", KEY, make, read=lambda: of.store.try_read(path, read), label="making it", prepare=prepare
    )


def in_this_process(root, run):
    """Get the entry, and say what happens; the work waits for a line, and fails if that is "fail"."""
    locks.PATIENCE = 0.05

    def work():
        print("making", flush=True)
        if sys.stdin.readline() == "fail\n":
            raise SweepError("no luck")

    try:
        print(entry(workspace(Path(root), run, lambda text: print(text, flush=True)), work))
    except RobustnessError as error:
        print(error)


def start(root, run="one"):
    """Start a process that gets the entry; one that hangs is killed, so that reading its lines ends."""
    code = "import sys; sys.path[:0] = sys.argv[1:3]; import test_get_or_make as t; t.in_this_process(*sys.argv[3:])"
    process = helpers.start(code, *Path(__file__).parents[:2], root, run)
    killing = threading.Timer(helpers.LIMIT, process.kill)
    killing.daemon = True
    killing.start()
    return process


def rest(process, line=""):
    """Write a line to a process, and return what else it prints until it ends."""
    printed, errors = process.communicate(line, timeout=helpers.LIMIT)
    assert process.returncode == 0, errors
    return printed


def nothing_left(root):
    return not [path for path in root.rglob("*") if path.is_file() and path.suffix not in (".lock", ".json", "")]


def test_two_processes_make_it_once(tmp_path):
    """Catches: a second process that does not wait, waits in silence, or makes what the first has just written."""
    first = start(tmp_path)
    assert first.stdout.readline() == "making\n"
    second = start(tmp_path)
    assert second.stdout.readline() == WAITING
    assert rest(first, "go\n") == "whole\n"
    assert rest(second).replace(WAITING, "") == "whole\n"
    assert calls(tmp_path) == 1
    assert not list((tmp_path / "attempts").iterdir())


def test_four_processes_at_the_same_moment(tmp_path):
    """Catches: two that look before either has the lock, and both make it."""
    processes = [start(tmp_path) for _ in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [rest(process).replace(WAITING, "") for process in processes]
    assert sorted(printed) == ["making\nwhole\n", "whole\n", "whole\n", "whole\n"]
    assert calls(tmp_path) == 1


def test_what_fails_leaves_nothing_and_is_tried_again_in_the_next_run_alone(tmp_path):
    """Catches: half an entry, a lock that stays held, eight workers that each fail after an hour."""
    first = start(tmp_path)
    assert first.stdout.readline() == "making\n"
    waits = start(tmp_path)
    assert waits.stdout.readline() == WAITING
    assert rest(first, "fail\n") == "no luck\n"
    refused = f"process {first.pid} of this run failed while making it; it is not tried again in this run: no luck\n"
    assert rest(waits).replace(WAITING, "") == refused
    assert rest(start(tmp_path)) == refused
    assert nothing_left(tmp_path)
    assert calls(tmp_path) == 1
    assert entry(workspace(tmp_path, "two")) == "whole"


def test_what_killed_its_process_leaves_nothing_and_is_tried_again_in_the_next_run_alone(tmp_path):
    """Catches: a lock that a dead process holds, a waiting process that dies the same way, no word of the first."""
    first = start(tmp_path)
    assert first.stdout.readline() == "making\n"
    waits = start(tmp_path)
    assert waits.stdout.readline() == WAITING
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    died = f"process {first.pid} of this run died while making it; it is not tried again in this run"
    assert rest(waits).replace(WAITING, "").startswith(died)
    assert nothing_left(tmp_path)
    assert calls(tmp_path) == 1
    assert entry(workspace(tmp_path, "two")) == "whole"
    assert rest(start(tmp_path)) == "whole\n", "another run has shown that it can be made"


def test_a_failure_is_raised_again_in_its_process(tmp_path):
    """Catches: a training that is tried anew by each test that needs it."""
    of, due = workspace(tmp_path), SweepError("no luck")

    def fail():
        raise due

    for _ in range(2):
        with pytest.raises(SweepError) as caught:
            entry(of, fail)
        assert caught.value is due
    assert calls(tmp_path) == 1


def test_an_interruption_is_no_failure(tmp_path):
    """Catches: Ctrl-C in one worker that ends the others, and the rest of an interactive session."""
    of = workspace(tmp_path, "one")

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        entry(of, interrupt)
    assert nothing_left(tmp_path)
    assert not list((tmp_path / "attempts").iterdir())
    assert entry(of) == "whole"


@pytest.mark.parametrize("content", ["", "wh", "other"])
def test_what_cannot_be_trusted_is_made_again_with_a_notice(tmp_path, content):
    """Catches: a damaged file that is returned, that fails for ever, or that is replaced in silence."""
    entry(workspace(tmp_path))
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_text(content)
    of = workspace(tmp_path)
    assert entry(of) == "whole"
    assert of.notices == ["it is damaged; made again"]
    of = workspace(tmp_path)
    assert entry(of) == "whole"
    assert of.notices == []
    assert calls(tmp_path) == 2


def test_what_has_to_be_there_first_is_made_before_the_lock_is_taken(tmp_path):
    """Catches: two processes that hold one lock each and wait for the other's; prerequisites made for nothing."""
    held = []

    def prepare():
        held.append(locks.is_locked(tmp_path / "locks" / f"weights-{KEY}.lock"))

    def work():
        held.append(locks.is_locked(tmp_path / "locks" / f"weights-{KEY}.lock"))

    assert entry(workspace(tmp_path), work, prepare) == "whole"
    assert held == [False, True]
    assert entry(workspace(tmp_path), work, prepare) == "whole"
    assert held == [False, True]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_without_locks_each_makes_it(tmp_path, monkeypatch, code):
    """Catches: a file system without locks that nobody can work on, or a lock there that a killed process leaves."""

    def flock(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert entry(workspace(tmp_path)) == "whole"
    assert not (tmp_path / "attempts").exists()
    assert entry(workspace(tmp_path)) == "whole"
    assert calls(tmp_path) == 1


def test_files_are_looked_at_by_one_process(tmp_path, monkeypatch):
    """Catches: a cache of data with a mechanism of its own. Another process looks while this one waits, and is done."""
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    index, elsewhere = tmp_path / "store" / "files" / "index.json", tmp_path / "other" / "files" / "index.json"
    (tmp_path / "picture").touch()
    files, later = {"picture": str(tmp_path / "picture")}, lambda: 4 * 10**18
    file_index.cached_per_file(files, elsewhere, lambda path: "seen by another", "1", now=later)
    other, said = locks.exclusive(index.with_suffix(".lock"), index.parents[1], lambda: None), []

    def say(text):
        said.append(text)
        if len(said) == 1:
            shutil.copy(elsewhere, index)
            other.__exit__(None, None, None)

    other.__enter__()
    assert file_index.cached_per_file(files, index, pytest.fail, "1", say) == {"picture": "seen by another"}
    assert said[0] == "waiting for another process that inspects the same files"
