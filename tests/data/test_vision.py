"""torchvision's data sets from files that are there; made here, as small as their layouts allow."""

import numpy as np
import pytest
from picture_files import picture
from pydantic import ValidationError

from robustness.data import DataSpec, load
from robustness.errors import DataError, DataMissing


def get(name, root, part="test", **table):
    spec = DataSpec.model_validate({"name": f"torchvision:{name}", **table})
    return load(spec, part, root=root, cache=root / "cache", beside=root)


def idx(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
    file.write_bytes(header + array.tobytes())


@pytest.fixture
def fashion(tmp_path):
    drawn = np.random.default_rng(0)
    for stem, count in (("train", 5), ("t10k", 3)):
        raw = tmp_path / "FashionMNIST" / "raw"
        idx(raw / f"{stem}-images-idx3-ubyte", drawn.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        idx(raw / f"{stem}-labels-idx1-ubyte", drawn.integers(0, 10, count, dtype=np.uint8))
    return tmp_path


@pytest.fixture
def signs(tmp_path):
    """Three training signs of two classes, and two to test on, in the folders of GTSRB."""
    base = tmp_path / "gtsrb" / "GTSRB"
    for label, name, seed in ((0, "a", 1), (1, "b", 2), (1, "c", 3)):
        folder = base / "Training" / f"{label:05}"
        folder.mkdir(parents=True, exist_ok=True)
        picture(seed, (30 + seed, 30)).save(folder / f"{name}.ppm")
    tests = base / "Final_Test" / "Images"
    tests.mkdir(parents=True)
    for seed, name in ((4, "x"), (5, "y")):
        picture(seed, (30 + seed, 30)).save(tests / f"{name}.ppm")
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text("Filename;ClassId\nx.ppm;1\ny.ppm;0\n")
    return tmp_path


@pytest.mark.parametrize(("part", "train"), [("train", True), ("test", False)])
def test_a_set_of_arrays_is_that_of_torchvision(fashion, part, train):
    """Catches: parts exchanged, names of classes lost."""
    from robustness.util.torchvision_compat import datasets

    due = datasets.FashionMNIST(fashion, train=train)
    images = get("FashionMNIST", fashion, part)
    assert np.array_equal(images.stored(0, len(due))[:, 0], due.data.numpy())
    assert images.labels.tolist() == due.targets.tolist()
    assert images.classes == tuple(due.classes)
    assert images.classes[0] == "T-shirt/top"


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_set_of_files_is_that_of_torchvision(signs, part):
    """Catches: paths below another folder, parts exchanged, labels of other files."""
    from robustness.util.torchvision_compat import datasets, transforms

    way = transforms.Compose([transforms.Resize(28), transforms.CenterCrop(28), transforms.PILToTensor()])
    due = datasets.GTSRB(signs, split=part, transform=way)
    images = get("GTSRB", signs, part, images={"size": [28, 28]})
    assert np.array_equal(images.stored(0, 9), np.stack([image.numpy() for image, _ in due]))
    assert images.labels.tolist() == [label for _, label in due]


def test_a_set_beside_the_card(signs):
    (signs / "elsewhere").mkdir()
    (signs / "gtsrb").rename(signs / "elsewhere" / "gtsrb")
    assert len(get("GTSRB", signs, folder="./elsewhere", images={"size": [28, 28]})) == 2


def test_nothing_is_downloaded(tmp_path, monkeypatch):
    """Catches: a set that is brought because it is missing."""
    import urllib.request

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("downloaded"))
    for name in ("CIFAR10", "FashionMNIST", "GTSRB", "Food101"):
        with pytest.raises(DataMissing, match=rf"no {name} in .* nothing is downloaded here"):
            get(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CIFAR11", "a torchvision data set with a training and a test part, got 'CIFAR11'; did you mean 'CIFAR10'"),
        ("FakeData", "with a training and a test part, got 'FakeData'"),
        ("__doc__", "with a training and a test part"),
        ("", "with a training and a test part"),
    ],
)
def test_other_names_are_refused(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        get(name, tmp_path)


def test_tables_that_mean_nothing_are_refused(fashion):
    with pytest.raises(DataError, match="`images` must be left out for 'torchvision:FashionMNIST'"):
        get("FashionMNIST", fashion, images={"size": [4, 4]})
    with pytest.raises(ValidationError, match="`name` must be one of"):
        DataSpec.model_validate({"name": "torchvision"})
    with pytest.raises(ValidationError, match="`file` must be left out for 'torchvision:CIFAR10'"):
        DataSpec.model_validate({"name": "torchvision:CIFAR10", "file": "x.npz"})
