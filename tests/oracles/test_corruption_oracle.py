"""Our common corruptions against imagecorruptions, the reference on images of any size; run by `tox -e oracles`."""

import importlib.util

import numpy as np
import pytest
import torch
from scipy import ndimage

from robustness.perturbations.common_corruptions import spatter
from robustness.perturbations.common_corruptions.corruption import corrupt
from robustness.perturbations.common_corruptions.severities import NAMES

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

    def made(number):
        seed = {"seed": number} if name in ("impulse-noise", "glass-blur") else {}  # the others take NumPy's
        return imagecorruptions.corrupt(pictures[number], severity, name.replace("-", "_"), **seed)

    return np.stack([made(number) for number in range(len(pictures))]) / 255


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


# The reference's frost are photographs; its elastic transform has no affine map, and its pixels are enlarged by the
# nearest one, unlike ImageNet-C's. Ours are tested against SciPy and Pillow instead.
OTHER = ("frost", "elastic-transform", "pixelate")


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in EXACT + OTHER])
def test_random_corruptions_change_images_as_much_as_the_references(pictures, name, severity):
    """
    Catches: a wrong table row, an amplitude or density that is off by a few per cent, a layer that is added twice.

    Mean and standard deviation of the change are averaged over 40 pictures each. They may differ by 4.5 standard
    errors, and by the byte that the reference loses by cutting twice.
    """
    np.random.seed(severity)  # noqa: NPY002  theirs
    ours_, theirs_ = (made(pictures, name, severity) - pictures / 255 for made in (ours, theirs))
    for of, lost in ((np.mean, BYTE), (np.std, BYTE / 2)):
        mine, due = (of(change, axis=(1, 2, 3)) for change in (ours_, theirs_))
        error = np.sqrt((mine.var() + due.var()) / COUNT)
        assert abs(mine.mean() - due.mean()) < 4.5 * error + lost, of.__name__


def liquids():
    """Smooth layers of bytes as spatter's, with areas that are cut to 0."""
    random = np.random.default_rng(0)
    layers = [ndimage.gaussian_filter(random.normal(0.65, 0.3, (SIDE, 96)), sigma) for sigma in (1, 2, 3, 4)]
    layers = [np.where(layer < 0.68, 0, layer) for layer in layers]
    return [(np.clip(layer, 0, 1) * 255).astype(np.uint8) for layer in layers]


def test_edges_distances_and_equalised_greys_are_opencvs():
    """
    Catches: another norm of the gradient, ties that are decided otherwise, an open border, a table that is not rounded.

    OpenCV's distance with a mask of 5 is up to 2 % off the straight line.
    """
    import cv2

    for layer in liquids():
        tensor = torch.from_numpy(layer).float()[None, None]
        canny = cv2.Canny(layer, 50, 150)
        assert np.array_equal(spatter.edges(tensor)[0, 0].numpy(), canny > 0)
        distance = np.minimum(cv2.distanceTransform(255 - canny, cv2.DIST_L2, 5), 20)
        mine = spatter.distances(torch.from_numpy(canny > 0)[None, None]).clamp(max=20)[0, 0].numpy()
        assert np.allclose(mine, distance, rtol=0.02, atol=1e-4)
        bytes_ = distance.astype(np.uint8)
        equalised = spatter.equalise(torch.from_numpy(bytes_).float()[None, None])[0, 0].numpy()
        assert np.abs(equalised - cv2.equalizeHist(bytes_)).max() <= 1


def test_the_relief_of_drops_is_opencvs():
    """Catches: a filter that is turned, a step that is left out; a distance cut to the byte below may differ."""
    import cv2

    for layer in liquids():
        distance = cv2.distanceTransform(255 - cv2.Canny(layer, 50, 150), cv2.DIST_L2, 5)
        distance = cv2.equalizeHist(cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8))
        lit = cv2.filter2D(distance, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
        due = cv2.blur(lit, (3, 3)).astype(float)
        mine = spatter.relief(torch.from_numpy(layer).float()[None, None])[0, 0].numpy()
        assert np.corrcoef(mine.ravel(), due.ravel())[0, 1] > 0.98
        assert np.median(np.abs(mine - due)) <= 2
