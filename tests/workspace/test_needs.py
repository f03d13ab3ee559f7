"""Recipes that need other trained models: trained first, once, and part of what the weights depend on."""

import helpers
import pytest
import torch
from helpers import open_workspace

from robustness import cards
from robustness.errors import CardError
from robustness.workspace import models

pytestmark = pytest.mark.usefixtures("own_path")

MODULE = """
import torch
from torch import nn

def factory(outputs=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, outputs))

def teach(module, images, job, value=1.0):
    nn.init.constant_(module[1].weight, value + job.seed)
    return module

def learn(module, images, job):
    with torch.no_grad():
        module[1].weight.copy_(2 * job.needs["teacher"][1].weight)
        job.needs["teacher"][1].weight.zero_()  # no recipe may reach the needed model itself
    return module
"""


@pytest.fixture
def student(tmp_path):
    """A student's card beside its teacher's."""
    path = helpers.project(tmp_path / "project", MODULE, helpers.CARD.replace(":recipe", ":teach"))
    path = path.rename(path.with_name("teacher.toml"))
    text = path.read_text().replace(":teach", ":learn").replace('"tiny"', '"student"')
    other = path.with_name("student.toml")
    other.write_text(text.replace("[data]", 'needs = { teacher = "teacher.toml" }\n\n[data]'))
    return other


def edited(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_the_needed_model_is_trained_and_handed_over(student):
    """Catches: an untrained teacher, a teacher that a student may change."""
    made, card = open_workspace(student), cards.load(student)
    weight = made.classifier(card).module[1].weight
    assert torch.equal(weight, torch.full_like(weight, 2.0))
    teacher = made.classifier(models.needed(card)["teacher"]).module
    assert torch.equal(teacher[1].weight, torch.full_like(weight, 1.0))


def test_weights_depend_on_what_the_needed_ones_depend_on(student):
    """Nothing is trained to tell. Catches: a student that stays when its teacher has changed; names in the hash."""
    made, teacher = open_workspace(student), student.with_name("teacher.toml")

    def key():
        return models.recipe_hash(made, cards.load(student))

    before = key()
    edited(teacher, '"tiny"', '"renamed"')
    assert key() == before
    edited(teacher, "[data]", "arguments = { value = 3.0 }\n\n[data]")
    changed = key()
    assert changed != before
    edited(teacher, "value = 3.0", "value = 1.0")
    edited(teacher, "per_class = 3", "per_class = 4")
    assert key() not in (before, changed)
    assert not (made.store.root / "weights").exists()


def test_committed_weights_of_the_needed_model_count_and_are_not_trained_anew(student):
    """
    As the training images are. Catches: a recipe that is no longer what made the teacher's weights taken for them; a
    student whose shipped teacher is not the one that it is trained on.
    """
    made, teacher = open_workspace(student), student.with_name("teacher.toml")
    teacher.with_name("teacher.safetensors").write_bytes(made.weights(cards.load(teacher)).read_bytes())
    edited(teacher, "[recipe]", 'weights = "teacher.safetensors"\n\n[recipe]')
    before = models.recipe_hash(made, cards.load(student))
    edited(teacher, "[data]", "arguments = { value = 3.0 }\n\n[data]")
    assert models.recipe_hash(open_workspace(student), cards.load(student)) == before
    weight = open_workspace(student).classifier(cards.load(student).reseeded(5)).module[1].weight
    assert torch.equal(weight, torch.full_like(weight, 2.0))


def test_needs_that_cannot_be_met_are_refused(student):
    """Catches: a training that never begins, for it needs itself, and a traceback where a needed card is missing."""
    edited(student.with_name("teacher.toml"), "[data]", 'needs = { student = "student.toml" }\n\n[data]')
    with pytest.raises(CardError, match=r"cannot be needed for its own training: .*student.toml needs .*teacher.toml"):
        open_workspace(student).weights(cards.load(student))
    student.with_name("teacher.toml").unlink()
    with pytest.raises(CardError, match=r"teacher.toml: not a readable TOML file"):
        open_workspace(student).weights(cards.load(student))


def test_a_system_trained_anew_has_its_parts_trained_anew(student):
    """Catches: healthy trainings of a system that all share one teacher, and so claim less spread than there is."""
    made, card = open_workspace(student), cards.load(student)
    weights = {seed: made.classifier(card.reseeded(seed)).module[1].weight for seed in (3, 4)}
    for seed, weight in weights.items():
        assert torch.equal(weight, torch.full_like(weight, 2.0 * (1 + seed)))
    assert models.recipe_hash(made, card.reseeded(3)) != models.recipe_hash(made, card.reseeded(4))
