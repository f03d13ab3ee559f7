"""`get_or_make`: one process makes an entry, the others wait and read; what fails or dies leaves nothing."""

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


@pytest.mark.parametrize("fate", ["failed", "died"])
def test_what_ends_badly_leaves_nothing_and_is_tried_again_in_the_next_run_alone(tmp_path, fate):
    """
    Catches: half an entry, a lock that stays held, eight workers that each fail after an hour, a waiting process that
    dies the same way, no word of the first.
    """
    first = start(tmp_path)
    assert first.stdout.readline() == "making\n"
    waits = start(tmp_path)
    assert waits.stdout.readline() == WAITING
    if fate == "failed":
        assert rest(first, "fail\n") == "no luck\n"
    else:
        first.kill()
        first.communicate()
        assert first.returncode == -signal.SIGKILL
    refused = f"process {first.pid} of this run {fate} while making it; it is not tried again in this run"
    refused += ": no luck\n" if fate == "failed" else " (out of memory? a crash in the model's native code?)\n"
    assert rest(waits).replace(WAITING, "") == refused
    assert rest(start(tmp_path)) == refused
    assert nothing_left(tmp_path)
    assert calls(tmp_path) == 1
    assert entry(workspace(tmp_path, "two")) == "whole"
    assert rest(start(tmp_path)) == "whole\n", "another run has shown that it can be made"


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


def test_what_has_to_be_there_first_is_made_before_the_lock_is_taken(tmp_path):
    """Catches: two processes that hold one lock each and wait for the other's; prerequisites made for nothing."""
    held = []

    def note():
        held.append(locks.is_locked(tmp_path / "locks" / f"weights-{KEY}.lock"))

    for _ in range(2):
        assert entry(workspace(tmp_path), work=note, prepare=note) == "whole"
        assert held == [False, True]


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
