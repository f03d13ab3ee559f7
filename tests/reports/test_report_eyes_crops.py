"""Crops in folders and in lists of records, as an array file that a card can name."""

import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from reports.eyes_parseval import crops
from robustness import data
from robustness.data.spec import DataSpec
from robustness.errors import DataError


def pictures(folder, counts, size=8):
    """Folders of grey PNGs, each of one shade of its own, in an order that is not that of their names."""
    shade = 0
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in reversed(range(count)):
            shade += 1
            Image.new("L", (size, size), shade).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def eyes(tmp_path):
    return pictures(tmp_path / "eyes", {"open": 3, "closed": 2})


def test_a_folder_becomes_an_array_file_that_a_card_can_name(eyes, tmp_path, capsys):
    subjects = tmp_path / "subjects.csv"
    people = {"open/0.png": "b", "open/1.png": "a", "open/2.png": "a", "closed/0.png": "b", "closed/1.png": "c"}
    subjects.write_text("".join(f"{name},{person}\n" for name, person in people.items()))
    target = tmp_path / "eyes.npz"
    assert crops.main([str(eyes), str(target), "--size", "4", "--subjects", str(subjects)]) == 0
    assert "5 crops of 3 persons: 2 closed, 3 open" in capsys.readouterr().out
    held = np.load(target)
    assert held["x"].shape == (5, 4, 4)
    assert held["classes"].tolist() == ["closed", "open"]
    assert held["y"].tolist() == [0, 0, 1, 1, 1]
    assert held["x"][:, 0, 0].tolist() == [5, 4, 3, 2, 1], "each image with its own label and person"
    assert held["subject"].tolist() == [1, 2, 1, 0, 0]
    split = {"kind": "group", "fraction": 0.4}
    spec = DataSpec.model_validate(
        {"name": "array", "file": "eyes.npz", "groups": "subject", "pool": "all", "split": split}
    )
    with pytest.raises(DataError, match="stratified by class"):  # three persons are too few
        data.load(spec, "test", root=tmp_path, cache=tmp_path / "cache")


def save(file, rows):
    """Write records as a pickle, or as an array file that holds one."""
    if file.suffix == ".pkl":
        file.write_bytes(pickle.dumps(rows))
    else:
        np.save(file, np.array(rows, dtype=object), allow_pickle=True)


def records(as_mapping):
    drawn = np.random.default_rng(0)
    rows = [(drawn.normal(size=(8, 8)), label, person) for label, person in (("open", 7), ("closed", 7), ("open", 9))]
    return [dict(zip(("crop", "label", "person"), row, strict=True)) for row in rows] if as_mapping else rows


@pytest.mark.parametrize("as_mapping", [False, True])
@pytest.mark.parametrize("form", ["npy", "pkl"])
def test_records_keep_what_a_standardising_model_sees(as_mapping, form, tmp_path):
    """Catches: one range for all crops, labels or persons of another row."""
    rows, file = records(as_mapping), tmp_path / f"records.{form}"
    save(file, rows)
    held = crops.from_records(file, 8)
    assert held["classes"].tolist() == ["closed", "open"]
    assert held["y"].tolist() == [1, 0, 1]
    assert held["subject"].tolist() == [0, 0, 1]
    for found, (crop, _, _) in zip(held["x"].astype(float), records(False), strict=True):
        due = (crop - crop.mean()) / crop.std()
        assert np.allclose((found - found.mean()) / found.std(), due, atol=0.02)


class Runs:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("form", ["npy", "pkl"])
def test_a_pickle_that_would_run_code_is_refused(form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"evil.{form}"
    save(file, [Runs()])
    with pytest.raises(
        DataError, match=r"cannot be read as a list of records: it asks for \w+\.system, which could run"
    ):
        crops.from_records(file, 8)
    assert not (tmp_path / "ran").exists()


def empty_class(folder):
    (folder / "squinting").mkdir()


def torn_image(folder):
    (folder / "open" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")


def one_class(folder):
    shutil.rmtree(folder / "closed")


def persons(text):
    return lambda folder: (folder.parent / "subjects.csv").write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (empty_class, r"squinting holds no image"),
        (torn_image, r"open/1.png cannot be read as an image"),
        (one_class, "a folder for each of two classes or more, it holds 1"),
        (persons("open/0.png,a\n"), "4 are missing: closed/0.png"),
        (persons("open/0.png,a\nopen/0.png,b\n"), "names two persons for open/0.png: a and b"),
        (persons("open/0.png\n"), "must have two columns, image and person"),
    ],
)
def test_a_folder_that_is_not_clear_writes_nothing(eyes, tmp_path, change, message):
    """Catches: an error that does not name the folder, image or person; a file of what could be read."""
    change(eyes)
    subjects = tmp_path / "subjects.csv"
    with pytest.raises(DataError, match=message):
        crops.write(eyes, tmp_path / "eyes.npz", 8, subjects if subjects.exists() else None)
    assert not list(tmp_path.glob("*eyes.npz*"))


def test_what_is_there_is_not_overwritten(eyes, tmp_path):
    target = tmp_path / "eyes.npz"
    target.write_bytes(b"mine")
    with pytest.raises(DataError, match="exists already"):
        crops.write(eyes, target, 8)
    assert target.read_bytes() == b"mine"
    with pytest.raises(DataError, match=r"must end in .npz, as a card's file does, got .*eyes.npy"):
        crops.write(eyes, tmp_path / "eyes.npy", 8)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "it is empty"),
        ({"crop": 1}, "it is a dict"),
        ([(np.zeros((8, 8)), 1)], "record 0 must be of crop, label and person"),
        ([(np.zeros((8, 8)), 1, 1), (np.zeros((8, 8, 3)), 1, 1)], "record 1 must be grey"),
        ([(np.full((8, 8), np.nan), 1, 1)], "record 0 must be grey, of finite numbers"),
    ],
)
def test_records_that_are_none(rows, said, tmp_path):
    file = tmp_path / "records.pkl"
    save(file, rows)
    with pytest.raises(DataError, match=said):
        crops.from_records(file, 8)


def test_folders_in_a_class_s_folder_are_of_that_class_and_without_persons_there_is_no_subject(eyes):
    """Catches: the folder that an image lies in taken for its class."""
    (eyes / "open" / "left").mkdir()
    Image.new("L", (8, 8), 9).save(eyes / "open" / "left" / "a.png")
    arrays = crops.from_folder(eyes, 8)
    assert arrays["y"].tolist() == [0, 0, 1, 1, 1, 1]
    assert sorted(arrays) == ["classes", "x", "y"]
