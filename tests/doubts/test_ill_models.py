"""Every ill model of the zoo is red with its illness named; what luck can do makes no healthy one red."""

import re

import helpers
import ill_models
import numpy as np
import pytest
import torch
from ill_models import EPSILON, ILL, PER_CLASS
from safetensors.torch import save_file

from robustness.cards.doubts import DOUBTS
from robustness.doubts import permuted_classes
from robustness.doubts.checks import run_checks
from robustness.doubts.knowledge import check_chance


@pytest.fixture(scope="module")
def sound():
    """The network of the zoo before anything ails it."""
    return ill_models.train(ill_models.network())


@pytest.mark.parametrize("ill", ILL, ids=[ill.said for ill in ILL])
def test_an_ill_model_is_red_with_its_illness_named(sound, ill):
    """Catches: an illness that is not seen, or that is told as another one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        answers = run_checks(ill.make(sound), helpers.digits(PER_CLASS), epsilon=EPSILON)
    assert answers[ill.doubt]["doubted"], answers
    assert set(answers) == set(DOUBTS)


def test_the_documentation_shows_the_zoo():
    """Catches: a table of illnesses that nobody has seen, or one of the zoo left out."""
    page = (helpers.ROOT / "docs" / "doubts.md").read_text()
    table = page.partition("## Ill models")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    assert [row for row in rows if row[0] not in ("what is ill", "---")] == [(ill.said, ill.doubt) for ill in ILL]
    assert len(ILL) >= 30


# ------------------------------------------------------------------ luck


@pytest.mark.parametrize(("count", "classes"), [(100, 10), (600, 10), (100, 100), (400, 2)])
def test_what_knows_a_third_of_the_way_is_never_no_better_than_chance(count, classes):
    """Catches: a model that is red by luck: 2,000 draws of one that knows an image in three and guesses the others."""
    draw, labels = np.random.default_rng(0), np.arange(count) % classes
    for _ in range(2000):
        guesses = draw.integers(0, classes, count)
        predictions = np.where(draw.random(count) < 1 / 3, labels, guesses)
        assert not check_chance(labels, predictions, classes)["doubted"]


@pytest.mark.parametrize(("count", "classes"), [(100, 10), (600, 10), (1000, 3)])
def test_what_knows_nothing_is_no_better_than_chance(count, classes):
    labels, draw = np.arange(count) % classes, np.random.default_rng(0)
    guessing = [check_chance(labels, draw.integers(0, classes, count), classes)["doubted"] for _ in range(200)]
    assert np.mean(guessing) > 0.95
    assert check_chance(labels, np.zeros(count, int), classes)["doubted"]
    assert check_chance(labels, (labels + 1) % classes, classes)["doubted"]


def test_the_largest_class_is_no_chance_level():
    """Catches: a model of one rare class, right for 94 of 100 images where always the other is right for 95."""
    labels = (np.arange(1000) % 20 == 0).astype(int)
    predictions = labels.copy()
    predictions[np.flatnonzero(labels == 0)[:60]] = 1
    assert check_chance(labels, predictions, 2)["doubted"] is False
    assert check_chance(labels, np.zeros(1000, int), 2)["doubted"]
    assert check_chance(np.zeros(10, int), np.zeros(10, int), 2)["doubted"] is None
    assert check_chance(np.arange(10) % 2, np.zeros(10, int), 2)["doubted"] is None


@pytest.mark.parametrize("count", [100, 600])
def test_a_weak_model_has_no_permuted_classes(count):
    """Catches: confusions of a weak model told as a permutation, or noise: it was found on the images it is held to."""
    draw, labels = np.random.default_rng(0), np.arange(count) % 10
    names = tuple("abcdefghij")
    for _ in range(300):
        confusion = draw.dirichlet(np.full(10, 0.5), 10) * draw.uniform(0.2, 0.9) + np.eye(10) * 0.3
        confusion /= confusion.sum(1, keepdims=True)
        predictions = np.array([draw.choice(10, p=confusion[label]) for label in labels])
        assert not permuted_classes.explain_by_permutation(labels, predictions, names, 0)["doubted"]


@pytest.mark.parametrize("moved", [(2, 5, 7), (1, 8), (0, 9, 4, 3)])
def test_classes_that_are_exchanged_are_named(moved):
    """Catches: a part of the classes in another order passed over, for accuracy is far from chance."""
    labels, order = np.arange(200) % 10, np.arange(10)
    order[list(moved)] = np.roll(moved, 1)
    answer = permuted_classes.explain_by_permutation(labels, order[labels], tuple("abcdefghij"), 0)
    assert answer["doubted"]
    for one in moved:
        assert f"its {'abcdefghij'[order[one]]} is the data's {'abcdefghij'[one]}" in answer["seen"]


# ------------------------------------------------------------------ whole runs

NETS = """
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})
import ill_models
from robustness import data as datasets
from robustness.data import DataSpec
from robustness.cards.from_options import SPLITS


def build():
    model = ill_models.network()
    return {made}


def images():
    spec = DataSpec.model_validate({{"name": "digits", **SPLITS["digits"]}})
    return datasets.load(spec, "test", root=Path("none"), cache=Path("none"))
"""


@pytest.mark.parametrize(
    ("made", "doubt"),
    [
        ("ill_models.Table(model, own=0.001, images=images())", "jumps within a grey level"),
        ("ill_models.Around(model, after=lambda logits: -logits)", "no better than chance"),
    ],
)
def test_an_ill_model_of_ones_own_is_red_and_no_claim_is_suggested(tmp_path, run_suites, sound, made, doubt):
    """Catches: claims offered beside a doubt; a model that knows nothing, or looks its images up, that is green."""
    (tmp_path / "nets.py").write_text(NETS.format(tests=str(helpers.ROOT / "tests"), made=made))
    save_file({f"model.{name}": value for name, value in sound.state_dict().items()}, tmp_path / "net.safetensors")
    options = {"factory": "nets:build", "weights": "net.safetensors", "dataset": "digits", "profile": "quick"}
    run = run_suites(tmp_path, *(f"--robustness-{name}={value}" for name, value in options.items()))
    assert run.returncode == 1, run.stdout
    assert f"net: {doubt}\n" in run.stdout
    words = " ".join(run.stdout.split())
    assert "These numbers of net are in doubt: " in words
    assert doubt in words.partition("These numbers of net are in doubt: ")[2].partition("Resolve the doubts first")[0]
    assert "What net may claim" not in words
    assert "Traceback" not in run.stdout
