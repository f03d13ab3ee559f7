"""A project that engines sweep: two models on arrays, and sweeps of every way of working."""

from types import SimpleNamespace

import helpers
import numpy as np
import pytest

from robustness import cards
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

CARD = (
    helpers.ARRAY_CARD
    + """[sweeps.normal]
kind = "gaussian"
strengths = STRENGTHS
[sweeps.fgsm]
kind = "fgsm"
strengths = [0.05, 0.2]
[sweeps.over]
kind = "fgsm"
source = "other.toml"
strengths = [0.1]
"""
)


@pytest.fixture
def write_project(tmp_path, own_path):
    """Return a function that writes a card on these images, beside one that examples are made on."""

    def write(source, pixels, strengths="[0.1]", **modules):
        path = helpers.project(tmp_path / "project", source, CARD.replace("STRENGTHS", strengths), **modules)
        bare = path.read_text().partition("[sweeps")[0]
        path.with_name("other.toml").write_text(bare.replace('"tiny"', '"other"').replace("seed = 1", "seed = 2"))
        np.savez(path.with_name("images.npz"), test_x=pixels, test_y=np.arange(len(pixels)) % 3)
        card = cards.load(path)
        return SimpleNamespace(
            card=card,
            here=tmp_path,
            wanted=[(card, sweep) for sweep in card.file.sweeps],
            workspace=lambda name="store", run=None: Workspace(Store(tmp_path / name, run), tmp_path, threads=1),
            digests=lambda workspace, wanted: {sweep: workspace.evidence(card, sweep).digest for card, sweep in wanted},
        )

    return write
