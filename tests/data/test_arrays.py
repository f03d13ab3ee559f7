"""Arrays from .npz files: unpacked once, mapped, never unpickled, never believed when torn."""

import io
import json
import lzma
import os
import pickle
import re
import resource
import zipfile

import numpy as np
import pytest
from filelock import FileLock
from helpers import LIMIT, start
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustness.data import DataSpec, load, npz_cache
from robustness.errors import DataError, DataMissing
from robustness.util import locks, source_files

RANDOM = np.random.default_rng(0)
SPLIT = {
    "train_x": RANDOM.integers(0, 256, (12, 5, 4, 3), np.uint8),
    "train_y": np.arange(12) % 3,
    "test_x": RANDOM.integers(0, 256, (6, 5, 4, 3), np.uint8),
    "test_y": np.arange(6) % 2,
    "train_track": (np.arange(12) // 3).astype(np.uint16),
}
UNSPLIT = {
    "x": RANDOM.integers(0, 256, (8, 6, 6), np.uint8),
    "y": np.arange(8, dtype=np.uint8) % 2,
    "classes": np.array(["closed", "open"]),
    "group": np.arange(8) // 2 // 2,
}


def write(file, arrays):
    """As NumPy writes it, or that in xz."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    content = buffer.getvalue()
    file.write_bytes(lzma.compress(content) if file.suffix == ".xz" else content)
    return file


def get(file, cache, part="test", progress=None, **spec):
    spec = DataSpec.model_validate({"name": "array", "file": file.name, **spec})
    return load(spec, part, root=file.parent, cache=cache, progress=progress)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(params=["set.npz", "set.npz.xz"])
def packed(request, tmp_path):
    return write(tmp_path / request.param, SPLIT)


def test_parts_of_a_split_file(packed, cache):
    for part, stem in (("train", "train"), ("test", "test")):
        images = get(packed, cache, part)
        assert images.name == f"set {part}"
        assert images.classes == ("0", "1", "2")  # of both parts, though test has labels 0 and 1 only
        assert np.array_equal(images.labels, SPLIT[f"{stem}_y"])
        expected = SPLIT[f"{stem}_x"].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        assert np.array_equal(images.batch(0, len(images)), expected)


def test_arrays_are_maps_and_unpacked_once(packed, cache):
    first = npz_cache.memory_mapped_arrays(packed, cache)
    assert isinstance(first["train_x"], np.memmap)
    assert {name: array.tolist() for name, array in first.items()} == {k: v.tolist() for k, v in SPLIT.items()}
    written = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}

    npz_cache.memory_mapped_arrays(packed, cache)

    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == written
    assert not list(cache.rglob("*archive*"))


def test_a_changed_file_under_the_same_name_is_another_set_and_a_compressed_one_the_same(tmp_path, cache):
    before = get(write(tmp_path / "set.npz", SPLIT), cache).fingerprint
    np.savez_compressed(tmp_path / "small.npz", **SPLIT)
    assert get(tmp_path / "small.npz", cache).fingerprint == before
    changed = write(tmp_path / "set.npz", SPLIT | {"test_x": 255 - SPLIT["test_x"]})
    assert get(changed, cache).fingerprint != before


def test_an_unsplit_grey_file(tmp_path, cache):
    file = write(tmp_path / "eyes.npz", UNSPLIT)
    split = {"kind": "balanced", "per_class": 1}
    train, test = (get(file, cache, part, split=split) for part in ("train", "test"))

    assert (train.name, test.name) == ("eyes train", "eyes test")
    assert test.classes == ("closed", "open")
    assert test.shape == (1, 6, 6)
    assert test.labels.tolist().count(0) == test.labels.tolist().count(1) == 1
    assert sorted([*train.rows, *test.rows]) == list(range(8))
    assert np.array_equal(test.batch(0, 1)[0, 0] * 255, UNSPLIT["x"][test.rows[0]])
    assert len(get(file, cache)) == 8  # found in one part, and not to be trained on
    with pytest.raises(
        DataError, match=r"`split` must be other than 'predefined' for eyes, .* use balanced, stratified"
    ):
        get(file, cache, "train")
    with pytest.raises(DataError, match="`pool` must be left out for eyes"):
        get(file, cache, pool="test", split=split)


@pytest.mark.parametrize("name", ["train_track", "track"])
def test_groups_divide_the_train_part(packed, cache, name):
    spec = {"groups": name, "split": {"kind": "kfold", "k": 2, "fold": 1}}
    train, test = (get(packed, cache, part, **spec) for part in ("train", "test"))

    assert test.name == "test side of set train"
    assert not set(train.groups) & set(test.groups)
    assert sorted([*train.rows, *test.rows]) == list(range(12))
    assert np.array_equal(test.groups, SPLIT["train_track"][test.rows])


def test_groups_that_do_not_cover_the_pool_are_refused(packed, cache):
    """Folds without groups would quietly tear them apart."""
    for of in ("test", "all"):
        with pytest.raises(DataError, match="`groups` must name an array that covers all of set"):
            get(packed, cache, groups="train_track", pool=of, split={"kind": "kfold", "k": 2, "fold": 0})
    with pytest.raises(DataError, match=r"`groups` must name an array of .* got 'train_person'; it holds test_x, "):
        get(packed, cache, groups="train_person", split={"kind": "kfold", "k": 2, "fold": 0})


def test_both_parts_joined(tmp_path, cache):
    file = write(tmp_path / "set.npz", SPLIT | {"test_track": np.arange(6) + 90})
    spec = {"pool": "all", "groups": "track", "split": {"kind": "group", "fraction": 0.5}}
    train, test = (get(file, cache, part, **spec) for part in ("train", "test"))

    assert len(train) + len(test) == 18
    assert test.name == "test side of set"
    assert max([*train.groups, *test.groups]) == 95
    both = np.concatenate([SPLIT["train_x"], SPLIT["test_x"]])[test.rows]
    assert np.array_equal(np.rint(test.batch(0, 18) * 255), both.transpose(0, 3, 1, 2))


def test_parts_that_do_not_join_are_refused(tmp_path, cache):
    file = write(tmp_path / "set.npz", SPLIT | {"test_x": SPLIT["test_x"] / 255})
    with pytest.raises(DataError, match="'all' needs parts of one type and shape, but set train is uint8"):
        get(file, cache, pool="all", split={"kind": "balanced", "per_class": 1})


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


def test_pickles_are_never_opened(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "set.npz", SPLIT | {"classes": np.array([Bomb(), "b", "c"], object)})
    with pytest.raises(DataError, match=r"set\.npz must be a complete .* array 'classes' contains Python objects"):
        get(file, cache)
    assert not (tmp_path / "unpickled").exists()
    assert not any((cache / "arrays").glob("*/"))


def test_what_is_no_archive_of_arrays_is_refused(tmp_path, cache):
    contents = {
        "empty.npz": b"",
        "text.npz": b"x,y\n1,2\n",
        "pickle.npz": pickle.dumps({"x": 1}),
        "text.npz.xz": b"x,y\n1,2\n",
        "notzip.npz.xz": lzma.compress(b"x,y\n1,2\n"),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} must be a complete .npz"):
            get(tmp_path / name, cache)
    for member in ("../x.npy", "folder/x.npy", "notes.txt", ".npy", "/x.npy"):
        with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
            archive.writestr(member, b"")
        with pytest.raises(DataError, match="which is no array"):
            get(tmp_path / "set.npz", cache)
    assert not list(tmp_path.rglob("x.npy"))
    assert not list((cache / "arrays").glob("*/"))


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_truncated_or_damaged_file_never_gives_wrong_images(data, packed, cache):
    """Cut or flipped anywhere: refused, or (in bytes that carry nothing) the same images."""
    whole = get(packed, cache).fingerprint
    content = packed.read_bytes()
    damaged = packed.with_name(f"damaged{''.join(packed.suffixes)}")
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        damaged.write_bytes(content[:place])
    else:
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
    try:
        found = get(damaged, cache).fingerprint
    except DataError as error:
        assert "damaged" in str(error)  # noqa: PT017
    else:
        assert found == whole
    assert not list((cache / "arrays").glob(".*"))


def turn_header(folder):
    content = (folder / "test_x.npy").read_bytes()
    (folder / "test_x.npy").write_bytes(content.replace(b"(6, 5, 4, 3)", b"(6, 4, 5, 3)"))


DAMAGE = {
    "index": lambda folder: (folder / "index.json").write_text("{"),
    "list": lambda folder: (folder / "index.json").write_text("[1]"),
    "size": lambda folder: os.truncate(folder / "test_x.npy", 300),
    "header": turn_header,
    "array": lambda folder: (folder / "test_y.npy").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_made_anew(packed, cache, damage):
    whole = get(packed, cache).fingerprint
    (folder,) = (cache / "arrays").glob("*/")
    damage(folder)

    assert get(packed, cache).fingerprint == whole
    assert [path.name for path in (cache / "arrays").glob("*/")] == [folder.name]
    index = json.loads((folder / "index.json").read_text())
    assert {name: entry["bytes"] for name, entry in index.items()} == {
        path.stem: path.stat().st_size for path in folder.glob("*.npy")
    }


def test_a_changed_byte_in_the_cache_is_unpacked_again(packed, cache):
    """Catches: other numbers for the same file, without a word, for a bit that a disk has lost."""
    whole = get(packed, cache).fingerprint
    (file,) = (cache / "arrays").glob("*/test_x.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    again = get(packed, cache)
    assert again.fingerprint == whole
    assert again.notes == (f"the store's copy of {packed.name} was damaged ({file.parent}); it was unpacked again",)
    assert get(packed, cache).notes == ()


WORK = """
import sys, os, resource
from pathlib import Path
from robustness.data import npz_cache
from robustness.errors import DataError
file, cache = map(Path, sys.argv[1:3])
"""


def test_two_processes_at_once(tmp_path, cache):
    large = RANDOM.integers(0, 256, (2000, 32, 32, 3), np.uint8)
    file = write(tmp_path / "large.npz", {"x": large, "y": np.zeros(2000, int)})
    code = "print(npz_cache.memory_mapped_arrays(file, cache)['x'].sum())"

    workers = [start(WORK + code, file, cache) for _ in range(3)]

    for worker in workers:
        out, err = worker.communicate(timeout=LIMIT)
        assert out.strip() == str(large.sum()), err
    assert len(list((cache / "arrays").glob("*/"))) == 1
    assert not list((cache / "arrays").glob(".*"))


def test_a_killed_unpacking_leaves_nothing_believed(packed, cache):
    """Killed in its last step but one; the next process removes what it left."""
    killed = start(
        WORK + "npz_cache.json.dumps = lambda *_, **__: os._exit(9); npz_cache.memory_mapped_arrays(file, cache)",
        packed,
        cache,
    )
    assert killed.wait(60) == 9
    killed.communicate()
    assert [path.name[0] for path in (cache / "arrays").glob("*/")] == ["."]

    assert np.array_equal(get(packed, cache).labels, SPLIT["test_y"])
    assert not list((cache / "arrays").glob(".*"))


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on file sizes here")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, cache):
    file = write(tmp_path / "large.npz.xz", {"x": np.zeros((3000, 32, 32), np.uint8), "y": np.zeros(3000, int)})
    worker = start(
        WORK + "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
        "try: npz_cache.memory_mapped_arrays(file, cache)\n"
        "except DataError as error: print(error)",
        file,
        cache,
    )
    out, err = worker.communicate(timeout=LIMIT)
    assert "large.npz.xz could not be unpacked to" in out, err
    assert "check the disk space" in out
    assert [path.suffix for path in (cache / "arrays").iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_said(packed, tmp_path):
    (tmp_path / "file").write_text("in the way")
    said = []
    found = get(packed, tmp_path / "file" / "cache", progress=said.append)
    assert len(found) == len(get(packed, tmp_path / "cache"))
    assert re.search(r"is unpacked for this run only, because .*file/cache cannot be written", said[0])


def test_what_takes_long_says_so(packed, cache, monkeypatch):
    said = []
    get(packed, cache, progress=said.append)
    assert said == []  # quick enough
    monkeypatch.setattr(npz_cache, "PATIENCE", 0)
    get(packed, cache.with_name("other"), progress=said.append)
    assert f"unpacking train_x.npy of {packed.name}, 0 MB" in said


def test_waiting_for_another_process_is_said(packed, cache, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    lock = cache / "arrays" / f"{source_files.sha256_file(packed)[:32]}.lock"
    lock.parent.mkdir(parents=True)
    said = []
    with FileLock(lock) as held:

        def say(text):
            said.append(text)
            held.release()

        get(packed, cache, progress=say)
    assert said[0] == f"waiting for another process that unpacks {packed.name}"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"must hold test_x and test_y \(train_x and train_y too, .* it holds no array"),
        ({"x": UNSPLIT["x"]}, r"to train on\), or x and y instead; it holds x"),
        (SPLIT | UNSPLIT, "or x and y instead; it holds classes, group"),
        (UNSPLIT | {"y": UNSPLIT["y"] + 0.5}, "set: `labels` must be integers"),
        (UNSPLIT | {"x": UNSPLIT["x"][:0], "y": UNSPLIT["y"][:0]}, "set: `pixels` must have at least one image"),
        (UNSPLIT | {"y": UNSPLIT["y"] + 1}, r"set: .* got 1\.\.2: labels start at 1; use labels - 1"),
        (UNSPLIT | {"x": UNSPLIT["x"] / 1.0}, r"set: `pixels` of type float64 must lie in \[0, 1\]"),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, cache, arrays, message):
    file = write(tmp_path / "set.npz", arrays)
    with pytest.raises(DataError, match=message):
        get(file, cache, split={"kind": "balanced", "per_class": 1})


def test_a_missing_file_is_missing_data(tmp_path, cache):
    with pytest.raises(DataMissing, match=r"no gone\.npz in .* does not exist"):
        get(tmp_path / "gone.npz", cache)


def test_other_labels_of_the_same_images(tmp_path, cache):
    """Catches: the names of the other labels' classes, labels of the other part, and classes of the usual ones."""
    other = {**SPLIT, "train_kind": np.arange(12) % 2, "test_kind": np.array([1, 1, 0, 0, 1, 0])}
    file = write(tmp_path / "hybrid.npz", {**other, "kind_classes": np.array(["real", "adversarial"])})
    images = get(file, cache, labels="kind")
    assert images.labels.tolist() == [1, 1, 0, 0, 1, 0]
    assert images.classes == ("real", "adversarial")
    assert get(file, cache, part="train", labels="kind").labels.tolist() == [0, 1] * 6
    assert get(file, cache).labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert get(file, cache, labels="train_kind").classes == ("real", "adversarial")
    assert get(file, cache, labels="kind").fingerprint != get(file, cache).fingerprint
    with pytest.raises(DataError, match=r"`labels` must name an array of .*hybrid.npz, got 'sort'; it holds kind_"):
        get(file, cache, labels="sort")
