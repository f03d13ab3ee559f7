"""Data sets by name: digits, MNIST, and the real arrays where there are some."""

import gzip
import hashlib
import os
from pathlib import Path

import helpers
import numpy as np
import pytest
from pydantic import ValidationError

from robustness.data import DataSpec, digits, load, mnist
from robustness.errors import DataError, DataMissing

NOWHERE = Path("/nonexistent")
BALANCED = {"kind": "balanced", "per_class": 30}


def get(part="test", root=NOWHERE, cache=NOWHERE, **spec):
    return load(DataSpec.model_validate(spec), part, root=root, cache=cache)


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """The folder of the real data sets, and a cache for the session."""
    root = os.environ.get("ROBUSTNESS_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("no real data sets: ROBUSTNESS_DATA names no folder")
    return Path(root), tmp_path_factory.mktemp("cache")


def from_real(real, file, part="test", **spec):
    root, cache = real
    if not (root / file).exists():
        pytest.skip(f"{file} is not in ROBUSTNESS_DATA")
    named = {"name": "mnist"} if file == "MNIST" else {"name": "array", "file": file}
    return get(part, root, cache, **named, **spec)


# Digits


def test_digits_are_those_of_scikit_learn_enlarged_as_torch_does():
    import torch
    from sklearn.datasets import load_digits

    scikit, images = load_digits(), digits.parts()["all"]
    small = torch.from_numpy(scikit.images)[:, None]
    large = torch.nn.functional.interpolate(small, (28, 28), mode="bilinear", align_corners=True)[:, 0].numpy()
    large = large * 255 / 16
    assert np.array_equal(images.labels, scikit.target)
    assert images.pixels.dtype == np.uint8
    assert np.abs(images.pixels - large).max() <= 0.5 + 1e-9
    clear = np.abs(large % 1 - 0.5) > 1e-9  # halves aside, the very same
    assert np.array_equal(images.pixels[clear], np.rint(large)[clear])


def test_digits_have_these_bits_on_every_machine():
    assert digits.parts()["all"].fingerprint == "039be3310e02db327c81f924882da230294c313b08f67fa6e2f045a2d8ea4bcd"


def test_digits_in_halves():
    train, test = get("train", name="digits", split=BALANCED), get("test", name="digits", split=BALANCED)
    assert (len(train), len(test)) == (1497, 300)
    assert (train.name, test.name) == ("digits train", "digits test")
    assert np.bincount(test.labels).tolist() == [30] * 10
    assert test.batch(0, 300).shape == (300, 1, 28, 28)
    assert DataSpec(name="digits").embedded
    assert not DataSpec(name="mnist").embedded
    with pytest.raises(DataError, match=r"`split` must be other than 'predefined' for digits.* use balanced"):
        get(name="digits")
    with pytest.raises(DataError, match="`pool` must be left out for digits"):
        get(name="digits", pool="test", split=BALANCED)
    with pytest.raises(DataError, match="`part` must be 'train' or 'test', got 'all'"):
        get("all", name="digits", split=BALANCED)


def test_digits_load_nothing_heavy():
    code = (
        "import sys; from pathlib import Path; from robustness.data import DataSpec, load\n"
        "spec = DataSpec.model_validate({'name': 'digits', 'split': {'kind': 'balanced', 'per_class': 30}})\n"
        "load(spec, 'test', root=Path('.'), cache=Path('.')).fingerprint\n"
        "print(sorted({'torch', 'torchvision', 'sklearn', 'scipy', 'PIL', 'pytest'} & sys.modules.keys()))"
    )
    assert helpers.run(code).strip() == "[]"


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataMissing, match=r"scikit-learn, which ships them.* get it with: pip install scikit-learn"):
        digits.parts()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0,1,2", "must be the gzipped table"),
        (gzip.compress(b"0,one,2\n"), "must be the gzipped table"),
        (gzip.compress(b"0,1,2\n" * 1797)[:-4], "must be the gzipped table"),
        (gzip.compress(b"0,1,2\n" * 1797), r"must hold 1797 rows of 65 numbers, got the shape \(1797, 3\)"),
        (gzip.compress(b",".join([b"3"] * 65) + b"\n"), "must hold 1797 rows of 65"),
        (gzip.compress((b",".join([b"17"] * 65) + b"\n") * 1797), "must hold values from 0 to 16, got 17 to 17"),
        (gzip.compress((b",".join([b"-1"] * 65) + b"\n") * 1797), "must hold values from 0 to 16, got -1 to -1"),
    ],
    # gzip writes the time: names of tests made of it would differ between xdist's workers.
    ids=["no gzip", "words", "torn", "narrow", "one row", "too large", "negative"],
)
def test_a_damaged_table_of_digits_is_refused(tmp_path, content, message):
    file = tmp_path / "digits.csv.gz"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        digits.read(file)


