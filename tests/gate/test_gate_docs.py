"""The page on the gate holds: what it does to the shipped perceptron is done as it stands, in a copy of a checkout."""

import shutil

import helpers
import pages

SECTION = "Retrain, gate, damage, gate again"


def test_a_retraining_passes_and_a_damaged_one_does_not(tmp_path):
    """Catches: commands that no longer work, a gate that is red on a healthy retraining or green on a damaged one."""
    checkout = tmp_path / "checkout"
    for name in ("models", "suites"):
        shutil.copytree(helpers.ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(helpers.ROOT / name, checkout)
    reader = pages.Reader(checkout, pages.environment(tmp_path, PYTHONPATH=str(helpers.ROOT)))

    told = [each for each in pages.blocks(helpers.ROOT / "docs" / "gate.md") if each.section == SECTION]
    trained, passed, _, failed = reader.follow(told)

    assert "written: retrained.safetensors" in trained
    assert "1 gate: 1 passed" in passed
    assert "1 gate: 1 failed" in failed
    assert "worse than retraining explains" in failed
