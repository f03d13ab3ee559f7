"""The workspace as a library: what is made once, what a key depends on, and what a failure costs."""

import re
import shutil
from pathlib import Path

import helpers
import numpy as np
import pytest
from helpers import open_workspace

from robustness import cards
from robustness.errors import DataMissing, ModelError, SweepError, TrainingError
from robustness.workspace.context import data_root, store_root
from robustness.workspace.models import train_if_missing

pytestmark = pytest.mark.usefixtures("own_path")

SOURCE = """
from pathlib import Path
from torch import nn

def log(name):
    with Path(__file__).with_name(name).open("a") as stream:
        stream.write("x")

def factory(scale=1.0, broken=False):
    log("modules")
    if broken:
        raise RuntimeError("no luck")
    class Scaled(nn.Sequential):
        def forward(self, inputs):
            return scale * super().forward(inputs)
    return Scaled(nn.Flatten(), nn.Linear(784, 10))

def recipe(module, images, job, fails=False):
    log("trainings")
    if fails:
        raise RuntimeError("no luck")
    return module
"""
CARD = (
    helpers.CARD.replace("strengths = [0.2, 0.8]", "strengths = [0.0, 0.2, 0.8]")
    + """
[sweeps.uniform]
kind = "uniform"
strengths = [0.5]
"""
)


@pytest.fixture
def path(tmp_path) -> Path:
    """A card's file; its project logs every training and every module that is built."""
    return helpers.project(tmp_path / "project", SOURCE, CARD)


def edited(path: Path, old: str, new: str, name: str = "edited.toml") -> cards.Card:
    text = path.read_text()
    assert old in text
    other = path.with_name(name)
    other.write_text(text.replace(old, new, 1))
    return cards.load(other)


def logged(path: Path, name: str) -> int:
    log = path.parents[1] / name
    return len(log.read_text()) if log.exists() else 0


def test_everything_is_made_once(path):
    """Catches: a training a sweep, a module a sweep, a clean pass for every sweep, a look at the store that sweeps."""
    made, card = open_workspace(path), cards.load(path)
    key = made.key(card, "normal")
    assert made.cached_evidence(card, "normal", key) is None
    assert list(made.store.entries()) == []
    first = {sweep: made.evidence(card, sweep) for sweep in ("normal", "clean", "uniform")}
    assert first["normal"].strengths == ("0", "0.2", "0.8")
    assert first["uniform"].strengths == ("0.5",)
    assert np.array_equal(first["normal"].predictions[0], first["clean"].predictions[0])
    assert made.evidence(card, "uniform") is first["uniform"]
    assert (logged(path, "trainings"), logged(path, "modules")) == (1, 2)
    entries = dict(made.store.entries())
    assert sorted(e.provenance["label"] for e in entries.values()) == ["tiny:clean", "tiny:normal", "tiny:uniform"]
    again = open_workspace(path)
    assert again.cached_evidence(card, "normal", key).digest == first["normal"].digest
    assert {sweep: again.evidence(card, sweep).digest for sweep in first} == {s: e.digest for s, e in first.items()}
    assert (logged(path, "trainings"), logged(path, "modules")) == (1, 2)
    assert again.notices == made.notices == []


def test_key_of_another_place_and_name(path, tmp_path):
    """Catches: a card's name, its path or the store's in the key: evidence that is lost when a project moves."""
    made = open_workspace(path)
    key = made.key(cards.load(path), "normal")
    assert made.key(edited(path, 'name = "tiny"', 'name = "other"'), "normal") == key
    made.evidence(cards.load(path), "normal")
    shutil.copytree(path.parents[1], tmp_path / "elsewhere" / "project")
    shutil.copytree(made.store.root, tmp_path / "elsewhere" / "store")
    moved = tmp_path / "elsewhere" / "project" / "models" / "tiny.toml"
    there = open_workspace(moved)
    assert there.key(cards.load(moved), "normal") == key
    there.evidence(cards.load(moved), "normal")
    assert there.notices == []
    assert (logged(moved, "trainings"), logged(moved, "modules")) == (1, 2)  # as they were copied


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind = "gaussian"', 'kind = "gaussian"\nbound = 1.0'),
        ('kind = "gaussian"', 'kind = "uniform"'),
        ("[0.0, 0.2, 0.8]", "[0.0, 0.2, 0.7]"),
        ("[0.0, 0.2, 0.8]", "[0.0, 0.8, 0.2]"),
        ("[0.0, 0.2, 0.8]", "[0.2]"),
        ('kind = "gaussian"', 'kind = "gaussian"\nunit = "snr"'),
        ("per_class = 3", "per_class = 4"),
        ("per_class = 3", "per_class = 3, seed = 1"),
        ("[recipe]\n", "[recipe]\nseed = 1\n"),
        ("[recipe]\n", "[recipe]\narguments = { fails = false }\n"),
        ("[model]\n", "[model]\narguments = { scale = 2.0 }\n"),
    ],
)
def test_key_of_other_content(path, old, new):
    """Catches: evidence of one thing believed for another."""
    made = open_workspace(path)
    first, second = cards.load(path), edited(path, old, new)
    if "[recipe]\narguments" in new:  # other arguments that train the same weights are the same evidence
        assert made.key(first, "normal") == made.key(second, "normal")
        assert logged(path, "trainings") == 2
    else:
        assert made.key(first, "normal") != made.key(second, "normal")
    assert (
        len({made.key(first, "normal"), made.key(first, "clean"), open_workspace(path, seed=1).key(first, "normal")})
        == 3
    )


