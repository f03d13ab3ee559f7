"""Attacks of other libraries, where none is installed: what the user is told. The rest is in tests/oracles."""

import builtins
import importlib

import numpy as np
import pytest
from pydantic import ValidationError
from torch import nn

from robustness.data.images import from_arrays
from robustness.errors import MissingLibrary
from robustness.perturbations.external import MODULES, External
from robustness.sweep.runner import run_sweep


@pytest.mark.filterwarnings("ignore")  # torchvision's own, at its first import
@pytest.mark.parametrize("library", MODULES)
def test_a_library_that_is_missing_is_said_with_its_extra(library, monkeypatch):
    real = importlib.import_module

    def without(name, *more, **others):
        if name == MODULES[library]:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *more, **others)

    monkeypatch.setattr(importlib, "import_module", without)
    images = from_arrays(np.zeros((2, 4, 4), np.uint8), [0, 1])
    with pytest.raises(MissingLibrary, match=r'pip install "pytest-robustness\[oracles\]"'):
        run_sweep(
            nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), images, External(library=library, attack="FGSM"), [0.1]
        )


def test_nothing_of_theirs_is_imported_with_a_card(monkeypatch):
    """Catches: reading a card that names an attack of a library that is not installed."""
    real = builtins.__import__

    def guarded(name, *more):
        assert name.partition(".")[0] not in ("foolbox", "torchattacks", "art", "cleverhans")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", guarded)
    made = External.model_validate({"library": "art", "attack": "DeepFool", "arguments": {"max_iter": 5}})
    assert made.distributions() == {"art"}


@pytest.mark.parametrize("wrong", [{"library": "advertorch"}, {"arguments": {"eps": float("nan")}}, {"eps": 0.1}])
def test_what_is_no_attack_is_refused(wrong):
    with pytest.raises(ValidationError):
        External.model_validate({"library": "art", "attack": "DeepFool"} | wrong)
