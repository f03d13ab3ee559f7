"""Data as people have them: their names for parts and arrays, their labels, their pictures; what is no image at all."""

import numpy as np
import pytest
import torch
from torch import nn

from robustness.data import DataSpec, from_arrays, load
from robustness.doubts import data
from robustness.doubts.checks import run_checks
from robustness.errors import DataError
from robustness.sweep.batch import output_remedy

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (12, 6, 6), np.uint8)
LABELS = np.arange(12) % 3
PARTS = {"train": slice(0, 6), "val": slice(6, 9), "test": slice(9, 12)}


def arrays(tmp_path, content, side="test", **table):
    """What a card gets of an array file."""
    np.savez(tmp_path / "set.npz", **content)
    spec = DataSpec.model_validate({"name": "array", "file": "set.npz", **table})
    return load(spec, side, root=tmp_path, cache=tmp_path / "cache")


def split(images="{}_x", labels="{}_y", parts=PARTS, column=False):
    y = LABELS[:, None].astype(np.uint8) if column else LABELS
    found = {images.format(part): PIXELS[rows] for part, rows in parts.items()}
    return found | {labels.format(part): y[rows] for part, rows in parts.items()}


# Arrays


@pytest.mark.parametrize(
    "content",
    [
        split("{}_images", "{}_labels", column=True),
        split("x_{}", "y_{}"),
        split("X_{}", "y_{}", {part: PARTS[part] for part in ("train", "test")}),
        split("{}_data", "{}_targets"),
        split("{}_x", "{}_y", {"test": PARTS["test"], "train": PARTS["train"]}) | {"train_images": PIXELS},
    ],
    ids=["MedMNIST", "Keras", "scikit-learn", "targets", "ours before others"],
)
def test_arrays_are_known_by_the_names_that_others_give_them(tmp_path, content):
    """Catches: a column of labels refused, the validation part tested on, one name taken for another's array."""
    test, train = arrays(tmp_path, content), arrays(tmp_path, content, "train")
    assert np.array_equal(test.pixels, PIXELS[9:])
    assert test.labels.tolist() == [0, 1, 2]
    assert np.array_equal(train.pixels, PIXELS[:6])
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_part_is_chosen_by_its_name(tmp_path):
    content = split("{}_images", "{}_labels")
    assert np.array_equal(arrays(tmp_path, content, part="val").pixels, PIXELS[6:9])
    assert np.array_equal(arrays(tmp_path, content, part="train").pixels, PIXELS[:6])
    spec = DataSpec(name="array", file="set.npz", part="valid")
    with pytest.raises(DataError, match=r"`part` must be one of train, test, val, got 'valid'; did you mean 'val'"):
        load(spec, "test", root=tmp_path, cache=tmp_path / "cache")
    np.savez(tmp_path / "set.npz", x=PIXELS, y=LABELS)
    with pytest.raises(DataError, match="`part` must be left out for data without parts"):
        load(spec, "test", root=tmp_path, cache=tmp_path / "cache")


def test_two_arrays_that_could_be_the_images_are_refused(tmp_path):
    """Catches: the first of them taken in silence."""
    with pytest.raises(DataError, match=r"must hold test_x and test_y .* it holds test_data, test_images, test_labels"):
        arrays(tmp_path, content={"test_data": PIXELS, "test_images": PIXELS, "test_labels": LABELS})


ONE_HOT = np.eye(3)[LABELS]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (ONE_HOT, r"they are one-hot rows: use labels\.argmax\(axis=1\)"),
        (ONE_HOT.astype(bool), "they are one-hot rows"),
        (LABELS.astype(float), r"use labels\.astype\(np\.int64\)$"),
        (np.maximum(ONE_HOT, ONE_HOT[::-1]).astype(np.uint8), "several labels per image are not supported"),
        (np.zeros((12, 14), np.uint8), "several labels per image are not supported"),
        (np.full((12, 3), 1 / 3), "use one class number per image"),
        (LABELS + 0.5, "use one class number per image"),
        (np.where(LABELS == 2, -1, LABELS), "4 of 12 are negative, the first -1 at index 2, .* leave these images out"),
        (np.full(12, -1), "withheld: all 12 are negative, the first -1; use images with labels"),
    ],
    ids=["one-hot", "bool rows", "floats", "multi-label", "none", "shares", "halves", "some missing", "withheld"],
)
def test_labels_that_are_not_one_class_an_image_are_called_what_they_are(tmp_path, labels, said):
    """Catches: advice to take the argmax of several labels, or that names classes where labels are missing."""
    with pytest.raises(DataError, match=said) as caught:
        arrays(tmp_path, content={"x": PIXELS, "y": labels})
    assert ("argmax" in str(caught.value)) == ("one-hot" in said)


