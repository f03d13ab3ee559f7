"""Described perturbations: inside the budget, the same from their text, and small once shrunk."""

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from robustness.perturbations.norms import Budget
from robustness.search import strategies
from robustness.search.descriptions import (
    BrightnessContrast,
    CosineField,
    FilledBox,
    Noise,
    PixelChanges,
    ShiftAndRotate,
    parse_description,
)

SHAPE = (1, 8, 8)
SETTINGS = settings(deadline=None, max_examples=60)
BUDGETS = st.one_of(
    st.builds(Budget, norm=st.just("linf"), size=st.floats(0.01, 1)),
    st.builds(Budget, norm=st.just("l2"), size=st.floats(0.01, 5)),
    st.builds(Budget, norm=st.just("l0"), size=st.integers(1, 20).map(float)),
)
KINDS = [
    strategies.pixels(SHAPE), strategies.boxes(SHAPE), strategies.tones(), strategies.waves(), strategies.moves(),
    strategies.noises(),
]  # fmt: skip


def images(seed=0, count=3):
    return np.clip(np.random.default_rng(seed).uniform(-0.3, 1.3, (count, *SHAPE)), 0, 1).astype(np.float32)


@SETTINGS
@given(description=strategies.perturbations(SHAPE), budget=BUDGETS, seed=st.integers(0, 1000))
def test_what_comes_out_is_an_image_inside_the_budget(description, budget, seed):
    before = images(seed)
    after = description.apply(before, budget)
    assert np.array_equal(before, images(seed)), "the images that are given are not changed"
    assert after.dtype == np.float32
    assert ((after >= 0) & (after <= 1)).all()
    delta = (after - before).reshape(3, -1).astype(np.float64)
    size = {
        "linf": np.abs(delta).max(1), "l2": np.linalg.norm(delta, axis=1), "l0": (delta != 0).sum(1)
    }[budget.norm]  # fmt: skip
    assert (size <= budget.size * (1 + 1e-5) + 1e-6).all()


@SETTINGS
@given(description=strategies.perturbations(SHAPE))
def test_the_text_is_the_perturbation(description):
    again = parse_description(description.text)
    assert again == description
    assert np.array_equal(again.apply(images()), description.apply(images()))
    assert "\n" not in description.text
    assert "\n" not in str(description)


@pytest.mark.parametrize(
    "nothing",
    [
        BrightnessContrast(),
        ShiftAndRotate(),
        CosineField(waves=()),
        PixelChanges(pixels=()),
        Noise(seed=1, amplitude=0.0),
    ],
)
def test_nothing_asked_for_is_the_image(nothing):
    assert np.allclose(nothing.apply(images()), images(), atol=1e-6)


def test_whole_pixels_and_quarter_turns_are_exact():
    """Catches: rows for columns, a centre off by half a pixel, a turn the wrong way between two runs."""
    before = images()
    moved = ShiftAndRotate(down=1, right=-2).apply(before)
    assert np.array_equal(moved[..., 1:, :-2], before[..., :-1, 2:])
    assert (moved[..., 0, :] == 0).all()
    assert np.allclose(ShiftAndRotate(degrees=90.0).apply(before), np.rot90(before, axes=(2, 3)), atol=1e-6)


def test_what_the_sentence_says_is_what_happens():
    before = np.full((1, 1, 8, 8), 0.5, np.float32)
    pixel, box = PixelChanges(pixels=((3, 7, 0.2),)), FilledBox(top=1, left=2, height=3, width=4, value=0.9)
    assert str(pixel) == "one pixel at (3, 7) by 0.2"
    changed = np.argwhere(pixel.apply(before) != before)
    assert changed.tolist() == [[0, 0, 3, 7]]
    assert pixel.apply(before)[0, 0, 3, 7] == np.float32(0.7)
    assert (box.apply(before)[0, 0] == np.float32(0.9)).sum() == 12


@pytest.mark.parametrize("strategy", KINDS, ids=["pixels", "box", "tone", "waves", "move", "noise"])
def test_each_kind_changes_something_and_shrinks(strategy):
    """A first example, shrunk without a condition, is the least of its kind."""
    least = find(strategy, lambda description: True)
    assert len(least.text) <= len(find(strategy, lambda d: np.abs(d.apply(images()) - images()).max() > 0).text) + 20


def test_a_condition_on_one_pixel_shrinks_to_that_pixel():
    before = np.zeros((1, *SHAPE), np.float32)
    found = find(
        strategies.perturbations(SHAPE),
        lambda d: d.apply(before)[0, 0, 2, 5] >= 0.3,
        settings=settings(max_examples=3000, derandomize=True, database=None, deadline=None),
    )
    assert isinstance(found, PixelChanges | BrightnessContrast | FilledBox | CosineField | Noise)
    assert found.apply(before)[0, 0, 2, 5] >= 0.3
