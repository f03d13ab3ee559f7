"""What an engine has to make, executed here, in this process: rounds, failures, locks; no cluster is needed."""

import pickle
import threading

import numpy as np
import pytest

from robustness import cards
from robustness.engines import worker
from robustness.engines.scheduler import ChunkScheduler
from robustness.errors import EngineError
from robustness.util.rng import CHUNK
from robustness.workspace.store import Store

COUNT = 2 * CHUNK + 345
MODULE = """
from torch import nn

def factory():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
"""


@pytest.fixture
def project(write_project):
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4), dtype=np.uint8)
    return write_project(MODULE, pixels, "[0.1, {{ uniform = [0.0, 0.5] }}]")


class Here:
    """Executes tasks in this process, by what can be pickled; a unit for which ``told`` gives something is not made."""

    def __init__(self, workspace, monkeypatch, told=lambda task, chunk: None):
        self.units, self.told = [], told

        def unpacked(shipped, get):
            assert dict(shipped.files)
            for _, content in shipped.files:
                assert isinstance(get(content), bytes)
            return workspace.classifier(cards.load(shipped.card.path)).module

        monkeypatch.setattr(worker, "unpack_model", unpacked)

    def __call__(self, tasks, units, contents):
        tasks = pickle.loads(pickle.dumps(tasks))
        holder = worker.ChunkWorker(tasks, lambda name: pickle.loads(pickle.dumps(contents[name]())))
        for number, chunk in units:
            self.units.append((tasks[number], chunk))
            told = worker.one(holder, number, chunk)
            yield told | (self.told(tasks[number], chunk) or {})


def test_it_is_what_a_plain_sweep_decides(project, monkeypatch):
    """Catches: other draws in a worker, a transfer made on another model, directions made twice, chunks left behind."""
    workspace = project.workspace()
    here = Here(workspace, monkeypatch)
    filling = ChunkScheduler(workspace, here)
    filling.run(project.wanted)
    assert filling.failed == {}
    assert workspace.notices == [f"{name}: its weights are random (seed {seed}), as the card says" for name, seed in
                               (("tiny", 1), ("other", 2))]  # fmt: skip
    made = [(task.title, task.directions, task.perturbation.kind, task.source is not None) for task, _ in here.units]
    assert len(made) == 3 * (2 + 3 + 1 + 1)  # clean twice; three sweeps; the source's own; its directions
    assert sum(directions for _, directions, *_ in made) == 3
    plain = project.workspace("plain")
    assert project.digests(project.workspace(), project.wanted) == project.digests(plain, project.wanted)
    stored = dict(workspace.store.entries())
    for path, evidence in plain.store.entries():
        found = stored[workspace.store.root / path.relative_to(plain.store.root)]
        for name in ("key", "subject", "state", "batch_size", "memory_format", "device", "sources", "doubts", "notes"):
            assert found.provenance[name] == evidence.provenance[name], name
    assert not list(workspace.store.root.glob("chunks/??/*"))
    again = Here(workspace, monkeypatch)
    ChunkScheduler(project.workspace(), again).run(project.wanted)
    assert again.units == []


FITTED = """[0.1]
[sweeps.gan]
kind = "advgan"
steps = 2
strengths = [0.1]
[sweeps.patch]
kind = "patch"
steps = 2
sides = [0.5]
strengths = [0.5, 1.0]
"""


def test_what_is_fitted_reaches_the_workers(write_project, monkeypatch):
    """Catches: a generator read as a patch, or one that is fitted anew in a worker."""
    pixels = np.random.default_rng(0).integers(0, 256, (CHUNK + 5, 4, 4), dtype=np.uint8)
    project = write_project(MODULE, pixels, FITTED)
    arrays = {"test_x": pixels, "test_y": np.arange(len(pixels)) % 3}
    trained = {"train_x": pixels[:50], "train_y": arrays["test_y"][:50]}
    np.savez(project.card.path.with_name("images.npz"), **arrays, **trained)
    wanted = [(project.card, sweep) for sweep in ("gan", "patch")]
    workspace = project.workspace()
    filling = ChunkScheduler(workspace, Here(workspace, monkeypatch))
    filling.run(wanted)
    assert filling.failed == {}
    assert project.digests(project.workspace(), wanted) == project.digests(project.workspace("plain"), wanted)


