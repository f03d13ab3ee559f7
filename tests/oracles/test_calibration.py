"""The calibration error against torchmetrics; run by `tox -e oracles`, which installs it."""

import importlib.util

import numpy as np
import pytest
import torch

import robustness.util.torchvision_compat
from robustness.metrics.calibration import expected_calibration_error

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("torchmetrics") is None,
        reason="torchmetrics not installed; `tox -e oracles` installs it",
    ),
    pytest.mark.filterwarnings("ignore"),  # theirs
]


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("bins", [10, 15])
def test_the_error_is_torchmetrics(classes, sharpness, bins):
    """
    Catches: another binning, another weight of the bins, another norm.

    Without confidences of 1: torchmetrics puts these into a bin of their own, Guo et al. into the last one.
    """
    _ = robustness.util.torchvision_compat.torchvision
    from torchmetrics.functional.classification import multiclass_calibration_error

    random = np.random.default_rng(3)
    labels = random.integers(0, classes, 2000)
    logits = sharpness * (random.normal(size=(2000, classes)) + np.eye(classes)[labels])
    p = torch.from_numpy(logits).softmax(1)
    assert p.max() < 1
    due = multiclass_calibration_error(p, torch.from_numpy(labels), num_classes=classes, n_bins=bins, norm="l1")
    found = expected_calibration_error(p.amax(1).numpy(), p.argmax(1).numpy() == labels, bins)
    assert found == pytest.approx(due.item(), abs=1e-5)  # theirs in float32
