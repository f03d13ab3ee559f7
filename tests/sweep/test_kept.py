"""Finished chunks: a sweep that was cut off goes on from them, and decides what it would have decided."""

from contextlib import contextmanager
from unittest.mock import patch

import helpers
import numpy as np
import pytest
import torch
from test_memory import Crowded
from torch import nn

from robustness.metrics.evidence import RAISED
from robustness.perturbations import FGSM, GaussianNoise
from robustness.perturbations.strength import StrengthDistribution
from robustness.sweep.batch import SweepBatches
from robustness.sweep.recorder import ChunkResult
from robustness.sweep.runner import directions, run_sweep
from robustness.util import source_files
from robustness.util.rng import CHUNK
from robustness.workspace import chunk_cache as kept
from robustness.workspace.chunk_cache import StoredChunks
from robustness.workspace.store import Store

KEY = "ab" + "0" * 62
COUNT = 3 * CHUNK + 345
NORMAL = GaussianNoise()


@pytest.fixture(scope="module")
def images():
    return helpers.images(COUNT, shape=(2, 2))


@pytest.fixture
def keeping(tmp_path):
    """Return what keeps the chunks of one sweep, as a run sees it, each written at once."""

    (tmp_path / "net.py").write_text("as it was")
    dependencies = {
        "sources": source_files.hash_files([tmp_path / "net.py"], tmp_path),
        "distributions": source_files.distribution_versions([]),
    }

    def make(run="this", notices=None):
        notice = (lambda message: None) if notices is None else notices.append
        return StoredChunks(
            Store(tmp_path / "store", run), KEY, tmp_path, dependencies=lambda: dependencies, every=0, notice=notice
        )

    return make


def counting(model):
    """Return a model and the sizes of the batches that it sees, in copies of it too: they have the same hook."""
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    return model, seen


@contextmanager
def interrupted(after):
    """Interrupt a sweep, as Ctrl-C would, once it is through with so many images."""
    batch, done = SweepBatches.run_batch, []

    def counted(self, models, start, stop, outcomes):
        batch(self, models, start, stop, outcomes)
        done.append(stop - start)
        if sum(done) > after:
            raise KeyboardInterrupt

    with patch.object(SweepBatches, "run_batch", counted), pytest.raises(KeyboardInterrupt):
        yield


def sweep(images, model=None, perturbation=NORMAL, strengths=(0.1, 0.4), **more):
    return run_sweep(model or helpers.linear(images), images, perturbation, strengths, **{"batch_size": 100, **more})


def finished(keeping):
    return sorted(int(path.stem) for path in keeping().folder.iterdir())


@pytest.mark.parametrize(
    ("perturbation", "strengths", "passes"),
    [
        (NORMAL, [0.1, 0.4], 2),
        (FGSM(), [0.1, 0.2], 3),
        (NORMAL, [StrengthDistribution(uniform=(0.1, 0.5)), 0.3], 2),
    ],
    ids=["normal", "fgsm", "drawn"],
)
def test_it_goes_on_from_what_is_finished(images, keeping, perturbation, strengths, passes):
    """Catches: a chunk swept twice or never, other draws for what is left, numbers that a chunk's file loses."""
    of = {"perturbation": perturbation, "strengths": strengths, "threads": 1, "probabilities": True}
    due = sweep(images, **of)
    with interrupted(2 * CHUNK + 300):
        sweep(images, chunk_cache=keeping(), **of)
    assert finished(keeping) == [0, 1]
    (again, seen), told = counting(helpers.linear(images)), []
    found = sweep(images, again, chunk_cache=keeping(), progress=lambda *n: told.append(n), **of)
    assert found.digest == due.digest
    assert sum(seen) < 0.5 * COUNT * passes
    assert told[0][0] == 2 * CHUNK + 100
    assert told[-1] == (COUNT, COUNT)
    assert found.provenance["notes"] == due.provenance["notes"]


def test_what_took_time_before_is_counted(images, keeping):
    """Catches: evidence put together of finished chunks that says it was made in no time."""
    with interrupted(CHUNK + 300):
        sweep(images, threads=1, chunk_cache=keeping())
    part = keeping().get(0)
    assert part.metadata["seconds"] > 0
    keeping().write(ChunkResult(0, part.arrays, {**part.metadata, "seconds": 1000.0}))
    assert sweep(images, chunk_cache=keeping()).provenance["seconds"] > 1000


def test_threads_and_a_second_cut(images, keeping):
    """Catches: a chunk told as finished while a batch of it still runs."""
    for after in (750, 1450):
        with interrupted(after):
            sweep(images, threads=3, chunk_cache=keeping())
    assert sweep(images, threads=2, chunk_cache=keeping()).digest == sweep(images).digest


