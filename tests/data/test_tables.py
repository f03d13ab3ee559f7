"""Pictures in Parquet files and in saved data sets of Hugging Face's library."""

import io
import sys

import numpy as np
import pytest
from picture_files import encoded, get, picture
from PIL import Image

from robustness.data import parquet
from robustness.errors import DataError, DataMissing, MissingLibrary

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CONTENT = [encoded(picture(i, (30, 30))) for i in range(6)]
LABELS = [0, 2, 1, 2, 0, 1]
LONG = "<i>|\n" + "x" * 300


def due(rows=range(6)):
    return np.stack([np.asarray(Image.open(io.BytesIO(CONTENT[row]))).transpose(2, 0, 1) for row in rows])


def write(file, **columns):
    """A Parquet file, by default of bytes and numbers."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": CONTENT, "label": LABELS} | columns), file, row_group_size=2)
    return file


def read(file, side="test", **table):
    named = {"file": f"./{file.name}"} if file.suffix == ".parquet" else {"folder": f"./{file.name}"}
    return get(file, side, name="parquet", **{"images": {}, **named, **table})


@pytest.mark.parametrize(
    "image",
    [
        pa.array(CONTENT),
        pa.array(CONTENT, pa.large_binary()),
        pa.array([{"bytes": each, "path": "x.png"} for each in CONTENT]),
    ],
    ids=["bytes", "large", "structures"],
)
def test_a_file_of_pictures(tmp_path, image):
    """Catches: rows in another order, or of another row group, than their labels."""
    file = write(tmp_path / "pets.parquet", image=image)
    for _ in range(2):  # unpacked, and found unpacked
        images = read(file)
        assert images.labels.tolist() == LABELS
        assert images.classes == ("0", "1", "2")
        assert np.array_equal(images.stored(0, 6), due())
        assert np.array_equal(images.select([4, 1], "some").stored(0, 2), due([4, 1]))


def test_the_same_pictures_have_one_fingerprint_wherever_they_lie(tmp_path):
    """Catches: a fingerprint of the file, which changes with a writer's version."""
    first = read(write(tmp_path / "first.parquet"))
    other = write(tmp_path / "other.parquet", image=pa.array([{"bytes": each, "path": None} for each in CONTENT]))
    assert read(other).fingerprint == first.fingerprint
    assert read(write(tmp_path / "third.parquet", label=LABELS[::-1])).fingerprint != first.fingerprint


def test_parts_are_told_by_the_names_of_files(tmp_path):
    """Catches: shards in another order than their numbers, a validation part that is trained on."""
    top = tmp_path / "pets"
    for name in ("train-00001-of-00002", "train-00000-of-00002", "validation-00000-of-00001"):
        there = slice(0, 2) if "00000-of-00002" in name else slice(2, 6) if "train" in name else slice(3, 5)
        write(top / "data" / f"{name}.parquet", image=CONTENT[there], label=LABELS[there])
    train, test = read(top, "train"), read(top)
    assert np.array_equal(train.stored(0, 6), due())
    assert (train.labels.tolist(), test.labels.tolist()) == (LABELS, LABELS[3:5])
    assert np.array_equal(test.stored(0, 2), due([3, 4]))


def test_columns_by_name_and_groups(tmp_path):
    file = write(tmp_path / "pets.parquet", photo=CONTENT[::-1], kind=[LONG, "a"] * 3, who=list("xxyyzz"))
    images = read(file, labels="kind", groups="who", images={"column": "photo"})
    assert images.classes == (LONG, "a")
    assert images.labels.tolist() == [0, 1] * 3
    assert images.groups.tolist() == list("xxyyzz")
    assert np.array_equal(images.stored(0, 1), due([5]))


def test_class_names_that_hugging_face_wrote(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x|", "<b>", "z"])})
    rows = {"image": [{"bytes": each, "path": None} for each in CONTENT], "label": LABELS}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "pets.parquet")
    assert read(tmp_path / "pets.parquet").classes == ("x|", "<b>", "z")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [float(each) for each in LABELS]}, "labels must be whole numbers or texts, got float; cast"),
        ({"label": [True, False] * 3}, "labels must be whole numbers or texts, got bool"),
        ({"label": [0, 1, None, 0, 1, 0]}, "every row must have a label, row 2 has none"),
        ({"label": [0, 1, -1, 0, 1, 0]}, "1 of 6 are negative, the first -1 at index 2, so their labels are missing"),
        ({"image": ["cat.png"] * 6}, r"'image' must contain pictures as bytes, or as {bytes, path}, got string"),
        ({"image": [*CONTENT[:5], None]}, "1 of 6 pictures cannot be used: row 5: the row has no picture's bytes"),
        ({"image": [b"torn", *CONTENT[1:]]}, "1 of 6 pictures cannot be used: row 0: it is not a complete picture"),
    ],
)
def test_columns_that_are_no_pictures_or_labels_are_refused(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "pets.parquet", **columns))


def test_columns_that_are_not_there_are_refused(tmp_path):
    file = write(tmp_path / "pets.parquet")
    with pytest.raises(DataError, match="`labels` must name a column, got 'kind'; there are 'image', 'label'"):
        read(file, labels="kind")
    with pytest.raises(DataError, match=r"`column` of \[data.images\] must name a column, got 'x'"):
        read(file, images={"column": "x"})
    pq.write_table(pa.table({"a": [1]}), tmp_path / "bare.parquet")
    with pytest.raises(DataError, match=r"`column` .* must name a column; there are 'a'"):
        read(tmp_path / "bare.parquet")


