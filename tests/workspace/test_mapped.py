"""Directions on disk: a file as any other of its format, and memory that does not grow with the number of images."""

import tracemalloc

import helpers
import numpy as np
import pytest
import safetensors.numpy

from robustness import cards
from robustness.classifiers import weights
from robustness.workspace import attack_inputs, mapped_array
from robustness.workspace.store import Store

SIGNS = np.random.default_rng(0).integers(-1, 2, (7, 2, 3, 1)).astype(np.int8)


def test_it_is_a_file_of_the_format(tmp_path):
    """Catches: rows at other places than they were put, a header that other readers do not take, no checksum."""
    path = tmp_path / "signs.safetensors"
    with Store(tmp_path).writing(path) as stream:
        array = mapped_array.Written(stream, "signs", SIGNS.shape)
        for start, stop in ((4, 7), (0, 4)):
            array.put(start, SIGNS[start:stop])
        array.finish({"counted": "{}"})
    assert np.array_equal(mapped_array.read(path, "signs"), SIGNS)
    assert np.array_equal(safetensors.numpy.load_file(path)["signs"], SIGNS)
    assert weights.metadata(path)["counted"] == "{}"
    weights.verify_checksum(path)


CARD = helpers.ARRAY_CARD + '[sweeps.far]\nkind = "fgsm"\nsource = "tiny.toml"\nstrengths = [0.1]\n'
MODULE = """
from torch import nn
def factory():
    return nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 3))
"""


@pytest.fixture
def source(tmp_path, own_path):
    path = helpers.project(tmp_path / "project", MODULE, CARD)
    pixels = np.random.default_rng(0).integers(0, 256, (12_000, 48, 48), dtype=np.uint8)
    np.savez(path.with_name("images.npz"), test_x=pixels, test_y=np.arange(len(pixels)) % 3)
    return helpers.open_workspace(path), cards.load(path)


def test_memory_does_not_grow_with_the_number_of_images(source):
    """Catches: all directions in memory at once, 28 MB here, or a file's bytes beside them."""
    workspace, card = source
    workspace.classifier(card), workspace.images(card).fingerprint
    tracemalloc.start()
    try:
        found = attack_inputs.directions(workspace, workspace.resolve(card, "far"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.shape == (12_000, 1, 48, 48)
    assert peak < 14e6


def test_a_store_without_room_costs_the_file_and_no_direction(source, monkeypatch):
    """Catches: a sweep that fails for what it could do without."""
    workspace, card = source
    due = attack_inputs.directions(workspace, workspace.resolve(card, "far")).copy()
    for file in (workspace.store.root / "directions").rglob("*.safetensors"):
        file.unlink()

    def full(self, start, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped_array.Written, "put", full)
    assert np.array_equal(attack_inputs.directions(workspace, workspace.resolve(card, "far")), due)
    assert any("are not kept" in notice and "No space left" in notice for notice in workspace.notices)
    assert not list((workspace.store.root / "directions").rglob("*.safetensors"))
