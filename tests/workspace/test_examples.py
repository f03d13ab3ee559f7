"""Images of a sweep to look at: that they are those which the evidence speaks of."""

import re

import helpers
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from robustness import cards
from robustness.workspace.examples import examples

pytestmark = pytest.mark.usefixtures("own_path")

SOURCE = """
import torch
from torch import nn

def factory(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))

def recipe(module, images, job):
    return module
"""
CARD = """
name = "tiny"

[model]
factory = "{module}:factory"

[recipe]
callable = "{module}:recipe"

[data]
name = "digits"
split = {{ kind = "balanced", per_class = 120 }}

[sweeps.drawn]
kind = "gaussian"
strengths = [0.0, 0.3, {{ uniform = [0.1, 0.5] }}]

[sweeps.std]
kind = "fgsm"
unit = "image-std"
strengths = [0.02, 0.1]

[sweeps.snr]
kind = "uniform"
unit = "snr"
strengths = [33, 10]

[sweeps.steps]
kind = "pgd"
steps = 3
strengths = [0.03]

[sweeps.far]
kind = "fgsm"
source = "other.toml"
strengths = [0.05]
"""
ROWS = [1199, 3, 998, 1003]
"""Of both chunks of draws, out of order, some near their border."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = helpers.project(tmp_path_factory.mktemp("examples") / "project", SOURCE, CARD)
    bare = path.read_text().partition("[sweeps")[0]
    other = bare.replace('"tiny"', '"other"').replace(':factory"', ':factory"\narguments = { seed = 1 }')
    path.with_name("other.toml").write_text(other)
    return path


@pytest.mark.parametrize("sweep", ["drawn", "std", "snr", "steps", "far"])
def test_examples_are_what_was_swept(path, sweep):
    """
    Catches: draws of other rows, strengths in another unit, a start that is drawn anew, examples of oneself, an image
    that depends on which strengths were made before it.
    """
    workspace, card = helpers.open_workspace(path), cards.load(path)
    found = examples(workspace, card, sweep, ROWS)
    module, images, evidence = workspace.classifier(card).module, workspace.images(card), found.evidence
    assert np.array_equal(found.clean, np.concatenate([images.batch(row, row + 1) for row in ROWS]))
    assert found.perturbed.shape == (len(evidence.strengths), len(ROWS), 1, 28, 28)
    assert found.perturbed.min() >= 0
    assert found.perturbed.max() <= 1
    labels = torch.from_numpy(images.labels[ROWS].astype(np.int64))
    with torch.no_grad():
        logits = [module(torch.from_numpy(each)) for each in found.perturbed]
    losses = torch.stack([cross_entropy(each, labels, reduction="none") for each in logits])
    assert losses.numpy() == pytest.approx(evidence.loss[:, ROWS], abs=1e-5)
    moved = np.linalg.norm((found.perturbed - found.clean).reshape(*found.perturbed.shape[:2], -1), axis=2)
    with np.errstate(divide="ignore"):
        ratios = 20 * np.log10(np.linalg.norm(found.clean.reshape(len(ROWS), -1), axis=1) / moved)
    assert ratios == pytest.approx(evidence.snr[:, ROWS], abs=1e-3)
    last = examples(workspace, card, sweep, ROWS, [len(evidence.strengths) - 1])
    assert np.array_equal(last.perturbed, found.perturbed[-1:])


def test_rows_that_are_not_there_are_refused(path):
    """Catches: a row of the other end of the data, or an error that does not say how many there are."""
    said = re.escape("`rows` must lie in 0 to 1199, the images of digits test, got [1200, -1]")
    with pytest.raises(IndexError, match=said):
        examples(helpers.open_workspace(path), cards.load(path), "std", [1200, 3, -1])
