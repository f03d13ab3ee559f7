"""Training by a recipe: the same weights whatever process it runs in, and whatever interrupts it."""

import os
import random
import sys

import helpers
import numpy as np
import pytest
import torch

from robustness import cards
from robustness.classifiers import weights
from robustness.errors import ModelError, TrainingError
from robustness.workspace import recipes
from robustness.workspace.recipes import Job
from robustness.workspace.store import Store

FIT = """
from models.mlp import mlp
from models.defences import plain
from torch import nn

def factory():
    return nn.Sequential(mlp(784, (16,), 10)[:-1], nn.Dropout(0.2), nn.Linear(16, 10))

def recipe(module, images, job, **arguments):
    settings = {"optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0, "held_out": 0.0}
    return plain.fit(module, images, job, **{**settings, **arguments})
"""
EPOCHS = helpers.CARD.replace('recipe"', 'recipe"\narguments = {{ epochs = 4, batch_size = 8 }}\nseed = 3\nthreads = 1')


@pytest.fixture(autouse=True)
def clean_slate(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(helpers.ROOT)])


@pytest.fixture
def tiny(tmp_path):
    """A small perceptron with dropout on thirty digits, four epochs."""
    return cards.load(helpers.project(tmp_path / "project", FIT, EPOCHS))


def tensors(content, folder):
    path = folder / "w.safetensors"
    path.write_bytes(content)
    weights.verify_checksum(path)
    return weights.read(path)


def trained(card, folder, **job):
    images = helpers.digits()
    content = recipes.train(card, images, Job(3, **job), {"model": card.name})
    return tensors(content, folder)


def bits(state):
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def globals_():
    """The random state that a process shares, and its threads."""
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(), torch.get_num_threads()  # noqa: NPY002


def test_the_same_seed_gives_the_same_weights_whatever_the_process_is_like(tiny, tmp_path):
    before, threads = globals_(), torch.get_num_threads()
    first = bits(trained(tiny, tmp_path))
    assert globals_() == before, "the process's own random state stays as it was"
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    torch.set_num_threads(threads + 2)
    before = globals_()
    try:
        assert bits(trained(tiny, tmp_path)) == first
        assert globals_() == before
    finally:
        torch.set_num_threads(threads)


def test_another_process_gives_the_same_weights(tiny, tmp_path):
    code = """
import sys, torch
torch.set_num_threads(3); torch.rand(7)
from pathlib import Path
sys.path[:0] = sys.argv[3:]
import helpers
from robustness import cards
from robustness.workspace import recipes
content = recipes.train(cards.load(Path(sys.argv[1])), helpers.digits(), recipes.Job(3), {})
Path(sys.argv[2]).write_bytes(content)
"""
    file = tmp_path / "other.safetensors"
    helpers.run(code, tiny.path, file, helpers.ROOT / "tests", helpers.ROOT)
    assert bits(weights.read(file)) == bits(trained(tiny, tmp_path))


def test_another_seed_gives_other_weights(tiny, tmp_path):
    images = helpers.digits()
    one, other = (tensors(recipes.train(tiny, images, Job(seed), {}), tmp_path) for seed in (3, 4))
    assert all(not torch.equal(one[name], other[name]) for name in one)


class Interrupted(Exception):
    """Stands for a killed process."""


class Interrupts(Job):
    """A job that ends after the first batch of an epoch."""

    after = 0

    def save(self, state):
        super().save(state)
        if state["epochs"] == self.after:
            raise Interrupted


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(tiny, tmp_path, after):
    """Dropout as well: the random state is part of what is kept."""
    whole = bits(trained(tiny, tmp_path))
    store, checkpoint, told = Store(tmp_path / "store"), tmp_path / "store" / "checkpoints" / "key.pt", []
    job = Interrupts(3, checkpoint, None, [], store)
    job.after = after
    before = globals_()
    with pytest.raises(TrainingError, match="raised Interrupted"):
        recipes.train(tiny, helpers.digits(), job, {})
    assert globals_() == before
    random.random()
    again = trained(tiny, tmp_path, checkpoint=checkpoint, store=store, progress=lambda *n: told.append(n))
    assert bits(again) == whole
    assert told[0][0] > after * 4, "the finished epochs are not trained again"
    assert told[-1] == (16, 16)


@pytest.mark.parametrize("tear", ["cut", "emptied", "another state", "a pickle"])
def test_a_torn_checkpoint_is_passed_over_and_said(tiny, tmp_path, tear):
    whole = bits(trained(tiny, tmp_path))
    checkpoint, notices, store = tmp_path / "key.pt", [], Store(tmp_path)
    job = Interrupts(3, checkpoint, None, [], store)
    job.after = 2
    with pytest.raises(TrainingError, match="Interrupted"):
        recipes.train(tiny, helpers.digits(), job, {})
    match tear:
        case "cut":
            checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
        case "emptied":
            checkpoint.write_bytes(b"")
        case "another state":
            torch.save([torch.zeros(2)], checkpoint)
        case "a pickle":
            checkpoint.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    assert bits(trained(tiny, tmp_path, checkpoint=checkpoint, store=store, notices=notices)) == whole
    (notice,) = notices
    assert notice.startswith(f"{checkpoint} cannot be read (")
    assert notice.endswith("; trained from the start")
    assert not os.path.exists("ran")  # noqa: PTH110


