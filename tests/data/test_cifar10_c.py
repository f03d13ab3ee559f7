"""CIFAR-10-C's folder of arrays, one part per corruption and severity; ImageNet-C's as a folder of pictures."""

import numpy as np
import pytest
from PIL import Image

from robustness import data
from robustness.data import DataSpec
from robustness.errors import DataError, DataMissing

COUNT = 4


@pytest.fixture
def folder(tmp_path):
    """Four images per severity, whose pixels are 10·severity + their row, and whose labels are 3, 0, 9, 3."""
    of = tmp_path / "CIFAR-10-C"
    of.mkdir()
    rows = np.add.outer(10 * np.arange(1, 6), np.arange(COUNT)).ravel().astype(np.uint8)
    pixels = np.broadcast_to(rows[:, None, None, None], (5 * COUNT, 32, 32, 3))
    np.save(of / "fog.npy", pixels)
    np.save(of / "jpeg_compression.npy", pixels + 100)
    np.save(of / "labels.npy", np.tile([3, 0, 9, 3], 5).astype(np.uint8))
    return of


def get(folder, part, **table):
    spec = DataSpec.model_validate({"name": "cifar10-c", "folder": folder.name, "part": part, **table})
    return data.load(spec, "test", root=folder.parent, cache=folder.parent / "cache")


@pytest.mark.parametrize(("part", "first"), [("fog/1", 10), ("fog/3", 30), ("jpeg-compression/5", 150)])
def test_a_part_is_one_corruption_at_one_severity(folder, part, first):
    """Catches: blocks of five for blocks of all images, severities from 0, another corruption's file."""
    images = get(folder, part)
    assert images.shape == (3, 32, 32)
    assert images.stored(0, COUNT)[:, 0, 0, 0].tolist() == [first, first + 1, first + 2, first + 3]
    assert images.labels.tolist() == [3, 0, 9, 3]
    assert images.classes[3] == "cat"
    assert images.mapped_from, "three gigabytes must not be read for one severity"
    assert len(get(folder, part, num_test_images=3)) == 3


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (None, r'`part` must name a corruption .* such as "fog/3"; it holds fog, jpeg-compression'),
        ("fog/6", r"`part` must be one of fog/1, .*, got 'fog/6'"),
        ("fogg/3", r"got 'fogg/3'; did you mean 'fog/3'"),
    ],
)
def test_another_part_is_explained(folder, part, message):
    """Catches: all severities at once as if they were one set."""
    with pytest.raises(DataError, match=message):
        get(folder, part)


def test_damaged_and_missing_files_are_explained(folder):
    """Catches: labels of other images, a file that is unpickled, NumPy's own errors."""
    np.save(folder / "snow.npy", np.zeros((7, 32, 32, 3), np.uint8))
    np.save(folder / "frost.npy", np.zeros((5, 32, 32, 3), np.uint8))
    (folder / "spatter.npy").write_bytes(b"\x93NUMPY")
    np.save(folder / "saturate.npy", np.array([{}]), allow_pickle=True)
    for name, message in (
        ("snow", r"snow\.npy must hold bytes of the shape \(5·N, .*\(7, 32, 32, 3\)"),
        ("frost", r"labels\.npy must hold 5 labels, one per image of frost\.npy, its shape is \(20,\)"),
        ("spatter", r"spatter\.npy cannot be read as an array"),
        ("saturate", r"saturate\.npy cannot be read as an array"),
    ):
        with pytest.raises(DataError, match=message):
            get(folder, f"{name}/1")
    (folder / "labels.npy").unlink()
    with pytest.raises(DataMissing, match=r"labels\.npy does not exist"):
        get(folder, "fog/1")
    with pytest.raises(DataMissing, match="no gone in"):
        get(folder.with_name("gone"), "fog/1")


def test_imagenet_c_is_a_folder_of_classes(tmp_path):
    """Catches: a corruption, a severity or the class folders below them taken for a part or a class."""
    for name, value in (("n01440764", 3), ("n01443537", 200)):
        place = tmp_path / "imagenet-c" / "fog" / "3" / name
        place.mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(place / "1.png")
    spec = DataSpec.model_validate({"name": "folder", "folder": "imagenet-c/fog/3"})
    images = data.load(spec, "test", root=tmp_path, cache=tmp_path / "cache")
    assert images.classes == ("n01440764", "n01443537")
    assert images.stored(0, 2)[:, 0, 0, 0].tolist() == [3, 200]