# MNIST


def idx(array):
    header = [0x800 + array.ndim, *array.shape]
    return np.array(header, ">u4").tobytes() + array.tobytes()


PIXELS = np.random.default_rng(1).integers(0, 256, (7, 28, 28), np.uint8)
LABELS = np.array([5, 0, 5, 9, 0, 9, 0], np.uint8)


@pytest.fixture
def tiny(tmp_path):
    """Five and two images in the layout of MNIST."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for stem, rows in (("train", slice(5)), ("t10k", slice(5, 7))):
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx(PIXELS[rows]))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx(LABELS[rows]))
    return tmp_path


def as_torchvision_reads(root, train):
    from robustness.util.torchvision_compat import datasets

    return datasets.MNIST(str(root), train=train)


@pytest.mark.parametrize("part", ["train", "test"])
def test_mnist_is_what_torchvision_reads(tiny, part):
    images, expected = get(part, tiny, name="mnist"), as_torchvision_reads(tiny, part == "train")
    assert images.name == f"mnist {part}"
    assert np.array_equal(images.pixels, expected.data.numpy())
    assert np.array_equal(images.labels, expected.targets.numpy())


def test_real_mnist_is_what_torchvision_reads(real):
    images, expected = from_real(real, "MNIST"), as_torchvision_reads(real[0], False)
    assert images.shape == (1, 28, 28)
    assert np.array_equal(images.pixels, expected.data.numpy())
    assert np.array_equal(images.labels, expected.targets.numpy())
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(from_real(real, "MNIST", "train").labels).tolist() == counts
    mnist.download(real[0], lambda text: None, fetch=None)  # the published sums, nothing fetched


def test_mnist_joined_and_held_out(tiny):
    spec = {"name": "mnist", "pool": "all", "split": {"kind": "stratified", "fraction": 0.5}}
    train, test = get("train", tiny, **spec), get("test", tiny, **spec)
    assert (train.name, test.name) == ("train side of mnist", "test side of mnist")
    for images in (train, test):
        assert np.array_equal(images.labels, LABELS[images.rows])
        assert np.array_equal(np.rint(images.batch(0, 7) * 255)[:, 0], PIXELS[images.rows])
    assert sorted([*train.rows, *test.rows]) == list(range(7))


def test_a_fold_that_is_tested_on_the_official_part(tiny):
    """Catches: training on more than the fold's side, testing on the side that was left out."""
    split = {"kind": "balanced", "per_class": 1}
    spec = {"name": "mnist", "split": split, "test": "official"}
    ys = np.array([0, 0, 5, 5, 5], np.uint8)
    (tiny / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(idx(ys))
    official, fold = get("test", tiny, **spec), get("train", tiny, **spec)
    assert official.fingerprint == get("test", tiny, name="mnist").fingerprint
    assert fold.fingerprint == get("train", tiny, name="mnist", split=split).fingerprint


def test_some_of_the_test_images(tiny):
    few = get("test", tiny, name="mnist", num_test_images=2)
    assert (few.name, len(few)) == ("2 of mnist test", 2)
    assert len(get("train", tiny, name="mnist", num_test_images=2)) == 5
    for wrong in (1, 3):
        with pytest.raises(DataError, match=rf"`num_test_images` must allow one image per class \(2\) .* got {wrong}"):
            get("test", tiny, name="mnist", num_test_images=wrong)


def test_missing_mnist_names_the_command(tiny):
    with pytest.raises(DataMissing) as error:
        get(root=Path("/some where"), name="mnist")
    assert error.value.command == "robustness data mnist --root '/some where'"
    (tiny / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataMissing, match="t10k-labels-idx1-ubyte does not exist; get it with: robustness data mnist"):
        get("train", tiny, name="mnist")


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("t10k-images-idx3-ubyte", lambda content: content[:-1], r"must have 1584 bytes .* \(2, 28, 28\), it has 1583"),
        ("t10k-images-idx3-ubyte", lambda content: content + b"0", "must have 1584 bytes .* it has 1585"),
        ("t10k-images-idx3-ubyte", lambda content: content[:10], "must start with 16 bytes of header, it has 10"),
        ("t10k-labels-idx1-ubyte", lambda content: content[:8], "must have 10 bytes .* it has 8"),
        ("t10k-labels-idx1-ubyte", gzip.compress, "must start with the magic number 2049, it has"),
        (
            "t10k-images-idx3-ubyte",
            lambda content: idx(LABELS) * 4,
            "must start with the magic number 2051, it has 2049",
        ),
        (
            "t10k-labels-idx1-ubyte",
            lambda content: idx(LABELS),
            "mnist test: `labels` must have one entry per image",
        ),
        ("t10k-labels-idx1-ubyte", lambda content: idx(LABELS[:2] + 9), "mnist test: `labels` must lie in 0..9"),
    ],
)
def test_damaged_mnist_is_refused(tiny, file, damage, message):
    path = tiny / "MNIST" / "raw" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        get("test", tiny, name="mnist")


