"""What is remembered of files: git's rule, and nothing that may have changed is believed."""

import json
import os
import time
from pathlib import Path

import pytest

from robustness.data import file_index
from robustness.util import file_stat

LATER = 10 * file_stat.SLACK


class Reader:
    """Reads files and counts what it read."""

    def __init__(self):
        self.read = []

    def __call__(self, path):
        self.read.append(Path(path).name)
        return Path(path).read_text()


@pytest.fixture
def files(tmp_path):
    (tmp_path / "data").mkdir()
    for name in "abc":
        (tmp_path / "data" / name).write_text(name)
    return {name: tmp_path / "data" / name for name in "abc"}


def ask(files, tmp_path, *, later=LATER, version="1"):
    """What is found, and which files were read for it; by a clock that runs ahead, so that the files are old."""
    reader = Reader()
    found = file_index.cached_per_file(
        {name: str(path) for name, path in files.items()},
        tmp_path / "kept" / "index.json",
        reader,
        version,
        now=lambda: time.time_ns() + later,
    )
    return found, sorted(reader.read)


def test_what_is_the_same_is_not_read_again_unless_by_another_version(files, tmp_path):
    assert ask(files, tmp_path) == ({name: name for name in "abc"}, ["a", "b", "c"])
    assert ask(files, tmp_path) == ({name: name for name in "abc"}, [])
    assert ask(files, tmp_path, version="2")[1] == ["a", "b", "c"]


def test_what_is_younger_than_the_index_is_not_believed(files, tmp_path):
    """Catches: a file that is written twice within one tick of the clock, at the same size."""
    ask(files, tmp_path, later=0)
    times = files["b"].stat()
    files["b"].write_text("B")
    os.utime(files["b"], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert ask(files, tmp_path, later=0) == ({"a": "a", "b": "B", "c": "c"}, ["a", "b", "c"])


def rewrite(path):
    path.write_text("longer")


def replaced(path):
    """Another file of the same size and time of change, under the same name."""
    times = path.stat()
    other = path.with_name("other")
    other.write_text("X")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.rename(path)


def backdated(path):
    times = path.stat()
    path.write_text("X")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("change", [rewrite, replaced, backdated])
def test_a_changed_file_alone_is_read_again(files, tmp_path, change):
    """Catches: trust in size and time of change, which whoever copies with them sets back."""
    ask(files, tmp_path)
    change(files["b"])
    found, read = ask(files, tmp_path)
    assert read == ["b"]
    assert found["b"] in ("longer", "X")


def test_new_files_are_read_and_gone_ones_forgotten(files, tmp_path):
    ask(files, tmp_path)
    (tmp_path / "data" / "d").write_text("d")
    fewer = {"a": files["a"], "d": tmp_path / "data" / "d"}
    assert ask(fewer, tmp_path) == ({"a": "a", "d": "d"}, ["d"])
    kept = json.loads((tmp_path / "kept" / "index.json").read_text())
    assert sorted(kept["files"]) == ["a", "d"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"form": "files 1", "version": "1", "taken": 9e99, "files": {"a": 3}}', "\0"]
)
def test_a_damaged_index_is_made_anew(files, tmp_path, content):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "index.json").write_text(content)
    assert ask(files, tmp_path)[1] == ["a", "b", "c"]
    assert ask(files, tmp_path)[1] == []


def test_without_a_place_to_keep_it_everything_is_read(files, tmp_path):
    """Catches: a store that cannot be written ends the run."""
    (tmp_path / "kept").write_text("a file where the folder should be")
    for _ in range(2):
        assert ask(files, tmp_path) == ({name: name for name in "abc"}, ["a", "b", "c"])


def test_names_that_are_no_text_are_kept(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff\n<b>")
    path.write_text("odd")
    for _ in range(2):
        assert ask({path.name: path}, tmp_path)[0] == {path.name: "odd"}
    assert ask({path.name: path}, tmp_path)[1] == []


def test_rows_are_kept_by_their_count(tmp_path):
    """Catches: what was kept of a table that was cut short by a killed run."""
    made = []

    def make(row):
        made.append(row)
        return row * 2

    file = tmp_path / "rows.json"
    for _ in range(2):
        assert file_index.cached_per_row(file, "1", make, 3, "reading") == [0, 2, 4]
    assert sorted(made) == [0, 1, 2]
    assert file_index.cached_per_row(file, "1", make, 4, "reading") == [0, 2, 4, 6]
    assert file_index.cached_per_row(file, "2", make, 4, "reading") == [0, 2, 4, 6]
    assert len(made) == 3 + 4 + 4
