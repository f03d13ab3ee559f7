"""Trainings on a real cluster of two nodes: the weights are those of one machine, and go on where they were cut off."""

import os
import signal
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import helpers
import pytest
from ray_nodes import two_nodes, wait_for

from robustness import cards
from robustness.classifiers.modules import state_hash
from robustness.engines import parse, trainer
from robustness.errors import EngineError
from robustness.workspace.models import recipe_hash
from robustness.workspace.store import Store
from robustness.workspace.training import train_many
from robustness.workspace.workspace import Workspace

pytest.importorskip("ray", reason='needs a cluster: pip install "pytest-robustness[ray]"')
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and processes to the garbage collector

EPOCHS = 6
MODULE = """
import os, signal, time
from pathlib import Path
import torch
from torch import nn

HERE = Path("{here}")

def factory():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def fit(module, images, job, beside=False):
    before = job.resume() or {{"epoch": 0, "weights": module.state_dict()}}
    module.load_state_dict(before["weights"])
    own = torch.from_numpy(images.batch(0, 10)).flatten(1)
    target = job.needs["teacher"].state_dict()["1.weight"] if beside else own
    for epoch in range(before["epoch"], {epochs}):
        with (HERE / f"epochs-{{job.seed}}").open("a") as stream:
            stream.write(f"{{os.getpid()}} {{epoch}}\\n")
        while epoch == 3 and (HERE / f"hold-{{job.seed}}").exists():
            time.sleep(0.05)
        if (HERE / "wrong").exists() and beside:
            raise ValueError("no luck")
        with torch.no_grad():
            module[1].weight.add_(target, alpha=0.1).add_(torch.rand_like(target))
        job.save({{"epoch": epoch + 1, "weights": module.state_dict()}})
        job.write_log([{{"epoch": done}} for done in range(epoch + 1)])
        job.report(epoch + 1, {epochs})
    return module
"""
CARD = """
name = "{name}"
[model]
factory = "{{module}}:factory"
[recipe]
callable = "{{module}}:fit"
seed = {seed}
[data]
name = "digits"
[data.split]
kind = "balanced"
per_class = 20
"""
NEEDS = """
[recipe.needs]
teacher = "tiny.toml"
[recipe.arguments]
beside = true
"""


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture
def project(tmp_path, own_path):
    """Make a model and two that need it, whose recipe logs its epochs."""
    text = MODULE.format(here=tmp_path, epochs=EPOCHS)
    path = helpers.project(tmp_path / "project", text, CARD.format(name="tiny", seed=1))
    (source,) = path.parents[1].glob("tiny_*.py")
    every = [cards.load(path)]
    for seed in (2, 3):
        other = path.with_name(f"other{seed}.toml")
        card = CARD.format(name=other.stem, seed=seed).replace("[data]", NEEDS.strip() + "\n[data]")
        other.write_text(card.format(module=source.stem))
        every.append(cards.load(other))

    def trained(some, engine=None, store="store"):
        files = train_many(some, tmp_path / store, tmp_path, 1, elsewhere=engine and trainer(engine))
        harness = Workspace(Store(tmp_path / store), tmp_path, threads=1)
        return [state_hash(harness.classifier(card).module) for card, _ in zip(some, files, strict=True)]

    def epochs(seed):
        file = tmp_path / f"epochs-{seed}"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    return SimpleNamespace(
        here=tmp_path,
        cards=every,
        trained=trained,
        epochs=epochs,
        key=lambda card: recipe_hash(Workspace(Store(tmp_path / "store"), tmp_path), card),
    )


@contextmanager
def killed(hold, ready, process):
    """Hold a training at its fourth epoch, and let it go once all was ready and a process was killed."""

    def kill():
        try:
            wait_for(ready)
            os.kill(process(), signal.SIGKILL)
        finally:
            hold.unlink()

    hold.touch()
    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()


def only(found):
    (one,) = found
    return one


def test_weights_are_those_of_one_machine_though_a_worker_dies(cluster, project):
    """Catches: other weights than a training's here, epochs lost with a worker, a needed model trained elsewhere."""
    engine = parse(f"ray={cluster.address}")
    assert project.trained(project.cards[:1], engine)
    with killed(
        project.here / "hold-2",
        lambda: project.epochs(3) and len(project.epochs(2)) == 4,
        lambda: int(project.epochs(2)[-1][0]),
    ):
        found = project.trained(project.cards, engine)
    workers = {seed: {pid for pid, _ in project.epochs(seed)} for seed in (1, 2, 3)}
    assert len(workers[2]) == 2, "what died was begun again"
    assert project.epochs(2)[0][0] not in workers[3], "side by side"
    assert str(os.getpid()) not in set().union(*workers.values())
    assert [epoch for _, epoch in project.epochs(2)] == ["0", "1", "2", "3", "3", "4", "5"]
    logs = Store(project.here / "store").path("logs", project.key(project.cards[1]), "csv")
    assert logs.read_text().split() == ["epoch", *map(str, range(EPOCHS))]
    assert not list((project.here / "store" / "checkpoints").glob("*"))
    assert found == project.trained(project.cards, store="plain")
    assert len(set(found)) == 3


def test_what_the_recipe_raises_ends_all_and_loses_nothing(cluster, project):
    """Catches: a user's error tried again and again, or one that takes a model beside it with it."""
    engine = parse(f"ray={cluster.address}")
    (project.here / "wrong").touch()
    project.trained(project.cards[:1], engine)
    with pytest.raises(EngineError, match=r"training other2 with seed 2: other2: .* raised ValueError: no luck; what"):
        project.trained(project.cards[:2], engine)
    assert len(project.epochs(2)) == 1
    assert Store(project.here / "store").path("weights", project.key(project.cards[0])).is_file()


def test_the_driver_dies_and_another_goes_on(cluster, project):
    """Catches: epochs lost with the driver, locks that it leaves."""
    from test_ray import drivers

    engine, some = parse(f"ray={cluster.address}"), project.cards[:1]
    with (
        killed(project.here / "hold-1", lambda: len(project.epochs(1)) == 4, lambda: only(drivers())),
        pytest.raises(EngineError, match="killed by SIGKILL"),
    ):
        project.trained(some, engine)
    found = project.trained(some, engine)
    assert [epoch for _, epoch in project.epochs(1)].count("0") == 1
    assert found == project.trained(some, store="plain")


def test_images_travel_as_they_are(tmp_path):
    """Catches: groups lost, rows of another set, pixels of a file that only this machine has."""
    import numpy as np

    from robustness.data import from_arrays
    from robustness.engines.ray_training import plain

    pixels = np.random.default_rng(0).integers(0, 256, (9, 5, 4, 3), dtype=np.uint8)
    some = from_arrays(pixels, np.arange(9) % 3, groups=np.arange(9) % 4).select([7, 2, 5], "some")
    sent = plain(some)
    assert sent.fingerprint == some.fingerprint
    assert sent.groups.tolist() == some.groups.tolist()
    assert sent.rows is None
    assert len(sent.pixels) == 3
    assert (sent.batch(0, 3) == some.batch(0, 3)).all()
