"""Bounds that hold for the papers' own models, on real data: trained, attacked, and kept in the store, on request."""

import os

import helpers
import pytest

from robustness import cards
from robustness.workspace.context import data_root, store_root
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

pytestmark = pytest.mark.skipif(
    not os.environ.get("ROBUSTNESS_PAPER_MODELS"),
    reason="trains the papers' models (minutes): set ROBUSTNESS_PAPER_MODELS=1, and ROBUSTNESS_DATA to a data root",
)


def test_advgan_misleads_the_mnist_perceptron():
    """At k = 0.3, the largest L∞ change, accuracy is under 20 % (Xiao et al. 2018 report a few percent)."""
    card = cards.load(helpers.ROOT / "models" / "mnist-mlp.toml")
    evidence = Workspace(Store(store_root()), data_root()).evidence(card, "gan")
    clean, attacked = ((evidence.predictions[evidence.index(k)] == evidence.labels).mean() for k in ("0.05", "0.3"))
    assert evidence.status[evidence.index("0.3")] == "ok"
    assert len(evidence.labels) == 10_000
    assert attacked < 0.2 < clean
