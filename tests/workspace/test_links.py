"""Links in the store: nothing is written through one, and nothing is read from where one leads."""

import os
import stat

import numpy as np
import plugin_project
import pytest
from test_store import KEY, evidence, kept  # noqa: F401  # a fixture

from robustness import cards
from robustness.data import file_index, npz_cache
from robustness.errors import DataError, StoreError
from robustness.util import atomic_write
from robustness.workspace.chunk_cache import StoredChunks
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

PRECIOUS = b"somebody else's"


@pytest.fixture
def precious(tmp_path):
    """A file outside of the store, which no run may change."""
    path = tmp_path / "precious"
    path.write_bytes(PRECIOUS)
    yield path
    assert path.read_bytes() == PRECIOUS
    assert path.is_file()


def linked(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return path


def test_an_entry_that_is_a_link_is_replaced(kept, tmp_path):  # noqa: F811
    """Catches: another store's numbers, or an older copy, read through a link, or written over."""
    path, elsewhere = kept.path("evidence", KEY), tmp_path / "elsewhere"
    elsewhere.write_bytes(content := evidence().to_bytes())
    linked(path, elsewhere)
    found, reason = kept.evidence(KEY, tmp_path)
    assert found is None
    assert reason == f"{path}: {path} is a link, but links below {kept.root} are not followed; remove it"
    assert not kept.holds(path)
    ((_, listed),) = kept.entries()
    assert isinstance(listed, StoreError)
    assert kept.put(seed=3)[0].digest == evidence(seed=3).digest
    assert not path.is_symlink()
    assert elsewhere.read_bytes() == content


@pytest.mark.parametrize("which", ["kind", "prefix"])
def test_a_folder_of_the_store_that_is_a_link(kept, tmp_path, which):  # noqa: F811
    """Catches: evidence written to, read from or removed from where the link of a folder leads."""
    path, outside = kept.path("evidence", KEY), tmp_path / "outside"
    folder = path.parent if which == "prefix" else path.parent.parent
    outside.mkdir()
    linked(folder, outside)
    with pytest.raises(StoreError, match="is a link, but links below"):
        kept.put()
    assert list(outside.iterdir()) == []
    there = outside / path.relative_to(folder)
    there.parent.mkdir(exist_ok=True)
    there.write_bytes(evidence().to_bytes())
    assert kept.evidence(KEY, tmp_path)[0] is None
    kept.remove(path)
    assert there.is_file()


def test_the_store_itself_may_be_a_link(tmp_path):
    """Catches: a user's store on another disk that is refused."""
    (tmp_path / "disk").mkdir()
    linked(tmp_path / "store", tmp_path / "disk")
    store = Store(tmp_path / "store")
    store.write(store.path("evidence", KEY), evidence(seed=3).to_bytes())
    assert store.evidence(KEY, tmp_path)[0].digest == evidence(seed=3).digest
    assert (tmp_path / "disk" / "evidence").is_dir()


@pytest.mark.parametrize("dangling", [False, True])
def test_markers_and_locks_that_are_links(kept, tmp_path, precious, dangling):  # noqa: F811
    """Catches: a marker or lock file that is created, emptied or written where a link leads."""
    target = tmp_path / "new" if dangling else precious
    marker, lock = kept.root / "attempts" / "it.json", kept.root / "locks" / "it.lock"
    linked(marker, target)
    linked(lock, target)
    with kept.exclusive("it", "doing it"):
        assert lock.is_symlink()  # no lock was taken, and nothing is lost but waiting
    assert not (tmp_path / "new").exists()
    lock.unlink()
    linked(marker, target)
    with kept.exclusive("it", "doing it"):
        assert not marker.is_symlink()
    assert not marker.exists()
    assert not (tmp_path / "new").exists()


def test_chunks_checkpoints_and_what_is_known_of_files(kept, tmp_path, precious):  # noqa: F811
    """Catches: chunks that are read, removed or written where a link leads, and other files of the store."""
    chunks = StoredChunks(kept, KEY, tmp_path)
    linked(chunks.folder.parent, tmp_path / "outside")
    (tmp_path / "outside" / KEY).mkdir(parents=True)
    (tmp_path / "outside" / KEY / "0.safetensors").write_bytes(PRECIOUS)
    assert chunks.get(0) is None
    chunks.remove()
    assert (tmp_path / "outside" / KEY / "0.safetensors").is_file()
    kept.remove(linked(kept.checkpoint(KEY), precious))
    assert not kept.checkpoint(KEY).is_symlink()
    index = linked(kept.root / "files" / "x.json", precious)
    file_index._put(index, {"form": file_index.FORM})
    assert not index.is_symlink()


def test_unpacked_arrays_behind_a_link(tmp_path):
    """Catches: pixels read from a folder that the store does not own."""
    np.savez(tmp_path / "a.npz", x=np.arange(6, dtype=np.uint8))
    cache = tmp_path / "cache"

    def unpack():
        return npz_cache.memory_mapped_arrays(tmp_path / "a.npz", cache)["x"].tolist()

    unpack()
    (folder,) = [path for path in (cache / "arrays").iterdir() if path.is_dir()]
    folder.rename(tmp_path / "moved")
    linked(folder, tmp_path / "moved")
    with pytest.raises(DataError, match="is a link, but links below"):
        unpack()
    folder.unlink()
    assert unpack() == [0, 1, 2, 3, 4, 5]
    (tmp_path / "moved" / "x.npy").rename(tmp_path / "x.npy")
    linked(folder / "x.npy", tmp_path / "x.npy")
    assert unpack() == [0, 1, 2, 3, 4, 5]
    assert not (folder / "x.npy").is_symlink()


def test_a_run_with_links_in_its_store(tmp_path, warm_store, precious, own_path):
    """A whole run through a store whose weights and evidence are links. Catches: any place that follows one."""
    (tmp_path / "project").mkdir()
    plugin_project.write(tmp_path / "project")
    card = cards.load(tmp_path / "project" / "models" / "tiny.toml")
    said = []
    store = Store(tmp_path / "store", say=said.append)
    for kind in ("weights", "evidence"):
        for entry in (warm_store / kind).glob("??/*"):
            linked(store.root / entry.relative_to(warm_store), precious)
    workspace = Workspace(store, tmp_path / "data", threads=1)
    assert workspace.evidence(card).status == ("ok",)
    assert any("weights" in line and "is a link" in line for line in said)
    assert any("is a link" in notice for notice in workspace.notices)
    assert not any(path.is_symlink() for path in store.root.glob("weights/??/*"))


def test_a_hard_link_is_cut(kept, tmp_path, precious):  # noqa: F811
    """Catches: a file that is emptied and filled in place, and with it every other name of it."""
    path = kept.path("evidence", KEY)
    path.parent.mkdir(parents=True)
    os.link(precious, path)
    kept.put()
    assert path.stat().st_nlink == 1


def test_a_users_own_link_stays_one(tmp_path, precious):
    """A card, or a report, that is a link: what it names is replaced, and its permissions stay."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with atomic_write.atomic_writer(linked(tmp_path / "link", target)) as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"new", 0o640)
    linked(tmp_path / "other", precious)
    with pytest.raises(RuntimeError), atomic_write.atomic_writer(tmp_path / "other"):
        raise RuntimeError