def test_labels_from_one_are_said(tmp_path):
    """Catches: one class too many, of which nobody says where it comes from."""
    images = arrays(tmp_path, content={"x": PIXELS, "y": LABELS + 1})
    assert images.notes == (
        "set: labels start at 1, so class 0 has no images; if they stand for 3 classes, use labels - 1",
    )
    assert "labels start at 1; use labels - 1" in output_remedy(torch.zeros(12, 3), 4, images)
    with pytest.raises(DataError, match=r"got 1\.\.3: labels start at 1; use labels - 1"):
        arrays(tmp_path, content={"x": PIXELS, "y": LABELS + 1, "classes": np.array(["a", "b", "c"])})
    assert arrays(tmp_path, content={"x": PIXELS, "y": LABELS}).notes == ()


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (PIXELS > 100, r"got bool; use pixels\.astype\(np\.float32\)"),
        ((PIXELS / 255).astype(np.float16), r"got float16; use pixels\.astype\(np\.float32\)"),
        (PIXELS.astype(np.uint16) * 257, r"got uint16; .*\(pixels / 65535\)\.astype\(np\.float32\)"),
        (PIXELS.astype(np.int64), r"got int64; use pixels\.astype\(np\.uint8\)"),
        ((PIXELS / 127.5 - 1).astype(np.float32), r"must lie in \[0, 1\].*normalisation, such as by \(pixels \+ 1\)"),
        (PIXELS.astype(np.float32), r"must lie in \[0, 1\].*divide by the largest possible value"),
    ],
    ids=["bool", "half", "16 bits", "integers", "from -1", "to 255"],
)  # fmt: skip
def test_pixels_of_another_kind_are_refused_with_a_repair_that_works(tmp_path, pixels, said):
    with pytest.raises(DataError, match=said):
        arrays(tmp_path, content={"x": pixels, "y": LABELS})


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("name", ["set.npz", "set.npz.xz", "set.parquet"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(POINTER, "a Git LFS pointer, .* git lfs pull"), (b"<!doctype html>", "an HTML page"), (b"", "it is empty")],
    ids=["pointer", "page", "empty"],
)
def test_what_lies_in_the_place_of_data_is_called_what_it_is(tmp_path, name, content, said):
    """Catches: a pointer called torn, with advice to write the file again."""
    (tmp_path / name).write_bytes(content)
    kind = "parquet" if name.endswith("parquet") else "array"
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=said):
        load(DataSpec(name=kind, file=name), "test", root=tmp_path, cache=tmp_path / "cache")


# What the images say themselves


@pytest.mark.parametrize(
    ("pixels", "dim"),
    [
        ((PIXELS > 100).astype(np.uint8), True),
        ((PIXELS / 255 / 255).astype(np.float32), True),
        (np.zeros_like(PIXELS), True),
        (PIXELS, False),
        (PIXELS // 64, False),
        ((PIXELS > 100) * np.uint8(255), False),
    ],
    ids=["0/1 bytes", "divided twice", "black", "sound", "dark", "black and white"],
)
def test_images_that_use_hardly_any_of_their_range_are_a_doubt(pixels, dim):
    """Catches: a model judged on images that it cannot see, and advice to change the model for that."""
    images = from_arrays(pixels, LABELS)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    found = run_checks(model, images, attacked=False)["dim images"]
    assert found["doubted"] is dim
    assert ("0/1 bytes, or divided by 255 twice?" in found["seen"]) == (dim and bool(pixels.any()))


def test_images_that_were_trained_on_are_counted():
    """Catches: a test part that lies in the training part too."""
    tested, trained = from_arrays(PIXELS[:8], LABELS[:8]), from_arrays(PIXELS[6:], LABELS[6:])

    def said(images, training):
        return data.check_leakage(images, lambda: training)["tested on training images"]

    assert said(tested, trained)["doubted"]
    assert said(tested, trained)["seen"].startswith("2 of 8 test images are among the 6 of the training part")
    assert not said(from_arrays(PIXELS[:6], LABELS[:6]), trained)["doubted"]
    one = said(from_arrays(PIXELS[:7], LABELS[:7]), trained)
    assert (one["doubted"], one["seen"][:11]) == (False, "1 of 7 test")
    with pytest.raises(data.NotChecked, match="1 of 3 are duplicates"):
        data.check_leakage(from_arrays(PIXELS[[0, 1, 0]], [0, 1, 0]), None)


@pytest.mark.parametrize("form", ["column", "row", "sigmoid"])
def test_one_number_an_image_for_two_classes_says_what_to_write(form):
    """What is written gives the very probabilities. Catches: advice that exchanges the classes or changes the odds."""
    odds = torch.tensor([-2.0, 0.5, 3.0])
    outputs = {"column": odds[:, None], "row": odds, "sigmoid": odds.sigmoid()[:, None]}[form]
    said = output_remedy(outputs, 2, from_arrays(PIXELS[:3], [0, 1, 0]))
    body = said.partition("around it: ")[2].partition("; better")[0]
    scope: dict = {"torch": torch, "outputs": outputs}
    exec(f"def forward(outputs):\n    {body}", scope)
    torch.testing.assert_close(scope["forward"](outputs).softmax(1)[:, 1], odds.sigmoid())


def test_classes_without_images_name_the_key_that_mends_it():
    said = output_remedy(torch.zeros(12, 5), 3, from_arrays(PIXELS, LABELS))
    assert "name the classes of all its outputs, in their order, as classes = [...] in the card's [model]" in said
