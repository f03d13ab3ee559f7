"""Data as people have them: their names for parts and arrays, their labels, their pictures; what is no image at all."""

import numpy as np
import pytest
import torch
from helpers import harness, project
from picture_files import encoded, folder, get, picture
from torch import nn

from robustness import cards
from robustness.cli.check import check_model
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


# Pictures


@pytest.mark.parametrize(("end", "form"), [("jfif", "jpeg"), ("JPE", "jpeg"), ("avif", "avif"), ("dib", "bmp")])
def test_pictures_of_every_usual_ending_are_read(tmp_path, end, form):
    from PIL import features

    if form == "avif" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    top = folder(tmp_path / "pets")
    (top / "cat" / f"2.{end}").write_bytes(encoded(picture(7), form))
    images = get(top)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.notes == ()


def test_files_that_are_passed_over_by_their_names_are_counted(tmp_path):
    """Catches: half of the pictures left out without a word."""
    top = folder(tmp_path / "pets")
    for i in range(3):
        (top / "cat" / f"bare{i}").write_bytes(encoded(picture(i)))
        (top / "dog" / f"{i}.HEIC").write_bytes(b"heic")
    (top / "dog" / "notes.txt").write_text("dogs")
    for litter in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
        (top / "dog" / litter).write_bytes(b"litter")
    images = get(top)
    assert len(images) == 5
    (note,) = images.notes
    assert note.startswith(
        "pets: 7 files were ignored because of their names: no suffix (3), .heic (3), .txt (1); pictures"
    )


def test_a_class_without_pictures_counts_as_a_class_and_is_said(tmp_path):
    """Catches: a class whose folder runs empty, which shifts the numbers of all that follow or cannot be tested."""
    top = folder(tmp_path / "pets", {"ant": [(30, 30)], "dog": [(30, 30)], "eel": [(30, 30)]})
    (top / "bee").mkdir()
    images = get(top)
    assert images.classes == ("ant", "bee", "dog", "eel")
    assert images.labels.tolist() == [0, 2, 3]
    assert images.notes == ("pets: 1 of 4 classes have no pictures, but count as classes: 'bee'",)
    for name in ("ant", "dog", "eel"):
        (top / name / "0.png").unlink()
    with pytest.raises(DataError, match="its folders of classes have no pictures"):
        get(top)


def test_a_part_of_a_folder_is_chosen(tmp_path):
    top = tmp_path / "pets"
    folder(top / "train")
    folder(top / "test", {"cat": [(30, 30)], "dog": [(30, 30)]})
    folder(top / "validation", {"cat": [(31, 30)], "dog": [(30, 31), (30, 30)]})
    assert (get(top).name, len(get(top))) == ("pets test", 2)
    spec = DataSpec.model_validate(
        {"name": "folder", "folder": "pets", "part": "validation", "images": {"size": [24, 24]}}
    )
    chosen = load(spec, "test", root=tmp_path, cache=tmp_path / "cache")
    assert (chosen.name, len(chosen)) == ("pets validation", 3)
    folder(top / "extra", {"cat": [(30, 30)], "dog": [(30, 30)]})
    with pytest.raises(DataError, match=r"only parts or only classes, but beside .* lies 'extra'; .*`part` = \"test\""):
        get(top)
    extra = load(spec.model_copy(update={"part": "extra"}), "test", root=tmp_path, cache=tmp_path / "cache")
    assert (extra.name, extra.classes) == ("pets extra", ("cat", "dog"))


def test_a_pointer_in_the_place_of_a_picture_is_called_so(tmp_path):
    top = folder(tmp_path / "pets")
    (top / "cat" / "0.png").write_bytes(POINTER)
    with pytest.raises(DataError, match=r"'cat/0\.png': it is a Git LFS pointer, .* git lfs pull"):
        get(top)


def test_pictures_that_are_there_twice_are_said(tmp_path):
    top = folder(tmp_path / "pets")
    (top / "cat" / "again.png").write_bytes((top / "cat" / "0.png").read_bytes())
    assert get(top).notes == ("pets: 1 of 6 pictures are duplicated, byte for byte: 'cat/again.png' as 'cat/0.png'",)


# Tables


