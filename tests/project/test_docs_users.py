"""The tutorial and the pages on the gate and for the three users hold: every step is done, and said what they show."""

import dataclasses
import shutil
import zipfile

import helpers
import pages
import pytest
from hatchling.builders.wheel import WheelBuilder

DOCS = helpers.ROOT / "docs"
OWN, GATE, JUDGE, REVIEW = (
    DOCS / f"{name}.md" for name in ("own-model", "gate-in-ci", "judge-a-retraining", "review-a-release")
)

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="no bash to type commands into")


def typed(page):
    """The blocks of a page that are done: what is left is a table of a card that another page explains."""
    return [block for block in pages.blocks(page) if block.title or block.language in ("sh", "text")]


@pytest.fixture
def reader(tmp_path):
    """A reader in a copy of a checkout."""
    checkout = tmp_path / "checkout"
    for name in ("models", "suites"):
        shutil.copytree(helpers.ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(helpers.ROOT / name, checkout)
    return pages.Reader(checkout, pages.environment(tmp_path, PYTHONPATH=str(helpers.ROOT)))


def test_the_tutorial(reader):
    """Catches: a step that a beginner cannot do, a gate that is green without a baseline or on a damaged model."""
    reader.follow(typed(DOCS / "tutorial.md"))


def test_a_retraining_passes_and_a_damaged_one_does_not(reader):
    """Catches: commands that no longer work, a gate that is red on a healthy retraining or green on a damaged one."""
    section = "Retrain, gate, damage, gate again"
    trained, passed, _, failed = reader.follow(b for b in pages.blocks(DOCS / "gate.md") if b.section == section)

    assert "written: retrained.safetensors" in trained
    assert "1 gate: 1 passed" in passed
    assert "1 gate: 1 failed" in failed
    assert "worse than retraining explains" in failed


def test_the_pages_for_gate_keeper_trainer_and_reviewer(tmp_path):
    """Catches: pages that do not go on where the one before ends, a weak model that passes, another's numbers."""
    (wheel,) = WheelBuilder(str(helpers.ROOT)).build(directory=str(tmp_path / "wheel"), versions=["standard"])
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    folder = tmp_path / "own"
    folder.mkdir()
    reader = pages.Reader(folder, pages.environment(tmp_path, PYTHONPATH=str(tmp_path / "site")))
    model = [block for block in pages.blocks(OWN) if block.section == "The model"]
    card, named, *_ = [
        block for block in pages.blocks(OWN) if block.section == "Write a card" and block.language != "text"
    ]
    assert named.title == "pyproject.toml"
    reader.follow([*model, dataclasses.replace(card, text=card.commands[0]), named])  # the second command comes again
    for page in (GATE, JUDGE, REVIEW):
        reader.follow(typed(page))
    assert (folder / "review.html").stat().st_size > 10_000


def test_readme_installs_as_the_tutorial_does():
    """Catches: a tutorial that installs what the README no longer does."""
    installs = [block.text.strip() for block in pages.blocks(DOCS / "tutorial.md") if block.section == "Install"]
    (first, *_) = (block for block in pages.blocks(helpers.ROOT / "README.md") if block.language == "sh")
    assert first.text.startswith(installs[0] + " && ")