@pytest.mark.parametrize("how", ["torn", "changed", "of another chunk", "of other code"])
def test_a_chunk_that_is_not_what_it_was_is_swept_again(images, keeping, tmp_path, how):
    """Catches: a damaged file, one under another's name, or one of a model since changed, taken for finished."""
    with interrupted(2 * CHUNK + 300):
        sweep(images, strengths=[0.1], threads=1, chunk_cache=keeping())
    first, second = (keeping().folder / f"{chunk}.safetensors" for chunk in (0, 1))
    content, notices = bytearray(first.read_bytes()), []
    if how == "torn":
        first.write_bytes(content[:-1])
    elif how == "changed":
        content[-1] ^= 1
        first.write_bytes(content)
    elif how == "of another chunk":
        first.write_bytes(second.read_bytes())
    elif how == "of other code":
        (tmp_path / "net.py").write_text("as it is")
    again, seen = counting(helpers.linear(images))
    found = sweep(images, again, strengths=[0.1], chunk_cache=keeping(notices=notices))
    assert found.digest == sweep(images, strengths=[0.1]).digest
    swept = COUNT - (0 if how == "of other code" else CHUNK)
    assert swept <= sum(seen) < swept + 300
    said = {"torn": "truncated or foreign", "changed": "does not match", "of other code": "older than net.py"}.get(how)
    due = [] if said is None else [True]
    assert [said in notice and notice.endswith("; swept again") for notice in set(notices)] == due


def test_what_failed_is_tried_again_by_the_next_run(images, keeping):
    """Catches: a cell that failed once kept as failed, or cells skipped behind a failure kept as if they had run."""

    class Failing(nn.Module):
        def __init__(self, calls):
            super().__init__()
            self.linear, self.calls, self.count = helpers.linear(images), calls, 0

        def forward(self, inputs):
            self.count += 1
            if self.count in self.calls:
                raise ValueError("no luck")
            return self.linear(inputs)

    found = sweep(images, Failing({40}), threads=1, chunk_cache=keeping())
    assert [status.startswith(RAISED) for status in found.status].count(True) == 1
    assert finished(keeping) == [0, 1]
    part = keeping().get(1)
    assert part.failed
    assert keeping(run="next").get(1) is None
    assert sweep(images, chunk_cache=keeping(run="next")).digest == sweep(images).digest


def test_it_goes_on_in_batches_for_which_there_is_memory(images, keeping):
    """Catches: chunks of two batch sizes in one evidence, memory that must run out once more in every run."""
    model, sizes = counting(Crowded(images, 60))
    sweep(images, model, strengths=[0.1], threads=1, chunk_cache=keeping())
    (keeping().folder / "2.safetensors").unlink()
    sizes.clear()
    found = sweep(images, model, strengths=[0.1], threads=1, chunk_cache=keeping())
    assert found.digest == sweep(images, Crowded(images, 10**9), strengths=[0.1], batch_size=50).digest
    assert (found.provenance["batch_size"], found.provenance["out_of_memory_at"]) == (50, 100)
    assert set(sizes) <= {8, 50}
    assert sizes.count(50) == CHUNK // 50


def test_directions_too(images, keeping):
    """Catches: images counted twice, or not at all, in what is taken over."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    torch.nn.init.zeros_(model[1].weight)  # no gradient: every image is counted
    due, counted = directions(model, images, FGSM(), batch_size=100)
    directions(model, images, FGSM(), batch_size=100, chunk_cache=keeping())
    (keeping().folder / "1.safetensors").unlink()
    found, other = directions(model, images, FGSM(), batch_size=100, chunk_cache=keeping())
    assert np.array_equal(found, due)
    assert other == counted
    assert COUNT in counted.values()


def test_what_is_over_soon_is_not_written(images, tmp_path):
    """Catches: a file a chunk for sweeps that take less time than writing it is worth."""
    few = StoredChunks(Store(tmp_path / "store"), KEY, tmp_path)
    sweep(images, chunk_cache=few)
    assert kept.EVERY >= 1
    assert not few.folder.exists()


NET = """
import os, signal
from pathlib import Path
from torch import nn

class Net(nn.Linear):
    def forward(self, inputs):
        log = Path(__file__).with_name("seen")
        seen = len(inputs) + (int(log.read_text()) if log.exists() else 0)
        log.write_text(str(seen))
        if seen > 4500 and not Path(__file__).with_name("again").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(inputs.flatten(1))

def factory():
    return Net(4, 3)

"""
SWEEPING = """
from robustness import cards
from robustness.workspace import chunk_cache
from robustness.workspace.workspace import Workspace
from robustness.workspace.store import Store
from pathlib import Path
import sys
chunk_cache.EVERY = 0
card = cards.load(Path(sys.argv[1]))
workspace = Workspace(Store(Path(sys.argv[2])), Path("none"), threads=1)
print(workspace.evidence(card, "normal").digest)
"""


def test_a_killed_process(tmp_path):
    """Killed by the system in the second sweep. Catches: chunks that only an orderly end keeps; chunks left behind."""
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 2, 2), dtype=np.uint8)
    card = helpers.ARRAY_CARD + '[sweeps.normal]\nkind = "gaussian"\nstrengths = [0.2]\n'
    path = helpers.project(tmp_path / "project", NET, card)
    np.savez(path.with_name("images.npz"), test_x=pixels, test_y=np.arange(3000) % 3)
    store = tmp_path / "store"
    process = helpers.start(SWEEPING, path, store)
    _, errors = process.communicate(timeout=helpers.LIMIT)
    assert process.returncode == -9, errors
    chunks = sorted((store / "chunks").glob("??/*/*.safetensors"))
    assert [chunk.stem for chunk in chunks] == ["0"]
    (path.parents[1] / "again").touch()
    (path.parents[1] / "seen").write_text("0")
    digest = helpers.run(SWEEPING, path, store).strip()
    assert int((path.parents[1] / "seen").read_text()) < 2500
    assert not list((store / "chunks").glob("??/*"))
    assert digest == helpers.run(SWEEPING, path, tmp_path / "other").strip()