def table(tmp_path, name, labels):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "pets").mkdir(exist_ok=True)
    rows = [{"bytes": encoded(picture(i, (24, 24))), "path": None} for i, _ in enumerate(labels)]
    pq.write_table(pa.table({"image": rows, "label": labels}), tmp_path / "pets" / f"{name}-00000-of-00001.parquet")


def parquet(tmp_path, **more):
    spec = DataSpec.model_validate({"name": "parquet", "folder": "pets", **more})
    return load(spec, "test", root=tmp_path, cache=tmp_path / "cache")


def test_a_part_whose_labels_are_withheld_names_another(tmp_path):
    """Catches: advice to name classes, where a hub keeps the labels of its test part to itself."""
    pytest.importorskip("pyarrow")
    table(tmp_path, "train", [0, 1, 2])
    table(tmp_path, "validation", [1, 0, 1, 0])
    table(tmp_path, "test", [-1, -1])
    with pytest.raises(DataError, match=r'withheld: all 2 are negative.*; use another part: part = "validation" in'):
        parquet(tmp_path)
    images = parquet(tmp_path, part="validation")
    assert images.labels.tolist() == [1, 0, 1, 0]
    assert images.classes == ("0", "1", "2")  # of all parts: the model has an output for each


def test_texts_are_the_classes_of_all_parts(tmp_path):
    """Catches: another number for a class where the tested part lacks one that the training part has."""
    pytest.importorskip("pyarrow")
    table(tmp_path, "train", ["ant", "bee", "cat"])
    table(tmp_path, "test", ["ant", "cat"])
    assert parquet(tmp_path).labels.tolist() == [0, 2]


@pytest.mark.parametrize("part", [None, "validation"])
def test_a_part_of_a_saved_data_set_is_chosen(tmp_path, part):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("pyarrow")

    def rows(labels):
        given = {"image": [{"bytes": encoded(picture(1, (24, 24))), "path": None} for _ in labels], "label": labels}
        return datasets.Dataset.from_dict(given)

    parts = {"train": rows([0, 1, 2]), "validation": rows([1, 0]), "test": rows([0, 1, 0])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "pets"))
    spec = DataSpec.model_validate({"name": "huggingface", "folder": "pets", "part": part})
    images = load(spec, "test", root=tmp_path, cache=tmp_path / "cache")
    assert images.labels.tolist() == ([0, 1, 0] if part is None else [1, 0])
    assert images.classes == ("0", "1", "2")


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


CARD = """
name = "tiny"

[model]
factory = "{module}:factory"
weights = "tiny.safetensors"

[data]
name = "array"
file = "./set.npz"
"""
SOURCE = """
from torch import nn

def factory():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
"""


def check(tmp_path, content):
    """Check a model on arrays, and give the lines by their names."""
    from safetensors.torch import save_file

    path = project(tmp_path / "project", SOURCE, CARD)
    torch.manual_seed(0)
    linear = nn.Linear(36, 3)
    save_file({f"1.{name}": value for name, value in linear.state_dict().items()}, path.parent / "tiny.safetensors")
    np.savez(path.parent / "set.npz", **content)
    lines, _ = check_model(harness(path), cards.load(path))
    return list(lines)


@pytest.mark.parametrize("pixels", [(PIXELS > 100).astype(np.uint8), (PIXELS / 255 / 255).astype(np.float32)])
def test_check_mends_dim_images_and_not_the_model(tmp_path, own_path, pixels):
    """Catches: a first layer that multiplies by 255, after which every ε is 255 times as large as it says."""
    lines = check(tmp_path, {"x": pixels, "y": LABELS})
    (line,) = [line for line in lines if line.strip().startswith("FIX   images: ")]
    assert "they use 1/255 of the range; 0/1 bytes, or divided by 255 twice?" in line
    mend = [line.split(":")[0].split("  ")[-1].strip() for line in lines if line.strip().startswith("FIX")]
    assert set(mend) <= {"images", "clean accuracy"}


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


def test_check_says_how_many_images_were_trained_on(tmp_path, own_path):
    content = {"test_x": PIXELS, "test_y": LABELS, "train_x": PIXELS[:5], "train_y": LABELS[:5]}
    lines = check(tmp_path, content)
    assert [line for line in lines if "FIX" in line and "5 of 12 test images are among the 5 of the training" in line]
    assert not [line for line in check(tmp_path / "alone", {"x": PIXELS, "y": LABELS}) if "trained" in line]


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