@pytest.fixture
def published(tiny, monkeypatch):
    """A source whose four tiny files are the published ones."""
    source = mnist.folder(tiny)
    sums = {file: hashlib.sha256((source / file).read_bytes()).hexdigest() for file in mnist.SUMS}
    monkeypatch.setattr(mnist, "SUMS", sums)

    def fetch(target):
        mnist.folder(target).mkdir(parents=True)
        for file in sums:
            (mnist.folder(target) / file).write_bytes((source / file).read_bytes())

    return fetch


def test_download_brings_what_is_missing(published, tmp_path):
    root, said = tmp_path / "new", []
    mnist.download(root, said.append, fetch=published)
    assert len(get("train", root, name="mnist")) == 5
    assert list(root.iterdir()) == [root / "MNIST"]

    mnist.download(root, said.append, fetch=None)  # would ask the network
    assert said[0].startswith(f"downloaded MNIST to {root}: train-images-idx3-ubyte, ")
    assert said[1].startswith(f"MNIST is already in {root}")


def test_download_fetches_the_rest(published, tiny):
    (mnist.folder(tiny) / "t10k-labels-idx1-ubyte").rename(tiny / "aside")
    said = []

    def fetch(target):
        (tiny / "aside").rename(mnist.folder(tiny) / "t10k-labels-idx1-ubyte")
        published(target)

    mnist.download(tiny, said.append, fetch=fetch)
    assert said == [f"downloaded MNIST to {tiny}: t10k-labels-idx1-ubyte; SHA-256 as published"]


def test_download_touches_no_file_that_is_there(published, tiny):
    file = mnist.folder(tiny) / "train-labels-idx1-ubyte"
    file.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte must have the SHA-256 .* remove it"):
        mnist.download(tiny, pytest.fail, fetch=pytest.fail)
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"an error page", "t10k-labels-idx1-ubyte must have the SHA-256"),
        (None, r"MNIST could not be downloaded to .*new: Error downloading train-images"),
    ],
    ids=["wrong", "no network"],
)
def test_a_wrong_download_is_not_moved_in(published, tmp_path, content, message):
    """Catches: a damaged file believed for ever after, one left half-way, a traceback of the network."""

    def fetch(target):
        if content is None:
            raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")
        published(target)
        (mnist.folder(target) / "t10k-labels-idx1-ubyte").write_bytes(content)

    with pytest.raises(DataError, match=message):
        mnist.download(tmp_path / "new", pytest.fail, fetch=fetch)
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert not list((tmp_path / "new").glob(".*"))


def test_download_asks_torchvision(published, tmp_path, monkeypatch):
    from robustness.util.torchvision_compat import datasets

    monkeypatch.setattr(datasets.MNIST, "download", lambda self: published(Path(self.root)))
    mnist.download(tmp_path / "new", lambda text: None)
    assert len(get("test", tmp_path / "new", name="mnist")) == 2


