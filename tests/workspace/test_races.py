"""Files that are written while a run reads them: what a number is of must be known, or there is no number."""

import shutil
import sys
from pathlib import Path

import helpers
import numpy as np
import picture_files
import PIL.Image
import pytest
from helpers import open_workspace

from robustness import cards
from robustness.classifiers import build, weights
from robustness.data import load, npz_cache, parquet
from robustness.data.spec import DataSpec
from robustness.errors import DataError, ModelError, TrainingError
from robustness.workspace.cached_results import cached_document

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
CARD = helpers.ARRAY_CARD.replace("seed = 1", 'weights = "tiny.safetensors"')


def state(seed: int) -> bytes:
    return weights.to_bytes(helpers.linear(helpers.digits(), seed).state_dict(), {})


@pytest.fixture
def path(tmp_path) -> Path:
    path = helpers.project(tmp_path / "project", SOURCE, CARD)
    path.with_name("tiny.safetensors").write_bytes(state(0))
    of = helpers.digits()
    np.savez(path.with_name("images.npz"), test_x=of.stored(0, len(of))[:, 0], test_y=of.labels)
    return path


def acting(path: Path, action) -> None:
    """Have something done in the model's next pass."""
    name = cards.load(path).file.model.factory.partition(":")[0]
    build.build_module(cards.load(path))
    sys.modules[name].ACTION.append(action)


def test_weights_that_are_replaced_before_they_are_read(path):
    """Catches: evidence of new weights that stands under the key of the old ones, for good."""
    file, card, of = path.with_name("tiny.safetensors"), cards.load(path), open_workspace(path)
    of.key(card, "clean")
    file.write_bytes(state(1))
    with pytest.raises(ModelError, match=r"tiny\.safetensors has changed since this run read it; run again"):
        of.evidence(card)
    assert list(of.store.entries()) == []


def test_weights_that_are_other_ones_only_while_they_are_read(path, monkeypatch):
    """Catches: a file that is replaced and comes back, whose hash says nothing of what was read between."""
    file, card, of = path.with_name("tiny.safetensors"), cards.load(path), open_workspace(path)
    load = build.load_model

    def meanwhile(*given, **more):
        shutil.copy(file, file.with_suffix(".old"))
        file.write_bytes(state(1))
        loaded = load(*given, **more)
        file.with_suffix(".old").replace(file)
        return loaded

    monkeypatch.setattr(build, "load_model", meanwhile)
    with pytest.raises(ModelError, match="changed while it was read"):
        of.evidence(card)


@pytest.mark.parametrize("what", ["weights", "source", "data"])
def test_what_is_written_during_a_sweep(path, what):
    """Catches: numbers of what was read at the start, kept beside the hash of what is there at the end."""
    of, card = open_workspace(path), cards.load(path)
    module = path.parents[1] / f"{card.file.model.factory.partition(':')[0]}.py"

    def write():
        if what == "weights":
            path.with_name("tiny.safetensors").write_bytes(state(1))
        elif what == "source":
            module.write_text(SOURCE.replace("super().forward(inputs)", "-super().forward(inputs)"))
        else:
            (mapped,) = of.store.root.glob("arrays/*/test_x.npy")
            with mapped.open("r+b") as stream:  # not made shorter: who maps it would be killed
                stream.seek(-400, 2)
                stream.write(b"\x7f" * 400)

    acting(path, write)
    with pytest.raises((ModelError, DataError), match=r"(has )?changed (since|while) this run read it"):
        of.evidence(card)
    assert list(of.store.entries()) == []


def test_findings_are_held_to_the_same(path):
    """Catches: a doubt looked for on weights that are others at the end."""
    of, card = open_workspace(path), cards.load(path)
    file = path.with_name("tiny.safetensors")
    with pytest.raises(ModelError, match="has changed since this run read it"):
        cached_document(of, card, "a count", {}, lambda module, images: {"n": file.write_bytes(state(1))})
    assert not list((of.store.root / "findings").rglob("*.json"))


def test_a_module_that_was_saved_after_it_was_imported(path):
    """Catches: code that ran listed with the hash of code that did not."""
    card = cards.load(path)
    name = card.file.model.factory.partition(":")[0]
    open_workspace(path).evidence(card)
    (path.parents[1] / f"{name}.py").write_text(SOURCE + "\nEDITED = True\n")
    with pytest.raises(ModelError, match=rf"{name}\.py has changed since this run read it"):
        open_workspace(path).evidence(card)


def write_archive(file, pixels, labels):
    np.savez(file, test_x=pixels, test_y=labels)


def write_table(file, pixels, labels):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [picture_files.encoded(PIL.Image.fromarray(each)) for each in pixels]
    pq.write_table(pa.table({"image": pictures, "label": labels}), f"{file}.new")
    Path(f"{file}.new").replace(file)


@pytest.mark.parametrize(
    ("kind", "suffix", "write", "place", "reader"),
    [
        ("array", ".npz", write_archive, npz_cache, "_extract"),
        ("parquet", ".parquet", write_table, parquet, "_bytes"),
    ],
)
def test_a_file_that_is_replaced_while_it_is_unpacked(tmp_path, monkeypatch, kind, suffix, write, place, reader):
    """Catches: new pixels kept under the hash of the old file, for whoever has the old one."""
    file, read, draws = tmp_path / f"rows{suffix}", getattr(place, reader), np.random.default_rng(0)

    def replaced():
        write(file, draws.integers(0, 256, (4, 8, 8), dtype=np.uint8), [0, 1, 0, 1])

    def meanwhile(*arguments):
        replaced()
        return read(*arguments)

    replaced()
    monkeypatch.setattr(place, reader, meanwhile)
    spec = DataSpec.model_validate({"name": kind, "file": file.name})
    with pytest.raises(DataError, match=rf"rows\{suffix} changed while it was read; run again"):
        load(spec, "test", root=tmp_path, cache=tmp_path / "cache")
    assert not [*tmp_path.glob("cache/arrays/[!.]*/"), *tmp_path.glob("cache/**/*.arrow")]


def test_a_recipe_that_is_edited_while_it_trains(tmp_path):
    """Catches: weights of the old code under the hash of the new, or of the new under that of the old."""
    source = helpers.MODULE.replace(
        "    job.report(1, 1)\n",
        "    import pathlib\n    with open(__file__, 'a') as file:\n        file.write('EDITED = 1')\n",
    )
    path = helpers.project(tmp_path / "project", source)
    of = open_workspace(path)
    with pytest.raises(TrainingError, match="tiny: its recipe's code changed while it was trained; run again"):
        of.weights(cards.load(path))
    assert not list(of.store.root.rglob("weights/**/*.safetensors"))
