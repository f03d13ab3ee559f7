"""Profiles: every one is a set of sweeps that can be made, fits the images, and costs what is said."""

import re

import helpers
import pytest
from pydantic import TypeAdapter

from robustness import cards
from robustness.cards import profiles
from robustness.cards.profiles import PROFILES, sweeps
from robustness.cards.schema import SweepTable
from robustness.cli import main
from robustness.errors import CardError, DataError

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 48), (3, 224, 224), (1, 512, 512), (4, 1, 1), (3, 4096, 4096)]
TABLES = TypeAdapter(dict[str, SweepTable])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_be_swept_on_images_of_any_size(name, shape):
    """Catches: strengths out of range for huge or tiny images, or two that are rounded to one."""
    found = TABLES.validate_python(sweeps(name, shape))
    assert "clean" not in found
    assert all(len(table.strengths) >= 1 for table in found.values())


def test_strengths_fit_the_images():
    """Catches: one list for all sizes. The field reports 8/255 on small colour images, at most 4/255 on large ones."""
    small, colour, large = (sweeps("default", shape) for shape in ((1, 28, 28), (3, 32, 32), (3, 224, 224)))
    assert 0.3 in small["fgsm"]["strengths"]
    assert round(8 / 255, 4) in colour["apgd"]["strengths"]
    assert max(large["apgd"]["strengths"]) == round(4 / 255, 4)
    assert max(large["blur"]["strengths"]) > 3 * max(small["blur"]["strengths"])
    assert list(small) == ["normal", "uniform", "fgsm", "apgd", "brightness", "contrast", "blur"]
    assert sweeps("thorough", (3, 32, 32)).keys() - colour.keys() == {
        "autoattack",
        "autoattack-l2",
        "rotation",
        "shift",
    }


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({}, "no such profile; known: default, quick, paper, thorough, corruptions; did you mean 'quick'?"),
        ({"qick": {}}, "must have a table per sweep"),
        ({"qick": 3}, "must have a table per sweep"),
        ({"qick": {"kind": "gaussian", "strengths": [0.1]}}, "must have a table per sweep"),
        ({"qick": {"clean": {"kind": "gaussian"}}}, "the clean pass is part of every sweep"),
    ],
)
def test_profiles_that_cannot_be(own, said):
    with pytest.raises(CardError, match=re.escape(said)):
        sweeps("qick", (1, 28, 28), own)


# ------------------------------------------------------------------ in a card

CARD = helpers.CARD.replace('name = "tiny"\n', 'name = "tiny"\nprofile = "quick"\n', 1)


def load(folder, card=CARD):
    return cards.load(helpers.project(folder, card=card))


def test_a_card_takes_a_profile_and_its_own_sweeps_go_before_it(tmp_path):
    """Catches: own sweeps lost, or a profile's beside one of the same name; claims on its sweeps refused."""
    card = load(tmp_path, CARD + "\n[claims.fgsm]\naccuracy = [0.5, 0.4, 0.3]\n")
    due = sweeps("quick", (1, 28, 28))
    assert set(card.file.sweeps) == set(due)
    assert card.file.strengths_of("normal") == (0.2, 0.8)
    assert card.file.strengths_of("fgsm") == tuple(due["fgsm"]["strengths"])
    assert len(list(card.claims())) == 3


def test_a_projects_own_profile_goes_before_one_that_comes_along(tmp_path):
    path = helpers.project(tmp_path, card=CARD)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.robustness.profiles.quick.turn]\nkind = "rotation"\nstrengths = [5.0]\n'
    )
    assert set(cards.load(path).file.sweeps) == {"turn", "normal"}


ARRAY = 'name = "array"\nfile = "far.npz"'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"quick"', '"quik"', "known: default, quick, paper, thorough, corruptions; did you mean 'quick'?"),
        ('"quick"', "3", "profile = 3"),
        ('"quick"', '"quick"\nshape = [28, 28]', "add shape = [channels, height, width], got [28, 28]"),
        ('name = "digits"', ARRAY, "its strengths depend on the image size; add shape ="),
    ],
)
def test_cards_whose_profile_cannot_be(tmp_path, old, new, said):
    with pytest.raises(CardError, match=re.escape(said)):
        load(tmp_path, CARD.replace(old, new, 1).replace('split = {{ kind = "balanced", per_class = 3 }}', ""))


def test_the_shape_that_a_card_says_is_held_against_its_images(tmp_path):
    """Catches: strengths for 224 pixels swept over 28."""
    card = load(tmp_path, CARD.replace('"quick"', '"quick"\nshape = [3, 224, 224]', 1))
    with pytest.raises(DataError, match=r"shape = \[3, 224, 224\]: must be that of digits test, \[1, 28, 28\]"):
        helpers.open_workspace(card.path).images(card)


# ------------------------------------------------------------------ what they cost


def listed(capsys, *arguments):
    assert main.main(["profiles", *arguments]) == 0
    rows, name = {}, ""
    for line in capsys.readouterr().out.splitlines()[2:]:
        cells = re.split(r"  +", line.strip())
        if len(cells) < 4 - (cells[0] == "in all"):
            continue
        if not line.startswith(" "):
            name, *cells = cells
        rows[name, cells[0]] = tuple(map(int, cells[-2:]))
    return rows


def test_passes_are_those_of_the_arithmetic(capsys):
    """
    A pass a strength; FGSM one forward and one backward more; PGD-k k of both for each strength, and a last look.

    Catches: trials of the model counted in, batches counted for images, restarts forgotten.
    """
    rows = listed(capsys)
    assert rows["quick", "normal"] == (3, 0)
    assert rows["quick", "fgsm"] == (3 + 1, 1)
    assert rows["quick", "pgd"] == ((20 + 1) + 1, 20)
    assert rows["default", "apgd"][1] == 50 + 50  # an image resists once; the trial's model has 1 target
    assert rows["quick", "in all"] == (32, 21)


def test_a_projects_own_profiles_are_listed_and_their_mistakes_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profiles, "PROFILES", {})
    project = tmp_path / "pyproject.toml"
    project.write_text('[tool.robustness.profiles.ours.turn]\nkind = "rotation"\nstrengths = [5.0, 9.0]\n')
    assert listed(capsys)["ours", "turn"] == (2, 0)
    project.write_text('[tool.robustness.profiles.ours.turn]\nkind = "rotation"\nstrengths = [500.0]\n')
    assert main.main(["profiles"]) == 2
    assert "profile 'ours': sweeps.turn: `strengths` of rotation must lie in" in capsys.readouterr().err
