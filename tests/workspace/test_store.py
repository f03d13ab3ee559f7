"""The store: whole files or none, one process at a time, and nothing believed that has changed."""

import errno
import io
import json
import os
import pickle
from pathlib import Path

import helpers
import numpy as np
import pytest

from robustness.errors import StoreError
from robustness.metrics.evidence import OK, OUTCOMES, Evidence
from robustness.util import locks, source_files
from robustness.util.hashing import canonical_json
from robustness.workspace.store import Store

KEY = "ab" + "0" * 62


def evidence(seed=0, **provenance):
    outcomes = {name: np.full((1, 2), seed, np.float32) for name in OUTCOMES}
    return Evidence(
        labels=np.zeros(2, np.int32), classes=("a", "b"), strengths=("0",), status=provenance.pop("status", (OK,)),
        provenance={"key": KEY, "label": "tiny:clean", "sources": {}, "distributions": {}, **provenance}, **outcomes,
    )  # fmt: skip


@pytest.fixture
def kept(tmp_path):
    """A store, and a function that puts evidence into it."""
    kept = Store(tmp_path / "store", run="this")

    def put(**provenance):
        kept.write(kept.path("evidence", KEY), evidence(**provenance).to_bytes())
        return kept.evidence(KEY, tmp_path)

    kept.put = put
    return kept


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# What is believed


def test_a_file_under_a_wrong_name_is_not_believed(kept, tmp_path):
    """Catches: evidence that is not found by its key, or that is believed for another."""
    other = "cd" + KEY[2:]
    assert kept.evidence(KEY, tmp_path) == (None, "")
    found, reason = kept.put(seed=3)
    assert (found.digest, reason) == (evidence(seed=3).digest, "")
    assert kept.evidence(other, tmp_path) == (None, "")
    kept.write(kept.path("evidence", other), kept.path("evidence", KEY).read_bytes())
    found, reason = kept.evidence(other, tmp_path)
    assert found is None
    assert reason.endswith("holds the evidence of another key")


@pytest.mark.parametrize("content", [b"", b"torn", pickle.dumps({"key": KEY}), evidence().to_bytes()[:-1], None])
def test_a_file_that_is_no_evidence_is_not_believed(kept, tmp_path, content):
    """Catches: half a file, another format or a folder that is taken for evidence, or ends the run."""
    path = kept.path("evidence", KEY)
    if content is None:
        path.mkdir(parents=True)
    else:
        kept.write(path, content)
    found, reason = kept.evidence(KEY, tmp_path)
    assert found is None
    if content is None:
        assert "it is a folder" in reason
    else:
        assert reason == f"{path}: not an evidence file (truncated or foreign)"


