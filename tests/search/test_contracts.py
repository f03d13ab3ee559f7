"""The contracts of perturbations: what breaks one is found, by its name, and what keeps them all is left alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import helpers
import pytest
import torch

from robustness import cards
from robustness.perturbations import UniformNoise
from robustness.search import contracts

CARD = helpers.CARD.replace("normal", "uniform").replace("gaussian", "uniform")


@pytest.fixture
def sweep(tmp_path):
    """A workspace and a card with a sweep of uniform noise."""
    path = helpers.project(tmp_path / "project", card=CARD)
    return helpers.open_workspace(path), cards.load(path)


def broken(sweep, monkeypatch, perturb):
    """Look for what a perturbation breaks that does this with (module, inputs, strength)."""
    workspace, card = sweep
    module = workspace.classifier(card).module

    def prepare(self, batch):
        return lambda strength, out: out.copy_(perturb(module, batch.inputs, strength))

    monkeypatch.setattr(UniformNoise, "prepare", prepare)
    return contracts.find_violations(workspace, card, "uniform")


def test_what_keeps_all_is_left_alone(sweep, monkeypatch):
    assert contracts.find_violations(*sweep, "uniform") == {}
    assert broken(sweep, monkeypatch, lambda module, inputs, strength: (inputs + strength).clamp(0, 1)) == {}


def drawn(module, inputs, strength):
    """Noise of a generator that nobody seeds."""
    return (inputs + strength * torch.rand(inputs.shape)).clamp(0, 1)


def trained(module, inputs, strength):
    """A perturbation that nudges the weights."""
    with torch.no_grad():
        next(module.parameters()).add_(1e-3)
    return inputs


@pytest.mark.parametrize(
    ("perturb", "contract"),
    [
        (lambda module, inputs, strength: inputs - strength, "inside [0, 1]"),
        (lambda module, inputs, strength: (inputs + 1.5 * strength).clamp(0, 1), "inside its ball"),
        (lambda module, inputs, strength: (inputs + max(strength, 1e-3)).clamp(0, 1), "identity at strength 0"),
        (drawn, "deterministic"),
        (trained, "leaves no trace"),
    ],
)
def test_what_breaks_one_is_found(sweep, monkeypatch, perturb, contract):
    """Catches: a contract that is never tried, a case whose first outcome is taken for the second."""
    found = broken(sweep, monkeypatch, perturb)
    assert contract in found
    assert set(found) <= {contract, "inside its ball"}
    assert "at strength" in found[contract]


def test_a_perturbation_that_breaks_later_is_found_with_a_warm_store(tmp_path):
    """Catches: findings that are believed although the code of what was checked is another now."""
    card = helpers.project(tmp_path / "project", card=helpers.CARD.replace('"gaussian"', '"fgsm"'))
    shutil.copy(helpers.ROOT / "suites" / "test_properties.py", card.parent)
    package = Path(contracts.__file__).parents[1]
    copied = shutil.copytree(package, tmp_path / "site" / "robustness", ignore=shutil.ignore_patterns("__pycache__"))

    def run():
        told = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "test_properties.py::test_contracts", "-p", "no:cacheprovider",
             "--robustness-card", card, "--robustness-store", tmp_path / "store"],
            cwd=card.parent, env={**os.environ, "PYTHONPATH": str(copied.parent)}, capture_output=True, text=True,
            timeout=helpers.LIMIT,
        )  # fmt: skip
        return told.returncode, told.stdout + told.stderr

    assert run()[0] == 0
    kept = list((tmp_path / "store" / "findings").rglob("*.json"))
    assert len(kept) == 1
    assert run()[0] == 0
    assert list((tmp_path / "store" / "findings").rglob("*.json")) == kept  # believed: nothing was looked for again
    fgsm = copied / "perturbations" / "fgsm.py"
    text = fgsm.read_text()
    assert "return steepest_direction(ascent, self.norm, out=ascent)" in text
    fgsm.write_text(
        text.replace(
            "return steepest_direction(ascent, self.norm, out=ascent)",
            "return 1.3 * steepest_direction(ascent, self.norm)",
        )
    )
    code, said = run()
    assert code == 1, said
    assert "inside its ball" in said
