"""Whatever lies in the store may be torn, flipped, emptied or another's: it is made anew, said, and the same again."""

import os
import shutil
import sys
from pathlib import Path

import helpers
import numpy as np
import picture_files
import pytest

from robustness import cards, data
from robustness.data import DataSpec
from robustness.sweep.recorder import ChunkResult
from robustness.util.rng import CHUNK
from robustness.workspace.cached_results import cached_document
from robustness.workspace.chunk_cache import StoredChunks
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("own_path")

CARD = """
name = "{name}"

[model]
factory = "{module}:factory"

[recipe]
callable = "{module}:recipe"
seed = {seed}

[data]
name = "array"
file = "./images.npz"

[sweeps.far]
kind = "fgsm"
source = "{source}.toml"
strengths = [0.1]

[sweeps.gan]
kind = "advgan"
steps = 2
batch_size = 10
width = 4
strengths = [0.1]
"""


def torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def garbage(file: Path) -> None:
    file.write_bytes(os.urandom(3000))


def flipped(file: Path) -> None:
    """Flip a bit in the last byte that is part of an array, or of a text."""
    content = bytearray(file.read_bytes())
    content[-9 if file.suffix == ".json" else -1 - len(content) // 8] ^= 1
    file.write_bytes(content)


def a_folder(file: Path) -> None:
    file.unlink()
    (file / "inner").mkdir(parents=True)


def others(file: Path) -> None:
    """Put another entry of the same kind there, whole as it is."""
    another = [path for path in file.parents[1].rglob(f"*{file.suffix}") if path != file and path.is_file()]
    if not another:
        pytest.skip("there is one alone")
    shutil.copy(sorted(another)[0], file)


WAYS = (torn, emptied, garbage, flipped, a_folder, others)


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """Two models that are made for each other, on arrays beside their cards."""
    folder = tmp_path_factory.mktemp("project")
    path = helpers.project(folder / "project", helpers.MODULE, "{module}")
    module = path.read_text()
    for name, source, seed in (("tiny", "other", 0), ("other", "tiny", 1)):
        text = CARD.format(name=name, source=source, seed=seed, module=module)
        path.with_name(f"{name}.toml").write_text(text)
    of = helpers.digits(4)
    pixels = of.stored(0, len(of))[:, 0]
    arrays = {"train_x": pixels, "train_y": of.labels, "test_x": 255 - pixels, "test_y": of.labels}
    np.savez(path.with_name("images.npz"), **arrays)
    return path


def numbers(workspace, path) -> tuple[str, ...]:
    """Have everything made or believed: weights, evidence, directions, a generator, findings."""
    made = []
    for name in ("tiny", "other"):
        of = cards.load(path.with_name(f"{name}.toml"))
        made += [workspace.evidence(of, sweep).digest for sweep in ("clean", "far", "gan")]
        made.append(str(cached_document(workspace, of, "a count", {}, lambda module, images: {"of": len(images)})))
    return tuple(made)


def open_workspace(root) -> Workspace:
    return Workspace(Store(root), root / "data", threads=1)


@pytest.fixture(scope="module")
def whole(card, tmp_path_factory):
    """A store that holds everything, and the numbers of the run that made it."""
    root = tmp_path_factory.mktemp("whole") / "store"
    before = list(sys.path)
    found = numbers(open_workspace(root), card)
    sys.path[:] = before
    return root, found


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", ["evidence", "findings", "weights", "generators", "directions", "arrays"])
def test_what_is_torn_is_made_again(card, whole, tmp_path, kind, way):
    """Catches: an entry that is red for ever, a number that is another one, a repair that nobody hears of."""
    if (kind, way) == ("arrays", others):
        pytest.skip("its arrays have names, and sums of their own")
    (root, due), store = whole, tmp_path / "store"
    shutil.copytree(root, store)
    files = [path for path in sorted((store / kind).rglob("*")) if path.suffix in (".safetensors", ".json", ".npy")]
    assert files
    for file in files:
        way(file)
    if kind in ("weights", "generators", "directions"):  # else nobody asks for them
        shutil.rmtree(store / "evidence")
    healed = open_workspace(store)
    assert numbers(healed, card) == due
    said = [notice for notice in healed.notices if "deterministic" not in notice]
    assert said or way is a_folder
    again = open_workspace(store)
    assert numbers(again, card) == due
    assert again.notices == []


@pytest.mark.parametrize("way", WAYS[:5], ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", ["locks", "attempts"])
def test_locks_and_markers_hold_nobody_up(card, whole, tmp_path, kind, way):
    """Catches: a run that never begins, for what another one has left."""
    (root, due), store = whole, tmp_path / "store"
    shutil.copytree(root, store)
    shutil.rmtree(store / "evidence")
    (store / kind).mkdir(exist_ok=True)
    for name in [path.name for path in (store / "locks").iterdir()]:
        file = store / kind / (name if kind == "locks" else name.replace(".lock", ".json"))
        file.write_text('{"run": "another", "pid": 1}')
        way(file)
    assert numbers(open_workspace(store), card) == due


def other_batches(file: Path) -> None:
    """Have the header name another size of batches, over arrays that are whole."""
    file.write_bytes(file.read_bytes().replace(rb"\"batch_size\": 8", rb"\"batch_size\": 1"))


@pytest.mark.parametrize("way", [*WAYS[:5], other_batches], ids=lambda way: way.__name__)
def test_a_chunk_that_is_damaged_decides_nothing(tmp_path, way):
    """Catches: the size of batches taken from a chunk whose numbers are not believed, or without its checksum."""
    kept = StoredChunks(Store(tmp_path), "ab" * 32, tmp_path, every=0)
    arrays = {"predictions": np.zeros((1, CHUNK), np.int32)}
    kept.write(ChunkResult(0, arrays, {"batch_size": 8}))
    assert (kept.batch_size(64), kept.get(0).batch_size) == (8, 8)
    way(tmp_path / "chunks" / "ab" / ("ab" * 32) / "0.safetensors")
    assert (kept.batch_size(64), kept.get(0)) == (64, None)


@pytest.mark.parametrize("way", WAYS[:5], ids=lambda way: way.__name__)
@pytest.mark.parametrize("suffix", [".arrow", ".sha256", ".sums.json", ".json"])
def test_pictures_of_parquet_are_unpacked_again(tmp_path, suffix, way):
    """Catches: pictures blanked by a flipped bit; the user's own file blamed for what the store has lost."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [picture_files.encoded(picture_files.picture(i, (8, 8))) for i in range(30)]
    pq.write_table(pa.table({"image": pictures, "label": [i % 3 for i in range(30)]}), tmp_path / "set.parquet")
    spec = DataSpec(name="parquet", file="set.parquet")

    def load():
        return data.load(spec, "test", root=tmp_path, cache=tmp_path / "store")

    first = load()
    content, due = first.batch(0, 30), first.fingerprint
    del first
    load()
    names = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.name.endswith(suffix)]
    assert names
    for file in names:
        way(file)
    again = load()
    assert again.fingerprint == due
    assert np.array_equal(again.batch(0, 30), content)
    if suffix == ".arrow":
        assert ["was damaged" in note for note in again.notes] == [True]
    assert load().notes == ()
