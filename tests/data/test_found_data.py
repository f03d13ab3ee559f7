"""Data as they are found, from the card to the evidence: beside the card, noted, kept, swept."""

import numpy as np
import pytest
from helpers import images, open_workspace, project
from picture_files import folder

from robustness import cards
from robustness.cli.check import check_model
from robustness.errors import DataError

SOURCE = """
from torch import nn

def factory():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 2))
"""
CARD = """
name = "tiny"

[model]
factory = "{module}:factory"
weights = "tiny.safetensors"

[data]
%s

[sweeps.normal]
kind = "gaussian"
strengths = [0.2, 0.8]
"""
FOLDER = 'name = "folder"\nfolder = "./pets"\nimages = {{ size = [24, 24] }}'


GREY = np.random.default_rng(0).integers(0, 256, (12, 6, 6), np.uint8)
GREY_LABELS = np.arange(12) % 3


def made(tmp_path, data, sides=(48, 2)):
    """A card with weights, and a workspace."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    path = project(tmp_path / "project", SOURCE.replace("48, 2", "{}, {}".format(*sides)), CARD % data)
    torch.manual_seed(0)
    linear = nn.Linear(*sides)
    save_file({f"2.{name}": value for name, value in linear.state_dict().items()}, path.parent / "tiny.safetensors")
    return path, open_workspace(path)


def check(tmp_path, content):
    """Check a model on arrays, and give the lines by their names."""
    path, here = made(tmp_path, 'name = "array"\nfile = "./set.npz"', (16, 3))
    np.savez(path.parent / "set.npz", **content)
    lines, _ = check_model(here, cards.load(path))
    return list(lines)


def test_a_card_without_recipe_is_swept_on_a_folder_beside_it(tmp_path):
    """Catches: a folder looked for below the data root, a training part that is asked for, a note nobody reads."""
    path, here = made(tmp_path, FOLDER)
    folder(path.parent / "pets")
    (path.parent / "pets" / "dog" / "copy.png").write_bytes((path.parent / "pets" / "cat" / "0.png").read_bytes())
    card = cards.load(path)
    evidence = here.evidence(card, "normal")
    assert evidence.status == ("ok", "ok")
    assert evidence.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert evidence.provenance["distributions"]["pillow"]
    assert [note for note in here.notices if "with another label" in note]
    assert len(here.notices) == 1


def test_evidence_is_believed_as_long_as_the_pictures_are_the_same(tmp_path):
    """Catches: a key of paths or times; a picture that changes unnoticed."""
    path, here = made(tmp_path, FOLDER)
    top = folder(path.parent / "pets")
    card = cards.load(path)
    key = here.key(card, "normal")
    content = (top / "cat" / "0.png").read_bytes()
    (top / "cat" / "0.png").write_bytes(content)
    assert open_workspace(path).key(card, "normal") == key
    (top / "cat" / "0.png").write_bytes((top / "dog" / "0.png").read_bytes())
    assert open_workspace(path).key(card, "normal") != key


def test_a_damaged_picture_ends_the_sweep_with_its_name(tmp_path):
    path, here = made(tmp_path, FOLDER)
    top = folder(path.parent / "pets")
    (top / "dog" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 5 pictures cannot be used: 'dog/0\.png'"):
        here.evidence(cards.load(path))


def test_an_array_file_beside_the_card(tmp_path):
    """Catches: a file of the same name below the data root that is taken instead."""
    path, here = made(tmp_path, 'name = "array"\nfile = "./set.npz"\nnum_test_images = 4')
    own, other = images(9, (8, 8, 3), 2, seed=1), images(9, (8, 8, 3), 2, seed=2)
    here.data_root.mkdir()
    for place, of in ((path.parent, own), (here.data_root, other)):
        np.savez(place / "set.npz", x=of.pixels, y=of.labels)
    tested = here.images(cards.load(path))
    assert len(tested) == 4
    assert np.array_equal(tested.stored(0, 4), own.select(tested.rows, "due").stored(0, 4))


def test_data_beside_another_card_that_is_tested_on(tmp_path):
    """Catches: the source of a transfer looked up beside its own card, where other pictures lie."""
    path, here = made(tmp_path / "one", FOLDER)
    folder(path.parent / "pets")
    other, _ = made(tmp_path / "two", FOLDER)
    folder(other.parent / "pets", {"ant": [(40, 30)], "bee": [(40, 30)]})
    crossed = cards.load(other).attacked_for(cards.load(path), "normal")
    assert here.images(crossed).classes == ("cat", "dog")
    assert here.images(cards.load(other)).classes == ("ant", "bee")
    assert here.images(crossed.attacked_for(crossed, "normal")).classes == ("cat", "dog")


@pytest.mark.parametrize("pixels", [(GREY > 100).astype(np.uint8), (GREY / 255 / 255).astype(np.float32)])
def test_check_mends_dim_images_and_not_the_model(tmp_path, own_path, pixels):
    """Catches: a first layer that multiplies by 255, after which every ε is 255 times as large as it says."""
    lines = check(tmp_path, {"x": pixels, "y": GREY_LABELS})
    (line,) = [line for line in lines if line.strip().startswith("FIX   images: ")]
    assert "they use 1/255 of the range; 0/1 bytes, or divided by 255 twice?" in line
    mend = [line.split(":")[0].split("  ")[-1].strip() for line in lines if line.strip().startswith("FIX")]
    assert set(mend) <= {"images", "clean accuracy"}


def test_check_says_how_many_images_were_trained_on(tmp_path, own_path):
    content = {"test_x": GREY, "test_y": GREY_LABELS, "train_x": GREY[:5], "train_y": GREY_LABELS[:5]}
    lines = check(tmp_path, content)
    assert [line for line in lines if "FIX" in line and "5 of 12 test images are among the 5 of the training" in line]
    assert not [line for line in check(tmp_path / "alone", {"x": GREY, "y": GREY_LABELS}) if "trained" in line]
