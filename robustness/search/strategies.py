"""Hypothesis strategies for described perturbations: few small numbers, which shrink to what a person understands."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from robustness.perturbations.norms import Budget
from robustness.search.descriptions import (
    BrightnessContrast,
    CosineField,
    DescribedPerturbation,
    FilledBox,
    Noise,
    PixelChanges,
    ShiftAndRotate,
)


def amounts(most: float = 1.0) -> SearchStrategy[float]:
    """
    Return changes in ±most in twentieths of it, which shrink towards a small positive one; never 0.

    >>> from hypothesis import find
    >>> find(amounts(0.2), lambda amount: True)
    0.01
    """
    steps = st.integers(1, 20)
    return st.builds(lambda step, minus: round((-1) ** minus * most * step / 20, 6), steps, st.booleans())


def pixels(shape: tuple[int, int, int], most: float = 1.0) -> SearchStrategy[PixelChanges]:
    """Change one to four pixels of images (C, H, W), by up to ``most`` each."""
    one = st.tuples(st.integers(0, shape[1] - 1), st.integers(0, shape[2] - 1), amounts(most))
    several = st.lists(one, min_size=1, max_size=4, unique_by=lambda pixel: pixel[:2])
    return st.builds(lambda found: PixelChanges(pixels=tuple(found)), several)


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, int, int]) -> FilledBox:
    """Fill a rectangle, at most half the image high and wide, with one value."""
    _, height, width = shape
    high, wide = draw(st.integers(1, max(1, height // 2))), draw(st.integers(1, max(1, width // 2)))
    return FilledBox(
        top=draw(st.integers(0, height - high)),
        left=draw(st.integers(0, width - wide)),
        height=high,
        width=wide,
        value=draw(st.integers(0, 10)) / 10,
    )


def tones(most: float = 1.0) -> SearchStrategy[BrightnessContrast]:
    """Change brightness, contrast, or both."""
    some, none = amounts(most), st.just(0.0)
    return st.one_of(
        st.builds(BrightnessContrast, brightness=some, contrast=none),
        st.builds(BrightnessContrast, brightness=none, contrast=some),
        st.builds(BrightnessContrast, brightness=some, contrast=some),
    )


def waves(most: float = 1.0) -> SearchStrategy[CosineField]:
    """Add one to three cosines of at most four half waves a side."""
    one = st.tuples(st.integers(0, 4), st.integers(0, 4), amounts(most))
    return st.builds(lambda found: CosineField(waves=tuple(found)), st.lists(one, min_size=1, max_size=3))


def moves() -> SearchStrategy[ShiftAndRotate]:
    """Shift by up to two pixels, and turn by up to fifteen degrees."""
    few, degrees = st.integers(-2, 2), st.integers(-15, 15).map(float)
    return st.builds(ShiftAndRotate, down=few, right=few, degrees=degrees)


def noises(most: float = 1.0) -> SearchStrategy[Noise]:
    """Add seeded uniform noise."""
    return st.builds(Noise, seed=st.integers(0, 2**16), amplitude=amounts(most).map(abs))


def perturbations(shape: tuple[int, int, int], budget: Budget | None = None) -> SearchStrategy[DescribedPerturbation]:
    """
    Draw any described perturbation of images (C, H, W), the simpler kinds first; ``budget`` scales its amounts.

    >>> from hypothesis import find
    >>> str(find(perturbations((1, 8, 8)), lambda found: found.kind == "pixels"))
    'one pixel at (0, 0) by 0.05'
    """
    most = budget.size if budget is not None and budget.norm == "linf" else 1.0
    return st.one_of(
        pixels(shape, most), tones(most), boxes(shape), waves(most), moves(), noises(most)
    )  # fmt: skip