def test_evidence_is_believed_while_its_sources_are_what_they_were(kept, tmp_path):
    near, far = tmp_path / "models" / "net.py", tmp_path / "far.py"
    near.parent.mkdir()
    for file in (near, far):
        file.write_text("x = 1")
    listed = {"models/net.py": source_files.content_hash(near), str(far): source_files.content_hash(far)}
    assert kept.put(sources=listed)[1] == ""
    stat = near.stat()
    near.write_text("x = 2")
    os.utime(near, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same time, same size: the content counts
    assert kept.evidence(KEY, tmp_path) == (None, "evidence of tiny:clean is older than models/net.py")
    near.unlink()
    far.write_text("x = 3")
    assert kept.evidence(KEY, tmp_path) == (None, f"evidence of tiny:clean is older than {far}, models/net.py")
    near.write_text("x = 1")
    far.write_text("x = 1")
    assert kept.evidence(KEY, tmp_path)[1] == ""


def test_evidence_is_believed_while_distributions_have_the_same_versions(kept):
    now, due = source_files.distribution_versions([]), "evidence of tiny:clean was made with another version of"
    assert kept.put(distributions=now)[1] == ""
    assert kept.put(distributions={"numpy": "0.1", "torch": now["torch"]}) == (None, f"{due} numpy")
    assert kept.put(distributions={"no-such-thing": "1"}) == (None, f"{due} no-such-thing")


def test_failed_evidence_is_believed_in_its_own_run_only(kept):
    assert kept.put(status=("raised RuntimeError: x",), run="this")[1] == ""
    for run in ({"run": "other"}, {}):
        assert kept.put(status=("raised E",), **run) == (None, "code failed when evidence of tiny:clean was made")
    assert kept.put(status=("non-finite logits for 1 of 2 images",), run="other")[1] == "", "no code failed there"


def test_entries_are_listed_with_those_that_cannot_be_read(kept, tmp_path):
    kept.put()
    torn = kept.path("evidence", "aa" + KEY[2:])
    kept.write(torn, b"torn")
    (first, error), (second, found) = kept.entries()
    assert (first, second) == (torn, kept.path("evidence", KEY))
    assert isinstance(error, StoreError)
    assert str(torn) in str(error)
    assert found.digest == evidence().digest
    for path, _ in list(kept.entries()):
        kept.remove(path)
        kept.remove(path)
    assert list(kept.entries()) == []


# Writing


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullDisk(io.FileIO):
    """A file that takes half of what it is given."""

    def write(self, content):
        super().write(content[: len(content) // 2])
        full()


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["write", "fsync", "replace", "interrupted"])
@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_full_disk_or_an_interruption_leaves_what_was_there(tmp_path, monkeypatch, where, before):
    """Catches: half a file under the name of a whole one, one that is lost, or a beginning that stays beside it."""
    path = tmp_path / "store" / "evidence" / "ab" / "file"
    if before:
        Store(tmp_path / "store").write(path, before)
    match where:
        case "write":
            monkeypatch.setattr(Path, "open", lambda path, mode: FullDisk(path, mode))
        case "fsync":
            monkeypatch.setattr(os, "fsync", full)
        case "replace":
            monkeypatch.setattr(Path, "replace", full)
        case "interrupted":
            monkeypatch.setattr(os, "fsync", interrupted)
    due, said = StoreError, r"file could not be written \(No space left on device\).*make room"
    if where == "interrupted":
        due, said = KeyboardInterrupt, "^$"
    with pytest.raises(due, match=said):
        Store(tmp_path / "store").write(path, b"new" * 1000)
    assert files(tmp_path) == (["file"] if before else [])
    assert not before or path.read_bytes() == before


WRITER = """
import sys
from pathlib import Path
from robustness.workspace.store import Store
store, path = Store(Path(sys.argv[1])), Path(sys.argv[2])
content = Path(sys.argv[3]).read_bytes()
for _ in range(60):
    store.write(path, content)
"""


def test_a_file_that_two_processes_write_is_always_whole(tmp_path):
    path, contents = tmp_path / "evidence", []
    for seed in (1, 2):
        contents.append(evidence(seed, filler="x" * 100_000 * seed).to_bytes())
        (tmp_path / f"content{seed}").write_bytes(contents[-1])
    writers = [helpers.start(WRITER, tmp_path, path, tmp_path / f"content{seed}") for seed in (1, 2)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            assert path.read_bytes() in contents
            seen += 1
    for writer in writers:
        _, errors = writer.communicate()
        assert writer.returncode == 0, errors
    assert seen
    assert files(tmp_path) == ["content1", "content2", "evidence"]


# One at a time


COUNTER = """
import sys, time
from pathlib import Path
from robustness.workspace.store import Store
store, log = Store(Path(sys.argv[1]), run="one"), Path(sys.argv[1]) / "log"
for _ in range(25):
    with store.exclusive("it", "counting"):
        number = int(log.read_text() or 0) if log.exists() else 0
        time.sleep(0.002)
        log.write_text(str(number + 1))
"""


def test_two_processes_are_never_inside_together(tmp_path):
    processes = [helpers.start(COUNTER, tmp_path) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=helpers.LIMIT)
        assert process.returncode == 0, errors
    assert (tmp_path / "log").read_text() == "50"
    assert files(tmp_path / "attempts") == []


def test_other_things_need_not_wait(tmp_path):
    """Catches: one lock for everything; a marker that does not name its run and process."""
    said = []
    one, other = (Store(tmp_path, run, say=said.append) for run in ("one", "two"))
    with one.exclusive("it", "x"), other.exclusive("other", "y"):
        marker = json.loads((tmp_path / "attempts" / "other.json").read_text())
        assert (marker["run"], marker["pid"]) == ("two", os.getpid())
        assert files(tmp_path / "attempts") == ["it.json", "other.json"]
    assert said == []


def test_an_error_inside_is_the_caller_s_who_may_try_again(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), Store(tmp_path, run="one").exclusive("it", "x"):
            1 / len(files(tmp_path / "attempts")[1:])
    with Store(tmp_path, run="one").exclusive("it", "x"):
        pass
    assert files(tmp_path / "attempts") == []


@pytest.mark.parametrize("content", ["", "[]", "null", '{"run": "one"', "{}", '"one"'])
def test_a_torn_marker_is_passed_over(tmp_path, content):
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts" / "it.json").write_text(content)
    with Store(tmp_path, run="one").exclusive("it", "x"):
        pass


def test_a_store_that_cannot_be_written_serves_readers(tmp_path):
    """A file stands where the folder should be: nobody can write there, not even root."""
    (tmp_path / "file").touch()
    inside, told = [], Store(tmp_path / "file" / "store", run="one")
    with told.exclusive("it", "x"):
        inside.append(1)
    with pytest.raises(KeyError), told.exclusive("it", "x"):
        raise KeyError
    assert inside == [1]
    with pytest.raises(StoreError, match=r"could not be written \(Not a directory\).*--robustness-store"):
        told.write(told.path("evidence", KEY), b"")
    found, _ = told.evidence(KEY, tmp_path)
    assert found is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_serves_readers(kept, tmp_path):
    kept.put(seed=2)
    folders = [kept.root, *(path for path in kept.root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        with kept.exclusive("it", "x"):
            assert kept.evidence(KEY, tmp_path)[1] == ""
        with pytest.raises(StoreError, match="Permission denied"):
            kept.write(kept.path("evidence", KEY), b"")
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_what_is_said_of_waiting_may_fail_without_letting_two_in(tmp_path, monkeypatch):
    """A closed terminal is no reason to go on without the lock."""
    monkeypatch.setattr(locks, "PATIENCE", 0.01)

    def closed(_):
        raise BrokenPipeError

    with (
        Store(tmp_path).exclusive("it", "x"),
        pytest.raises(BrokenPipeError),
        Store(tmp_path, say=closed).exclusive("it", "x"),
    ):
        pytest.fail("two inside")


# Names


def test_runs_have_names_of_their_own(tmp_path):
    assert Store(tmp_path).run != Store(tmp_path).run


def test_descriptions_are_the_same_bytes_whatever_their_order():
    assert canonical_json({"a": 1, "b": {"c": 1, "d": [0.1]}}) == canonical_json({"b": {"d": [0.1], "c": 1}, "a": 1})
    different = [{"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": True}, {"a": None}, {"a": [1]}, {"b": 1}]
    assert len({canonical_json(value) for value in different}) == len(different)
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})