def test_cards_that_share_weights(path):
    """Catches: modules by the file of their weights alone: one card's numbers under another's name."""
    made, card = open_workspace(path), cards.load(path)
    other = edited(path, "[model]\n", "[model]\narguments = { scale = -1.0 }\n")
    weights = made.weights(card)
    shutil.copy(weights, path.with_name("shared.safetensors"))
    card, other = (
        edited(each.path, "[model]\n", '[model]\nweights = "shared.safetensors"\n', each.path.name)
        for each in (card, other)
    )
    assert made.weights(card) == made.weights(other)
    assert made.classifier(card).module is not made.classifier(other).module
    ours, theirs = made.evidence(card), made.evidence(other)
    assert not np.array_equal(ours.predictions, theirs.predictions)


def test_seeds_of_one_card(path):
    """Catches: weights by the card's path alone."""
    made, card = open_workspace(path), cards.load(path)
    files = {made.weights(card.reseeded(seed)) for seed in (0, 1, 2)}
    assert len(files) == 3
    assert made.classifier(card.reseeded(1)).module is not made.classifier(card.reseeded(2)).module


@pytest.mark.parametrize(
    ("line", "new", "error", "times"),
    [
        ("[recipe]\n", "arguments = { fails = true }\n", TrainingError, 1),
        ("[model]\n", "arguments = { broken = true }\n", ModelError, 0),
        ("[model]\n", 'weights = "shared.safetensors"\narguments = { broken = true }\n', ModelError, 0),
    ],
    ids=["recipe", "factory", "factory-with-weights"],
)
def test_training_or_factory_that_fails_is_not_tried_again(path, tmp_path, line, new, error, times):
    """Catches: an hour's training that failed begun anew for every claim, and another sentence the second time."""
    elsewhere = helpers.project(tmp_path / "elsewhere" / "project", SOURCE, CARD)
    shutil.copy(open_workspace(elsewhere).weights(cards.load(elsewhere)), path.with_name("shared.safetensors"))
    made, card, said = open_workspace(path), edited(path, line, line + new), set()
    for sweep in ("clean", "normal", "normal", "uniform"):
        with pytest.raises(error, match="no luck") as caught:
            made.evidence(card, sweep)
        said.add(str(caught.value))
    assert len(said) == 1
    assert (logged(path, "trainings"), logged(path, "modules")) == (times, 1)


def test_data_that_come_later(path):
    """Catches: missing data remembered as a failure."""
    text = re.sub(r"name = \"digits\"\nsplit = .*", 'name = "array"\nfile = "far.npz"', path.read_text())
    path.write_text(text)
    made, card = open_workspace(path), cards.load(path)
    with pytest.raises(DataMissing, match=r"no far\.npz"):
        made.evidence(card)
    made.data_root.mkdir()
    pixels, labels = np.zeros((10, 28, 28), np.uint8), np.arange(10)
    np.savez(made.data_root / "far.npz", train_x=pixels, train_y=labels, test_x=pixels, test_y=labels)
    assert made.evidence(card).status == ("ok",)


def test_unknown_sweep(path):
    with pytest.raises(SweepError, match="tiny has no sweep 'nromal'; its card has clean, normal, uniform"):
        open_workspace(path).evidence(cards.load(path), "nromal")


def test_by_command(path):
    """Catches: a training that only its command may start, started by a run; one that its command cannot start."""
    made, card = open_workspace(path), edited(path, "[recipe]\n", '[recipe]\nstart = "manual"\n')
    with pytest.raises(DataMissing, match="get it with: robustness train tiny"):
        made.evidence(card)
    assert logged(path, "trainings") == 0
    train_if_missing(made, card, by_command=True)
    assert made.evidence(card).status == ("ok",)


def test_notices_once(path):
    made = open_workspace(path)
    for _ in range(3):
        made.notice("something")
    assert made.notices == ["something"]


@pytest.mark.parametrize(("root", "name"), [(store_root, "ROBUSTNESS_STORE"), (data_root, "ROBUSTNESS_DATA")])
def test_roots(root, name):
    """Catches: the environment before what was given, an empty variable taken for the current folder, `~` kept."""
    assert root("given", {name: "other"}) == Path("given")
    assert root(None, {name: "other"}) == Path("other")
    assert root("~/x", {}) == Path.home() / "x"
    assert root(None, {name: ""}) == root(None, {})
    assert root(None, {}).is_absolute()
