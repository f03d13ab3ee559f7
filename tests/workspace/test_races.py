"""Files that are written while a run reads them: what a number is of must be known, or there is no number."""

import io
import shutil
import sys
from pathlib import Path

import helpers
import numpy as np
import PIL.Image
import pytest
from helpers import harness

from robustness import cards
from robustness.classifiers import build, weights
from robustness.data import load, npz_cache, parquet
from robustness.data.spec import DataSpec
from robustness.errors import DataError, ModelError, TrainingError
from robustness.workspace.cached_results import cached_document
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("own_path")

SOURCE = """
from pathlib import Path
from torch import nn

ACTION = []

class Acting(nn.Sequential):
    def forward(self, inputs):
        while ACTION:
            ACTION.pop()()
        return super().forward(inputs)

def factory():
    return Acting(nn.Flatten(), nn.Linear(784, 10))
"""
CARD = """
name = "tiny"

[model]
factory = "{module}:factory"
weights = "tiny.safetensors"

[data]
name = "array"
file = "./test.npz"

[sweeps.normal]
kind = "gaussian"
strengths = [0.1]
"""


def state(path: Path, seed: int) -> bytes:
    return weights.to_bytes(helpers.linear(helpers.digits(), seed).state_dict(), {})


@pytest.fixture
def path(tmp_path) -> Path:
    path = helpers.project(tmp_path / "project", SOURCE, CARD)
    path.with_name("tiny.safetensors").write_bytes(state(path, 0))
    of = helpers.digits()
    np.savez(path.with_name("test.npz"), test_x=of.stored(0, len(of))[:, 0], test_y=of.labels)
    return path


def digests(path: Path, root: Path) -> list[str]:
    of = Workspace(Store(root), path.parent, threads=1)
    return [of.evidence(cards.load(path), sweep).digest for sweep in ("clean", "normal")]


def acting(path: Path, action) -> None:
    """Have something done in the model's next pass."""
    name = cards.load(path).file.model.factory.partition(":")[0]
    build.build_module(cards.load(path))
    sys.modules[name].ACTION.append(action)


def test_weights_that_are_replaced_before_they_are_read(path, monkeypatch):
    """Catches: evidence of new weights that stands under the key of the old ones, for good."""
    file, card, of = path.with_name("tiny.safetensors"), cards.load(path), harness(path)
    of.key(card, "clean")
    file.write_bytes(state(path, 1))
    with pytest.raises(ModelError, match=r"tiny\.safetensors has changed since this run read it; run again"):
        of.evidence(card)
    assert list(of.store.entries()) == []
    file.write_bytes(state(path, 0))
    first = digests(path, path.parents[1] / "fresh")
    assert [harness(path).evidence(card, sweep).digest for sweep in ("clean", "normal")] == first


def test_weights_that_are_other_ones_only_while_they_are_read(path, monkeypatch):
    """Catches: a file that is replaced and comes back, whose hash says nothing of what was read between."""
    file, card, of = path.with_name("tiny.safetensors"), cards.load(path), harness(path)
    load = build.load_model

    def meanwhile(*given, **more):
        shutil.copy(file, file.with_suffix(".old"))
        file.write_bytes(state(path, 1))
        loaded = load(*given, **more)
        file.with_suffix(".old").replace(file)
        return loaded

    monkeypatch.setattr(build, "load_model", meanwhile)
    with pytest.raises(ModelError, match="changed while it was read"):
        of.evidence(card)


@pytest.mark.parametrize("what", ["weights", "source", "data"])
def test_what_is_written_during_a_sweep(path, what):
    """Catches: numbers of what was read at the start, kept beside the hash of what is there at the end."""
    root, card = path.parents[1] / "store", cards.load(path)
    module = path.parents[1] / f"{card.file.model.factory.partition(':')[0]}.py"

    def write():
        if what == "weights":
            path.with_name("tiny.safetensors").write_bytes(state(path, 1))
        elif what == "source":
            module.write_text(SOURCE.replace("super().forward(inputs)", "-super().forward(inputs)"))
        else:
            (mapped,) = root.glob("arrays/*/test_x.npy")
            with mapped.open("r+b") as stream:  # not made shorter: who maps it would be killed
                stream.seek(-400, 2)
                stream.write(b"\x7f" * 400)

    of = Workspace(Store(root), path.parent, threads=1)
    acting(path, write)
    with pytest.raises((ModelError, DataError), match=r"(has )?changed (since|while) this run read it"):
        of.evidence(card)
    assert list(of.store.entries()) == []


def test_findings_are_held_to_the_same(path):
    """Catches: a doubt looked for on weights that are others at the end."""
    of, card = harness(path), cards.load(path)
    file = path.with_name("tiny.safetensors")
    with pytest.raises(ModelError, match="has changed since this run read it"):
        cached_document(of, card, "a count", {}, lambda module, images: {"n": file.write_bytes(state(path, 1))})
    assert not list((of.store.root / "findings").rglob("*.json"))


def test_a_module_that_was_saved_after_it_was_imported(path):
    """Catches: code that ran listed with the hash of code that did not."""
    card = cards.load(path)
    name = card.file.model.factory.partition(":")[0]
    harness(path).evidence(card)
    (path.parents[1] / f"{name}.py").write_text(SOURCE + "\nEDITED = True\n")
    with pytest.raises(ModelError, match=rf"{name}\.py has changed since this run read it"):
        harness(path).evidence(card)


def test_an_archive_that_is_replaced_while_it_is_unpacked(path, tmp_path, monkeypatch):
    """Catches: new pixels kept under the hash of the old file, for whoever has the old one."""
    file, extract = path.with_name("test.npz"), npz_cache._extract

    def meanwhile(*given):
        of = helpers.digits(2)
        np.savez(file, test_x=of.stored(0, len(of))[:, 0], test_y=of.labels)
        return extract(*given)

    monkeypatch.setattr(npz_cache, "_extract", meanwhile)
    with pytest.raises(DataError, match=r"test\.npz changed while it was read; run again"):
        npz_cache.memory_mapped_arrays(file, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "arrays").glob("[!.]*/"))


def test_a_recipe_that_is_edited_while_it_trains(tmp_path):
    """Catches: weights of the old code under the hash of the new, or of the new under that of the old."""
    source = helpers.MODULE.replace(
        "    job.report(1, 1)\n",
        "    import pathlib\n    with open(__file__, 'a') as file:\n        file.write('EDITED = 1')\n",
    )
    path = helpers.project(tmp_path / "project", source)
    of = harness(path)
    with pytest.raises(TrainingError, match="tiny: its recipe's code changed while it was trained; run again"):
        of.weights(cards.load(path))
    assert not list(of.store.root.rglob("weights/**/*.safetensors"))


def test_a_table_that_is_replaced_while_it_is_unpacked(tmp_path, monkeypatch):
    """Catches: new pictures kept under the hash of the old file."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file, read = tmp_path / "rows.parquet", parquet._bytes

    def write(seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 8, 8), dtype=np.uint8)
        pq.write_table(pa.table({"image": [png(each) for each in pixels], "label": [0, 1, 0, 1]}), f"{file}.new")
        Path(f"{file}.new").replace(file)

    def meanwhile(*given):
        write(1)
        return read(*given)

    write(0)
    monkeypatch.setattr(parquet, "_bytes", meanwhile)
    spec = DataSpec.model_validate({"name": "parquet", "file": file.name})
    with pytest.raises(DataError, match=r"rows\.parquet changed while it was read; run again"):
        load(spec, "test", root=tmp_path, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def png(pixels):
    """The bytes of a grey picture."""
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()
