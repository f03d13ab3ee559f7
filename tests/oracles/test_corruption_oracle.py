"""Our common corruptions against imagecorruptions, the reference on images of any size; run by `tox -e oracles`."""

import importlib.util

import numpy as np
import pytest
import torch
from scipy import ndimage

from robustness.perturbations.common_corruptions.corruption import corrupt

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("imagecorruptions") is None,
        reason="imagecorruptions not installed; `tox -e oracles` installs it",
    ),
    pytest.mark.filterwarnings("ignore"),  # theirs
]
SEVERITIES = range(1, 6)
COUNT, SIDE = 40, 80
BYTE = 1 / 255
EXACT = ("defocus-blur", "zoom-blur", "brightness", "contrast", "jpeg-compression", "gaussian-blur", "saturate")


@pytest.fixture(scope="module")
def pictures():
    """Colour pictures of 80 pixels, which take ImageNet-C's parameters: smooth, with edges, black and white areas."""
    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.normal(size=(COUNT, SIDE, SIDE, 3)), (0, 4, 4, 0.5))
    smooth = 0.5 + 0.2 * smooth / smooth.std() + 0.3 * (smooth.mean(-1, keepdims=True) > 0.3 * smooth.std()) - 0.15
    return (np.clip(smooth, 0, 1) * 255).round().astype(np.uint8)


def ours(pictures, name, severity):
    inputs = torch.from_numpy(pictures.transpose(0, 3, 1, 2)).float() / 255
    return corrupt(inputs, name, severity, seed=1).numpy().transpose(0, 2, 3, 1)


def theirs(pictures, name, severity):
    import imagecorruptions

    return np.stack([imagecorruptions.corrupt(each, severity, name.replace("-", "_")) for each in pictures]) / 255


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", EXACT)
def test_corruptions_without_chance_are_the_references(pictures, name, severity):
    """
    Catches: a wrong kernel, border, table row, colour order or size of the crop.

    The reference cuts to bytes, so it may be one byte lower. JPEG takes the same bytes on both sides.
    """
    some = pictures[:6]
    difference = ours(some, name, severity) - theirs(some, name, severity)
    assert difference.min() > -2e-5
    assert difference.max() < (1e-6 if name == "jpeg-compression" else BYTE + 2e-5)
