"""Where memory ends: a sweep goes on in smaller batches, decides the same, and says so."""

import helpers
import numpy as np
import pytest
import torch
from torch import nn

from robustness import cards
from robustness.metrics.evidence import OK
from robustness.perturbations import FGSM, PGD, Clean, GaussianNoise
from robustness.sweep.runner import directions, run_sweep


class Crowded(nn.Module):
    """Linear; has no memory for more than so many images at once."""

    def __init__(self, images, room, error=None):
        super().__init__()
        self.linear, self.room = helpers.linear(images), room
        self.error = error or torch.OutOfMemoryError("no memory left")

    def forward(self, inputs):
        if len(inputs) > self.room:
            raise self.error
        return self.linear(inputs)


@pytest.fixture
def images():
    return helpers.images(100)


@pytest.mark.parametrize("perturbation", [Clean(), GaussianNoise(), FGSM(), PGD(steps=2)], ids=lambda p: p.kind)
@pytest.mark.parametrize("threads", [1, 2])
def test_evidence_is_that_of_small_batches(images, perturbation, threads):
    """
    80 → 40 → 20 → 10 fit 12. Catches: cells counted as failed, draws that depend on the batch, a status or numbers left
    over from the attempt before, the asked size in the provenance.
    """
    strengths = [0.0] if isinstance(perturbation, Clean) else [0.1, 0.4]
    given = {"batch_size": 80, "threads": threads}
    found = run_sweep(Crowded(images, 12), images, perturbation, strengths, **given)
    due = run_sweep(Crowded(images, 1000), images, perturbation, strengths, batch_size=10)
    assert set(found.status) == {OK}
    assert found.digest == due.digest
    assert found.provenance["batch_size"] == 10
    assert found.provenance["out_of_memory_at"] == 80
    assert "out_of_memory_at" not in due.provenance


@pytest.mark.parametrize("room", [12, 0])
@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")],
    ids=["python", "cpu"],
)
def test_other_words_for_it(images, room, error):
    """An image that does not fit is an error of its cell. Catches: an endless halving, a cell that looks robust."""
    found = run_sweep(Crowded(images, room, error), images, GaussianNoise(), [0.1], batch_size=16)
    if room:
        assert (found.status, found.provenance["batch_size"]) == ((OK,), 8)
    else:
        assert found.status[0].startswith(f"raised {type(error).__name__}")
        assert (found.predictions == -1).all()
        assert found.provenance["batch_size"] == 1


def test_another_error_is_no_reason_to_begin_anew(images):
    """Catches: any RuntimeError taken for a lack of memory."""
    model = Crowded(images, 12, RuntimeError("shapes do not match"))
    found = run_sweep(model, images, GaussianNoise(), [0.1], batch_size=80)
    assert found.status[0].startswith("raised RuntimeError: shapes")
    assert found.provenance["batch_size"] == 80


def test_directions_too(images):
    """Catches: images counted in two attempts, directions of the first kept."""
    found, counted = directions(Crowded(images, 12), images, FGSM(), batch_size=80)
    due, other = directions(Crowded(images, 1000), images, FGSM(), batch_size=10)
    assert np.array_equal(found, due)
    assert counted == other


SOURCE = """
import torch
from torch import nn

class Net(nn.Linear):
    def forward(self, inputs):
        if len(inputs) > 4:
            raise torch.OutOfMemoryError("no memory left")
        return super().forward(inputs.flatten(1))

def factory():
    return Net(784, 10)

def recipe(module, images, job):
    return module
"""


def test_the_run_says_so(tmp_path, own_path):
    """Catches: a sweep that took other batches in silence."""
    path = helpers.project(tmp_path, SOURCE)
    workspace = helpers.open_workspace(path)
    evidence = workspace.evidence(cards.load(path), "normal")
    assert set(evidence.status) == {OK}
    (said,) = [
        text for text in workspace.notices if text.startswith("memory ran out sweeping tiny:normal in batches of")
    ]
    assert said.endswith(f"in batches of {evidence.provenance['batch_size']}")
