"""Natural transformations against NumPy's own, SciPy's and closed forms."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from robustness.perturbations import Batch, Brightness, Contrast, GaussianBlur, Rotation, Translation


def changed(perturbation, inputs, strength):
    """Transform (N, C, H, W) as a sweep does."""
    images = torch.from_numpy(np.ascontiguousarray(inputs, np.float32))
    batch = Batch(nn.Identity(), images, torch.zeros(len(images), dtype=torch.long))
    with torch.no_grad():
        return perturbation.prepare(batch)(strength, torch.empty_like(images)).numpy()


@pytest.fixture
def inputs():
    return np.random.default_rng(0).random((3, 2, 9, 12)).astype(np.float32)


def test_brightness_adds_and_clips(inputs):
    assert np.allclose(changed(Brightness(), inputs, 0.3), np.clip(inputs + 0.3, 0, 1))
    assert np.allclose(changed(Brightness(), inputs, -0.3), np.clip(inputs - 0.3, 0, 1))


def test_contrast_is_about_the_images_own_mean(inputs):
    mean = inputs.mean((1, 2, 3), keepdims=True)
    assert np.allclose(changed(Contrast(), inputs, -1.0), np.broadcast_to(mean, inputs.shape), atol=1e-6)
    assert np.allclose(changed(Contrast(), inputs, 1.0), np.clip(2 * inputs - mean, 0, 1), atol=1e-6)


@pytest.mark.parametrize("turns", [1, 2, -1])
def test_quarter_turns_are_exact(turns):
    """Catches: clockwise for counter-clockwise, a centre off by half a pixel."""
    square = np.random.default_rng(1).random((2, 1, 8, 8)).astype(np.float32)
    assert np.allclose(changed(Rotation(), square, 90.0 * turns), np.rot90(square, turns, axes=(2, 3)), atol=1e-5)


def test_a_turn_of_an_oblong_image_keeps_its_shapes():
    """Catches: turning in grid_sample's coordinates, in which an oblong image is a square; SciPy turns in pixels."""
    oblong = ndimage.gaussian_filter(np.random.default_rng(2).random((24, 40)), 2).astype(np.float32)
    ours = changed(Rotation(), oblong[None, None], 30.0)[0, 0]
    theirs = ndimage.rotate(oblong, 30, reshape=False, order=1)
    inner = (slice(8, -8), slice(14, -14))
    assert np.abs(ours[inner] - theirs[inner]).max() < 1e-3


@pytest.mark.parametrize(("angle", "axis", "step"), [(0, 3, 2), (180, 3, -2), (90, 2, -2), (270, 2, 2)])
def test_whole_pixels_are_moved_and_black_comes_in(inputs, angle, axis, step):
    """Catches: up for down, wrapping round, a scale by the wrong side."""
    due = np.roll(inputs, step, axis)
    entering = [slice(None)] * 4
    entering[axis] = slice(0, step) if step > 0 else slice(step, None)
    due[tuple(entering)] = 0
    assert np.allclose(changed(Translation(angle=angle), inputs, 2.0), due, atol=1e-5)


def test_half_a_pixel_is_the_mean_of_two(inputs):
    moved = changed(Translation(), inputs, 0.5)
    assert np.allclose(moved[..., 1:], (inputs[..., 1:] + inputs[..., :-1]) / 2, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.3])
def test_blur_is_scipys(inputs, sigma):
    due = ndimage.gaussian_filter(inputs, sigma, axes=(2, 3), mode="nearest", truncate=4)
    assert np.abs(changed(GaussianBlur(), inputs, sigma) - due).max() < 2e-3