def test_it_goes_on_after_an_engine_that_died(project, monkeypatch):
    """Catches: finished chunks made again, a sweep that is found half made called whole."""

    def dies(task, chunk):
        if task.perturbation.kind == "fgsm" and not task.directions and task.source is None and chunk == 1:
            raise EngineError("the cluster is gone")

    workspace = project.workspace()
    here = Here(workspace, monkeypatch, dies)
    with pytest.raises(EngineError):
        ChunkScheduler(workspace, here).run(project.wanted)
    assert list(workspace.store.root.glob("chunks/??/*/0.safetensors"))
    before = len(here.units)
    workspace = project.workspace()
    again = Here(workspace, monkeypatch)
    filling = ChunkScheduler(workspace, again)
    filling.run(project.wanted)
    assert filling.failed == {}
    assert before - 1 + len(again.units) == 3 * 7
    assert project.digests(workspace, project.wanted) == project.digests(project.workspace("plain"), project.wanted)


def test_what_fails_stops_nothing_else(project, monkeypatch):
    """Catches: one bad sweep that takes all with it, one made again without end, a failure that other workers miss."""
    workspace = project.workspace()
    here = Here(workspace, monkeypatch, lambda task, chunk: {"error": "no luck"} if task.unit == "default"
                and task.perturbation.kind == "gaussian" and chunk == 1 else None)  # fmt: skip
    filling = ChunkScheduler(workspace, here)
    filling.run(project.wanted)
    assert list(filling.failed.values()) == ["tiny:normal: no luck"]
    assert len(here.units) == 3 * 7
    assert workspace.stored_evidence(project.card, workspace.key(project.card, "over")) is not None
    (marker,) = workspace.store.root.glob("attempts/evidence-*.json")
    assert "no luck" in marker.read_text()


def test_less_memory_means_smaller_batches(project, monkeypatch):
    """Catches: chunks of two batch sizes in one evidence; a sweep given up where half of the batch would do."""

    def full(task, chunk):
        too_large = task.batch_size > 100 and task.perturbation.kind == "gaussian"
        return {"full": True, "content": b""} if too_large else None

    workspace = project.workspace()
    ChunkScheduler(workspace, Here(workspace, monkeypatch, full)).run([(project.card, "normal")])
    evidence = workspace.stored_evidence(project.card, workspace.key(project.card, "normal"))
    assert evidence.provenance["out_of_memory_at"] > evidence.provenance["batch_size"]
    assert evidence.provenance["batch_size"] <= 100
    assert set(evidence.status) == {"ok"}


def test_two_drivers_on_one_store(project, monkeypatch):
    """Catches: a sweep made by both, two that wait for each other, one that does not see what the other has made."""
    said, held, release = [], threading.Event(), threading.Event()
    workspace = project.workspace()
    key = workspace.key(project.card, "clean")
    workspace.classifier(project.card)

    def say(message):
        said.append((message, len(here.units)))
        release.set()

    def other():
        with Store(workspace.store.root, "other").exclusive(f"evidence-{key}", "sweeping"):
            held.set()
            release.wait(60)
            plain = project.workspace("plain")
            path = plain.store.path("evidence", key)
            plain.evidence(project.card, "clean")
            workspace.store.write(workspace.store.path("evidence", key), path.read_bytes())

    here = Here(workspace, monkeypatch)
    workspace.store.say = say
    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(60)
    try:
        ChunkScheduler(workspace, here).run([(project.card, "normal")])
    finally:
        release.set()
        thread.join()
    assert {task.perturbation.kind for task, _ in here.units} == {"gaussian"}
    assert said == [("waiting for another process: sweeping tiny:clean", len(here.units))], "waited with work left"
    assert workspace.stored_evidence(project.card, workspace.key(project.card, "clean")) is not None
