"""What killed processes leave in a store and a data root: found, listed, removed, and nothing else with it."""

import os
import time

import pytest
from test_store import KEY, evidence

from robustness.cli import inventory, main
from robustness.data import mnist
from robustness.util import atomic_write
from robustness.workspace.store import Store

OTHER = "cd" + KEY[2:]


@pytest.fixture
def places(tmp_path):
    """A store and a data root with litter of every kind beside what is of use; the litter's paths."""
    store, data = Store(tmp_path / "store"), tmp_path / "data"
    store.write(store.path("evidence", KEY), evidence().to_bytes())
    store.write(store.path("weights", KEY), b"whole")
    litter = [
        store.root / "weights" / "ab" / f"{atomic_write.BEGUN}1",
        store.root / "findings" / f"{atomic_write.BEGUN}2",
        store.root / "files" / f"{atomic_write.BEGUN}3",
        store.root / "arrays" / ".0123-abc" / "made" / "x.npy",
        store.root / "parquet" / "tmpabc" / "x.arrow",
        store.root / "attempts" / f"weights-{OTHER}.json",
        store.checkpoint(KEY),
        store.root / "chunks" / KEY[:2] / KEY / "0.safetensors",
        data / f"{mnist.DOWNLOADING}1" / "MNIST" / "raw" / "x",
    ]
    use = [
        store.checkpoint(OTHER),
        store.root / "chunks" / OTHER[:2] / OTHER / "0.safetensors",
        store.root / "arrays" / "0123" / "x.npy",
        store.root / "parquet" / "0123.arrow",
        store.root / "logs" / "ab" / "x.csv",
        data / "MNIST" / "raw" / "x",
        data / "mine" / f"{mnist.DOWNLOADING}notes.txt",
    ]
    for path in (*litter, *use):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
    return store, data, litter


def aged(root, age):
    for path in root.rglob("*"):
        os.utime(path, (time.time() - age,) * 2)


def run(store, data, *arguments):
    return main.main(["evidence", "prune", *arguments, "--store", str(store.root), "--data", str(data)])


@pytest.mark.parametrize("age", [2 * inventory.HOUR, -2 * inventory.HOUR])
def test_all_litter_goes_and_nothing_else(places, tmp_path, capsys, age):
    """Catches: litter that stays for ever, also in the future, and a checkpoint that a training would go on from."""
    store, data, litter = places
    aged(tmp_path, age)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert run(store, data, "--broken", "--dry-run") == 0
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
    said = capsys.readouterr().out
    assert "and 9 leftovers of killed processes, 90 B" in said
    for what in ("incomplete file", "half unpacked", "the marker of a", "the checkpoint", "chunks of", "incomplete d"):
        assert f" {what}" in said
    assert run(store, data, "--broken") == 0
    assert before - {path for path in tmp_path.rglob("*") if path.is_file()} == set(litter)
    assert run(store, data, "--broken") == 0
    assert "removed 0 entries, 0 B" in capsys.readouterr().out


def test_what_somebody_may_be_at_stays(places, tmp_path):
    """Catches: a file removed under the process that writes it, and the mark of one that is at work for hours."""
    store, data, litter = places
    aged(tmp_path, 60)
    assert inventory.litter(store, data) == []
    aged(tmp_path, 2 * inventory.HOUR)
    with store.exclusive(f"weights-{OTHER}", "training"):
        aged(tmp_path, 2 * inventory.HOUR)
        assert [each.path for each in inventory.litter(store, data) if each.path.parent.name == "attempts"] == []
    assert len(litter) == 9


def test_links_are_left_alone(places, tmp_path):
    """Catches: a folder elsewhere that is emptied because a link to it looks like litter."""
    store, data, _ = places
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / f"{atomic_write.BEGUN}x").touch()
    (store.root / "generators").symlink_to(precious)
    aged(tmp_path, 2 * inventory.HOUR)
    assert run(store, data, "--all") == 0
    assert (precious / f"{atomic_write.BEGUN}x").is_file()