def test_what_is_no_parquet_file(tmp_path):
    file = write(tmp_path / "pets.parquet")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"pets\.parquet cannot be read as Parquet"):
        read(file)
    with pytest.raises(DataMissing, match=r"no \./gone\.parquet in"):
        read(tmp_path / "gone.parquet")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"must contain \.parquet files, it has none"):
        read(tmp_path / "none")
    write(tmp_path / "mixed" / "a.parquet")
    pq.write_table(pa.table({"image": CONTENT}), tmp_path / "mixed" / "b.parquet")
    with pytest.raises(DataError, match=r"cannot be read as Parquet|must name a column"):
        read(tmp_path / "mixed")


def test_a_long_file_is_unpacked_a_few_rows_at_a_time(tmp_path, monkeypatch):
    """Catches: a file that is read as a whole, which need not fit into memory."""
    content = [bytes([i]) * 500_000 for i in range(200)]  # 100 MB, compressed to little
    file = write(tmp_path / "long.parquet", image=content, label=[0, 1] * 100)
    pool = pa.default_memory_pool()
    before, most, real = pool.bytes_allocated(), [], parquet._bytes

    def measured(*given):
        most.append(pool.bytes_allocated() - before)
        return real(*given)

    monkeypatch.setattr(parquet, "_bytes", measured)
    with pytest.raises(DataError, match="200 of 200 pictures"):
        read(file)
    assert max(most) < 70e6


def labelled(tmp_path, name, labels):
    write(tmp_path / "pets" / f"{name}-00000-of-00001.parquet", image=CONTENT[: len(labels)], label=labels)


def test_a_part_whose_labels_are_withheld_names_another(tmp_path):
    """Catches: advice to name classes, where a hub keeps the labels of its test part to itself."""
    labelled(tmp_path, "train", [0, 1, 2])
    labelled(tmp_path, "validation", [1, 0, 1, 0])
    labelled(tmp_path, "test", [-1, -1])
    with pytest.raises(DataError, match=r'withheld: all 2 are negative.*; use another part: part = "validation" in'):
        read(tmp_path / "pets")
    images = read(tmp_path / "pets", part="validation")
    assert images.labels.tolist() == [1, 0, 1, 0]
    assert images.classes == ("0", "1", "2")  # of all parts: the model has an output for each


def test_texts_are_the_classes_of_all_parts(tmp_path):
    """Catches: another number for a class where the tested part lacks one that the training part has."""
    labelled(tmp_path, "train", ["ant", "bee", "cat"])
    labelled(tmp_path, "test", ["ant", "cat"])
    assert read(tmp_path / "pets").labels.tolist() == [0, 2]


# Saved data sets


@pytest.fixture
def saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cat"])})
    rows = {"img": [{"bytes": each, "path": None} for each in CONTENT], "label": LABELS}
    return datasets, datasets.Dataset.from_dict(rows, features), tmp_path / "saved"


def read_saved(top, side="test", **table):
    return get(top, side, name="huggingface", **{"images": {}, **table})


def test_a_saved_data_set(saved):
    """Catches: rows of the table instead of those selected, labels of other rows."""
    _, rows, top = saved
    rows.select([5, 0, 3]).save_to_disk(str(top))
    images = read_saved(top)
    assert images.classes == ("ant", "bee", "cat")
    assert images.labels.tolist() == [1, 0, 2]
    assert np.array_equal(images.stored(0, 3), due([5, 0, 3]))
    assert np.array_equal(images.stored(2, 3), due([3]))
    assert read_saved(top).fingerprint == images.fingerprint


def test_saved_parts(saved):
    """Catches: a part of another name, classes of the tested part alone."""
    datasets, rows, top = saved
    parts = {"train": rows.select(range(4)), "validation": rows.select([5]), "test": rows.select([4, 5])}
    datasets.DatasetDict(parts).save_to_disk(str(top))
    assert np.array_equal(read_saved(top, "train").stored(0, 4), due(range(4)))
    assert np.array_equal(read_saved(top).stored(0, 2), due([4, 5]))
    assert read_saved(top).name == "saved test"
    chosen = read_saved(top, part="validation")
    assert np.array_equal(chosen.stored(0, 1), due([5]))
    assert chosen.classes == ("ant", "bee", "cat")


def test_a_saved_set_is_that_of_the_library(saved):
    """Catches: bytes that are decoded otherwise than the library does."""
    _, rows, top = saved
    rows.save_to_disk(str(top))
    library = np.stack([np.asarray(row["img"].convert("RGB")).transpose(2, 0, 1) for row in rows])
    assert np.array_equal(read_saved(top).stored(0, 6), library)


def test_other_folders_and_parts_are_refused(saved):
    datasets, rows, top = saved
    top.mkdir()
    with pytest.raises(DataError, match="must be a folder written by `save_to_disk`"):
        read_saved(top)
    datasets.DatasetDict({"one": rows}).save_to_disk(str(top))
    with pytest.raises(DataError, match="must have a part train, test or validation, it has one"):
        read_saved(top)


def test_a_column_that_holds_no_pictures(saved):
    datasets, _, top = saved
    datasets.Dataset.from_dict({"image": ["a.png", "b.png"], "label": [0, 1]}).save_to_disk(str(top))
    with pytest.raises(DataError, match="'image' must contain pictures as bytes"):
        read_saved(top)


@pytest.mark.parametrize("name", ["parquet", "huggingface"])
def test_a_library_that_is_not_installed_names_the_extra(name, tmp_path, monkeypatch):
    write(tmp_path / "some" / "pets.parquet")
    for module in ("pyarrow", "pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingLibrary, match=rf'pip install "pytest-robustness\[{name}\]"'):
        get(tmp_path / "some", name=name)
