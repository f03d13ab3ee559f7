"""Training by a recipe: the same weights whatever process it runs in, and whatever interrupts it."""

import os
import random
import sys

import helpers
import numpy as np
import pytest
import torch
from test_healing import WAYS, a_folder

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
    assert weights.metadata(path)["recipe"] == "ab"
    return weights.read(path)


def trained(card, folder, seed=3, **job):
    return tensors(recipes.train(card, helpers.digits(), Job(seed, **job), {"recipe": "ab"}), folder)


def bits(state):
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def globals_():
    """The random state that a process shares, and its threads."""
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(), torch.get_num_threads()  # noqa: NPY002


def test_the_same_seed_gives_the_same_weights_whatever_the_process_is_like(tiny, tmp_path):
    before, threads = globals_(), torch.get_num_threads()
    first = bits(trained(tiny, tmp_path))
    assert globals_() == before, "the process's own random state stays as it was"
    assert all(value != first[name] for name, value in bits(trained(tiny, tmp_path, seed=4)).items())
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


def interrupt(card, checkpoint, store, after):
    """Begin a training that ends, as a killed process would, once its state after some epochs is saved."""

    class Interrupts(Job):
        def save(self, state):
            super().save(state)
            if state["epochs"] == after:
                raise InterruptedError

    with pytest.raises(TrainingError, match="raised InterruptedError"):
        recipes.train(card, helpers.digits(), Interrupts(3, checkpoint, store=store), {})


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(tiny, tmp_path, after):
    """Dropout as well: the random state is part of what is kept."""
    whole = bits(trained(tiny, tmp_path))
    store, checkpoint, told = Store(tmp_path / "store"), tmp_path / "store" / "checkpoints" / "key.pt", []
    before = globals_()
    interrupt(tiny, checkpoint, store, after)
    assert globals_() == before
    random.random()
    again = trained(tiny, tmp_path, checkpoint=checkpoint, store=store, progress=lambda *n: told.append(n))
    assert bits(again) == whole
    assert told[0][0] > after * 4, "the finished epochs are not trained again"
    assert told[-1] == (16, 16)


def another_state(file):
    torch.save([torch.zeros(2)], file)


def a_pickle(file):
    file.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")


@pytest.mark.parametrize("way", [*WAYS[:5], another_state, a_pickle], ids=lambda way: way.__name__)
def test_a_torn_checkpoint_is_passed_over_and_said(tiny, tmp_path, way):
    """Catches: a bit flipped in a training's state, which torch does not see; a pickle that is run; a lost training."""
    whole = bits(trained(tiny, tmp_path))
    checkpoint, notices, store = tmp_path / "checkpoints" / "key.pt", [], Store(tmp_path)
    interrupt(tiny, checkpoint, store, after=2)
    assert Job(3, checkpoint).resume()["epochs"] == 2
    way(checkpoint)
    assert bits(trained(tiny, tmp_path, checkpoint=checkpoint, store=store, notices=notices)) == whole
    if way is not a_folder:
        (notice,) = notices
        assert notice.startswith(f"{checkpoint} cannot be read (")
        assert notice.endswith("; trained from the start")
    assert Job(3, checkpoint).resume() is not None, "the next checkpoint is written in its place"
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


RECIPE = """
import torch
from torch import nn

def factory():
    return nn.Linear(2, 2)

def recipe(module, images, job):
    """
BROKEN = helpers.MODULE.replace("    return nn.S", "    raise ValueError('no')\n    return nn.S")
BARE = helpers.CARD.replace('[recipe]\ncallable = "{module}:recipe"', 'weights = "w.safetensors"')
FAILS = [
    (FIT.replace("1e-3", "1e30"), EPOCHS, TrainingError, r"the loss became (nan|inf) in epoch \d; .*; try a smaller"),
    (BROKEN, helpers.CARD, ModelError, "factory raised ValueError: no"),
    (helpers.MODULE, BARE, TrainingError, r"the card names no \[recipe\]"),
]
FAILS += [
    (RECIPE + body, helpers.CARD, TrainingError, message)
    for body, message in [
        ("pass", "must return the trained module, got NoneType"),
        ("return module.state_dict()", "must return the trained module, got OrderedDict"),
        ("raise KeyError('missing')", r"the recipe tiny_.*:recipe raised KeyError: 'missing'"),
        ("nn.init.constant_(module.bias, torch.nan); return module", "training gave non-finite weights in bias"),
        ("nn.init.constant_(module.weight, torch.inf); return module", "training gave non-finite weights in weight"),
        ("return unknown", "raised NameError"),
    ]
]


@pytest.mark.parametrize(("source", "card", "error", "message"), FAILS, ids=[message[:20] for *_, message in FAILS])
def test_a_recipe_that_gives_no_weights(tmp_path, source, card, error, message):
    """Catches: weights that are no numbers, a factory's fault called the recipe's, random state that stays changed."""
    card, before = cards.load(helpers.project(tmp_path, source, card)), globals_()
    with pytest.raises(error, match=message):
        recipes.train(card, helpers.digits(), Job(0), {})
    assert globals_() == before


def test_a_recipe_computes_with_the_threads_that_its_card_names(tmp_path):
    card = helpers.CARD.replace('recipe"', 'recipe"\nthreads = 5')
    source = helpers.MODULE.replace("job.report(1, 1)", "import torch; job.report(torch.get_num_threads(), 9)")
    told, before = [], torch.get_num_threads()
    card = cards.load(helpers.project(tmp_path, source, card))
    recipes.train(card, helpers.digits(), Job(0, progress=lambda *numbers: told.append(numbers)), {})
    assert told == [(5, 9)]
    assert torch.get_num_threads() == before


def test_what_recipes_draw_from_numpy_and_python_is_seeded_too(tmp_path):
    body = "import random, numpy; module.bias.data.fill_(random.random() + numpy.random.random()); return module"
    card = cards.load(helpers.project(tmp_path, RECIPE + body))
    one, again, other = (trained(card, tmp_path, seed) for seed in (0, 0, 1))
    assert bits(one) == bits(again)
    assert not torch.equal(one["bias"], other["bias"])


def test_tied_layers_can_be_trained(tmp_path):
    body = "two = nn.Sequential(module, nn.Linear(2, 2)); two[1].weight = module.weight; return two"
    state = trained(cards.load(helpers.project(tmp_path, RECIPE + body)), tmp_path)
    assert torch.equal(state["0.weight"], state["1.weight"])
