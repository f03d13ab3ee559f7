"""A store as one file: the same on the other machine, nothing believed that was changed, nothing outside of it."""

import hashlib
import json
import zipfile

import pytest

from robustness.cli import main
from robustness.util.hashing import canonical_json
from robustness.workspace import archive as archives
from robustness.workspace.archive import ArchiveError
from robustness.workspace.store import Store


@pytest.fixture
def full(project):
    """The tiny project's store: three evidence, weights, and a finding; and the archive of it."""
    project.fill()
    store = Store(project.store)
    store.write_findings("ab" + "0" * 62, {"key": "ab" + "0" * 62, "label": "tiny:doubts", "result": {}})
    return store


@pytest.fixture
def archive(full, tmp_path):
    path = tmp_path / "store.zip"
    archives.export_store(full, path)
    return path


def contents(store):
    files = (path for path in store.root.rglob("*") if path.is_file() and "locks" not in path.parts)
    return {path.relative_to(store.root).as_posix(): path.read_bytes() for path in files}


def rewritten(archive, change, *, honest=False):
    """Write the archive again with other members; ``honest``: with a manifest that fits them."""
    with zipfile.ZipFile(archive) as found:
        members = {name: found.read(name) for name in found.namelist()}
    change(members)
    if honest:
        files = [
            {"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in members.items() if name != archives.MANIFEST
        ]  # fmt: skip
        members[archives.MANIFEST] = canonical_json({"format": archives.FORMAT, "files": files})
    with zipfile.ZipFile(archive, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)


def test_there_and_back(full, archive, tmp_path, capsys):
    """Catches: a kind that is forgotten, bytes that differ, entries that an import doubles or writes again."""
    other = Store(tmp_path / "other")
    assert main.main(["evidence", "import", str(archive), "--store", str(other.root)]) == 0
    size = sum(map(len, contents(full).values()))
    assert f"imported 5 entries (3 evidence, 1 findings, 1 weights), {size:,} bytes" in capsys.readouterr().out
    assert contents(other) == contents(full)
    before = {path: path.stat().st_mtime_ns for path in other.root.rglob("*") if path.is_file()}
    again = archives.import_store(other, archive)
    assert (again.there, again.entries.total(), again.left) == (5, 0, [])
    assert before == {path: path.stat().st_mtime_ns for path in other.root.rglob("*") if path.is_file()}


def test_equal_stores_make_equal_archives(full, archive, tmp_path):
    """Catches: dates in the file, by which a cache would be new each time."""
    archives.import_store(Store(tmp_path / "other"), archive)
    archives.export_store(Store(tmp_path / "other"), tmp_path / "again.zip")
    assert archive.read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_a_run_elsewhere_finds_what_was_brought(project, archive, tmp_path):
    """Catches: evidence that is carried and then not believed, and made anew all the same."""
    archives.import_store(Store(tmp_path / "new"), archive)
    run = project.run("suites", f"--robustness-store={tmp_path / 'new'}")
    assert (run.ret, project.logged("passes"), project.logged("trainings")) == (0, [], [])


def test_models_by_name(full, tmp_path):
    """Catches: everything exported whatever was named; a mistyped name that gives an empty archive."""
    told = archives.export_store(full, tmp_path / "tiny.zip", ["tiny"])
    assert told.entries == {"evidence": 3, "findings": 1, "weights": 1}
    with pytest.raises(ArchiveError, match=r"has nothing of tinny; it has something of: tiny"):
        archives.export_store(full, tmp_path / "no.zip", ["tiny", "tinny"])
    with pytest.raises(ArchiveError, match="has nothing to export"):
        archives.export_store(Store(tmp_path / "empty"), tmp_path / "no.zip")
    assert not (tmp_path / "no.zip").exists()


def test_what_is_torn_stays_and_is_told(full, tmp_path):
    """Catches: a torn entry that is carried, or one that keeps the others from it."""
    path = next((full.root / "evidence").glob("??/*"))
    path.write_bytes(path.read_bytes()[:-9])
    told = archives.export_store(full, tmp_path / "store.zip")
    assert told.entries["evidence"] == 2
    assert [said.partition(":")[0] for said in told.left] == [str(path)]


ELSEWHERE = ["../../outside.json", "/tmp/outside.json", "evidence/../../outside.json", "evidence\\ab\\x.safetensors"]
ELSEWHERE += ["locks/ab/" + "ab" * 32 + ".json", "evidence/cd/" + "ab" * 32 + ".safetensors", "Evidence/ab/x.json"]
ELSEWHERE += ["evidence/ab/" + "ab" * 32 + ".json", "findings/ab/" + "ab" * 32 + ".json/"]


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("honest", [True, False])
def test_no_member_lies_elsewhere(archive, tmp_path, name, honest):
    """Catches: a file written outside of the store, or over its locks, whether the manifest names it or not."""
    rewritten(archive, lambda members: members.update({name: b"{}"}), honest=honest)
    refused(archive, tmp_path)


def refused(archive, tmp_path, match="nothing was imported"):
    """Hold the import to: an error, an empty store, and nothing beside it."""
    other, beside = tmp_path / "far" / "store", {path for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ArchiveError, match=match):
        archives.import_store(Store(other), archive)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == beside


def first(members, kind):
    return next(name for name in members if name.startswith(kind))


@pytest.mark.parametrize("kind", ["evidence", "weights", "findings"])
def test_a_changed_member_is_refused(archive, tmp_path, kind):
    """Catches: a member that does not fit the manifest, and one that does and belies its own checksum."""

    def flip(members):
        name = first(members, kind)
        members[name] = members[name][:-3] + bytes([members[name][-3] ^ 1]) + members[name][-2:]

    rewritten(archive, flip)
    refused(archive, tmp_path, "is not what its manifest says")
    rewritten(archive, lambda members: None, honest=True)
    refused(archive, tmp_path, r"(checksum|torn|foreign).*nothing was imported")


def test_members_that_are_missing_doubled_longer_or_of_another_key(archive, tmp_path):
    """Catches: an import of part of an archive; evidence that answers for another model."""
    whole = archive.read_bytes()
    rewritten(archive, lambda members: members.pop(first(members, "evidence")))
    refused(archive, tmp_path, "other members than its manifest says")
    archive.write_bytes(whole)
    rewritten(archive, lambda members: members.update({first(members, "findings"): b" " * 10_000}))
    refused(archive, tmp_path, "is not what its manifest says")
    archive.write_bytes(whole)
    moved = "evidence/cd/" + "cd" * 32 + ".safetensors"
    rewritten(archive, lambda members: members.update({moved: members[first(members, "evidence")]}), honest=True)
    refused(archive, tmp_path, "another key")


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive at all", None])
def test_files_that_are_no_archive(archive, tmp_path, content, capsys):
    """Catches: a traceback for a torn download."""
    archive.write_bytes(archive.read_bytes()[:-50] if content is None else content)
    assert main.main(["evidence", "import", str(archive), "--store", str(tmp_path / "other")]) == 2
    assert "could not be imported" in capsys.readouterr().err
    assert main.main(["evidence", "import", str(tmp_path / "gone.zip"), "--store", str(tmp_path / "other")]) == 2
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr(archives.MANIFEST, json.dumps({"format": "other/1"}))
    refused(archive, tmp_path, "not an archive of `robustness evidence export`")


def test_a_torn_entry_of_the_store_is_replaced(full, archive):
    """Catches: damage that stays because something lies there already."""
    path = next((full.root / "evidence").glob("??/*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    told = archives.import_store(full, archive)
    assert (path.read_bytes(), told.there, told.entries.total()) == (whole, 4, 1)