# What a card may say


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"name": "minst"},
            "`name` must be one of digits, mnist, array, folder, .*, got 'minst'; did you mean 'mnist'",
        ),
        ({"name": "mnist", "spilt": {}}, "Extra inputs are not permitted"),
        ({"name": "array"}, "`file` must be given for 'array'"),
        ({"name": "mnist", "file": "a.npz"}, "`file` must be left out for 'mnist'"),
        ({"name": "digits", "groups": "g", "images": {}}, "`groups` and `images` must be left out for 'digits'"),
        ({"name": "array", "file": "/data/a.npz"}, "relative to the data root, .* got '/data/a.npz'"),
        ({"name": "array", "file": "../a.npz"}, "relative to the data root, .* got"),
        ({"name": "array", "file": "a.csv"}, "`file` must be an .npz or .npz.xz file"),
        ({"name": "mnist", "pool": "all"}, "`pool` must be left out if the split is 'predefined'"),
        ({"name": "mnist", "pool": "both"}, "'train', 'test' or 'all'"),
        ({"name": "mnist", "split": {"kind": "random"}}, "does not match any of the expected tags"),
        ({"name": "mnist", "split": {"kind": "balanced"}}, r"split.balanced.per_class\n  Field required"),
        ({"name": "mnist", "split": {"kind": "balanced", "per_class": "9"}}, "valid integer"),
        ({"name": "mnist", "split": {"kind": "balanced", "per_class": 0}}, "greater than or equal to 1"),
        ({"name": "mnist", "split": {"kind": "stratified", "fraction": 20.0}}, "less than 1"),
        ({"name": "mnist", "split": {"kind": "stratified", "fraction": 0.2, "seed": -1}}, "greater than or equal to 0"),
        ({"name": "mnist", "split": {"kind": "kfold", "k": 5, "fold": 5}}, "`fold` must lie in 0..4 for `k`=5, got 5"),
        ({"name": "mnist", "test": "official"}, "`test` = 'official' needs a split of the training part"),
        ({"name": "mnist", "split": {"kind": "group", "fraction": 0.2}}, "`groups` must name the array"),
        (
            {"name": "array", "file": "a.npz", "groups": "g", "split": {"kind": "stratified", "fraction": 0.2}},
            "'stratified', which separates them",
        ),
        ({"name": "folder"}, "`folder` must be given for 'folder'"),
        ({"name": "folder", "folder": "../pets"}, "relative to the data root, .* got '../pets'"),
        ({"name": "folder", "folder": "/pets"}, "relative to the data root"),
        ({"name": "folder", "folder": ""}, "relative to the data root"),
        ({"name": "folder", "folder": "x\0"}, "relative to the data root"),
        ({"name": "folder", "folder": "pets", "file": "x.npz"}, "`file` must be left out for 'folder'"),
        ({"name": "folder", "folder": "pets", "groups": "g"}, "`groups` must be left out for 'folder'"),
        ({"name": "folder", "folder": "pets", "images": {"size": [0, 4]}}, "greater than or equal to 1"),
        ({"name": "folder", "folder": "pets", "images": {"size": 224}}, "valid tuple"),
        ({"name": "folder", "folder": "pets", "images": {"size": ["4", "4"]}}, "valid integer"),
        ({"name": "folder", "folder": "pets", "images": {"resize": 10**9}}, "less than or equal to"),
        (
            {"name": "folder", "folder": "pets", "images": {"resize": 20, "size": [24, 20]}},
            r"fit into the result of `resize`, got \[24, 20\]",
        ),
        ({"name": "folder", "folder": "pets", "images": {"crop": "none"}}, "`size` must be given with `crop` = 'none'"),
        (
            {"name": "folder", "folder": "pets", "images": {"crop": "none", "size": [4, 4], "resize": 4}},
            "`resize` must be left out",
        ),
        (
            {"name": "folder", "folder": "pets", "images": {"interpolation": "cubic"}},
            "'nearest', 'bilinear', 'bicubic' or 'lanczos'",
        ),
        ({"name": "folder", "folder": "pets", "images": {"mode": "CMYK"}}, "'RGB' or 'L'"),
        ({"name": "folder", "folder": "pets", "images": {"sise": [4, 4]}}, "Extra inputs are not permitted"),
    ],
)
def test_a_data_table_that_means_nothing_is_refused(table, message):
    with pytest.raises(ValidationError, match=message):
        DataSpec.model_validate(table)


def test_a_data_table_is_frozen_and_written_back():
    """Catches: data that change after their key was computed, or that a file does not restore."""
    spec = DataSpec.model_validate({"name": "mnist", "split": {"kind": "kfold", "k": 5, "fold": 2}})
    assert DataSpec.model_validate(spec.model_dump()) == spec
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "digits"


# The real arrays


def test_real_cifar10(real):
    train, test = from_real(real, "cifar10.npz.xz", "train"), from_real(real, "cifar10.npz.xz")
    assert (len(train), len(test), test.shape) == (50000, 10000, (3, 32, 32))
    assert (test.classes[0], test.classes[9]) == ("airplane", "truck")
    assert np.bincount(test.labels).tolist() == [1000] * 10
    total = sum(test.batch(start, start + 1000).mean(axis=(0, 2, 3), dtype=float) for start in range(0, 10000, 1000))
    assert np.allclose(total / 10, [0.4942, 0.4851, 0.4504], atol=1e-3)  # published, of the test part


def test_real_gtsrb_by_track(real):
    spec = {"groups": "train_track", "split": {"kind": "group", "fraction": 0.2}}
    train, test = (from_real(real, "gtsrb32.npz.xz", part, **spec) for part in ("train", "test"))
    assert len(train) + len(test) == 39209
    assert not set(train.groups) & set(test.groups)
    assert len(set(test.groups)) == np.ceil(1307 * 0.2)
    assert set(test.labels) == set(train.labels) == set(range(43))
    assert len(from_real(real, "gtsrb32.npz.xz")) == 12630


def test_real_eyes_by_group(real):
    tested = []
    for fold in range(5):
        spec = {"groups": "group", "split": {"kind": "kfold", "k": 5, "fold": fold}}
        test = from_real(real, "eyes32.npz", **spec)
        assert np.bincount(test.labels).max() / len(test) < 0.53
        tested.append(test)
    assert sorted(row for test in tested for row in test.rows) == list(range(1452))
    groups = [set(test.groups) for test in tested]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 1419
    assert test.classes == ("closed", "open")