def test_a_full_disk_is_said_once_and_the_training_goes_on(tiny, tmp_path, monkeypatch):
    whole = bits(trained(tiny, tmp_path))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    notices = []
    state = trained(tiny, tmp_path, checkpoint=tmp_path / "c" / "key.pt", store=Store(tmp_path), notices=notices)
    assert bits(state) == whole
    (notice,) = notices
    assert notice.startswith("training goes on without a checkpoint: ")
    assert "No space left on device" in notice
    assert list((tmp_path / "c").iterdir()) == []


def with_recipe(folder, body):
    """A card whose recipe does this with (module, images, job)."""
    source = """
import torch
from torch import nn

def factory():
    return nn.Linear(2, 2)

def recipe(module, images, job):
    """
    return cards.load(helpers.project(folder, source + body))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", "must return the trained module, got NoneType"),
        ("return module.state_dict()", "must return the trained module, got OrderedDict"),
        ("raise KeyError('missing')", r"the recipe tiny_.*:recipe raised KeyError: 'missing'"),
        ("nn.init.constant_(module.bias, torch.nan); return module", "training gave non-finite weights in bias"),
        ("nn.init.constant_(module.weight, torch.inf); return module", "training gave non-finite weights in weight"),
        ("return unknown", "raised NameError"),
    ],
)
def test_a_recipe_that_gives_no_weights(tmp_path, body, message):
    card = with_recipe(tmp_path, body)
    before = globals_()
    with pytest.raises(TrainingError, match=message):
        recipes.train(card, helpers.digits(), Job(0), {})
    assert globals_() == before


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    source = FIT.replace("1e-3", "1e30")
    card = cards.load(helpers.project(tmp_path, source, EPOCHS))
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) in epoch \d; .*; try a smaller learning_rate"):
        recipes.train(card, helpers.digits(), Job(0), {})


def test_a_factory_that_fails_is_not_the_recipe_s_fault(tmp_path):
    source = helpers.MODULE.replace("    return nn.S", "    raise ValueError('no')\n    return nn.S")
    card = cards.load(helpers.project(tmp_path, source))
    with pytest.raises(ModelError, match=r"factory raised ValueError: no"):
        recipes.train(card, helpers.digits(), Job(0), {})


def test_a_recipe_computes_with_the_threads_that_its_card_names(tmp_path):
    card = helpers.CARD.replace('recipe"', 'recipe"\nthreads = 5')
    source = helpers.MODULE.replace("job.report(1, 1)", "import torch; job.report(torch.get_num_threads(), 9)")
    told, before = [], torch.get_num_threads()
    card = cards.load(helpers.project(tmp_path, source, card))
    recipes.train(card, helpers.digits(), Job(0, progress=lambda *numbers: told.append(numbers)), {})
    assert told == [(5, 9)]
    assert torch.get_num_threads() == before


def test_what_recipes_draw_from_numpy_and_python_is_seeded_too(tmp_path):
    body = (
        "import random, numpy; nn.init.constant_(module.bias, random.random() + numpy.random.random()); return module"
    )
    card = with_recipe(tmp_path, body)
    one, again, other = (tensors(recipes.train(card, helpers.digits(), Job(s), {}), tmp_path) for s in (0, 0, 1))
    assert bits(one) == bits(again)
    assert not torch.equal(one["bias"], other["bias"])


def test_tied_layers_can_be_trained(tmp_path):
    card = with_recipe(
        tmp_path, "two = nn.Sequential(module, nn.Linear(2, 2)); two[1].weight = module.weight; return two"
    )
    state = tensors(recipes.train(card, helpers.digits(), Job(0), {}), tmp_path)
    assert torch.equal(state["0.weight"], state["1.weight"])


def test_a_card_without_a_recipe_trains_nothing(tmp_path):
    text = helpers.CARD.replace('[recipe]\ncallable = "{module}:recipe"', 'weights = "w.safetensors"')
    card = cards.load(helpers.project(tmp_path, card=text))
    with pytest.raises(TrainingError, match=r"the card names no \[recipe\]"):
        recipes.train(card, helpers.digits(), Job(0), {})


def test_about_stands_in_the_file(tmp_path):
    card = cards.load(helpers.project(tmp_path))
    file = tmp_path / "w.safetensors"
    file.write_bytes(recipes.train(card, helpers.digits(), Job(0), {"recipe": "ab"}))
    assert weights.metadata(file)["recipe"] == "ab"
