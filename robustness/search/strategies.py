"""Hypothesis strategies for described perturbations: few small numbers, which shrink to readable descriptions."""

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


def amounts(maximum: float = 1.0) -> SearchStrategy[float]:
    """
    Return a strategy of changes in ±maximum in steps of a twentieth, which shrink to a small positive one; never 0.

    >>> from hypothesis import find
    >>> find(amounts(0.2), lambda amount: True)
    0.01
    """
    steps = st.integers(1, 20)
    return st.builds(lambda step, minus: round((-1) ** minus * maximum * step / 20, 6), steps, st.booleans())


def pixels(shape: tuple[int, int, int], maximum: float = 1.0) -> SearchStrategy[PixelChanges]:
    """Change one to four pixels of images (C, H, W) by up to ``maximum`` each."""
    element = st.tuples(st.integers(0, shape[1] - 1), st.integers(0, shape[2] - 1), amounts(maximum))
    several = st.lists(element, min_size=1, max_size=4, unique_by=lambda pixel: pixel[:2])
    return st.builds(lambda changes: PixelChanges(pixels=tuple(changes)), several)


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, int, int]) -> FilledBox:
    """Fill a rectangle of at most half the height and width with one value."""
    _, height, width = shape
    high, wide = draw(st.integers(1, max(1, height // 2))), draw(st.integers(1, max(1, width // 2)))
    return FilledBox(
        top=draw(st.integers(0, height - high)),
        left=draw(st.integers(0, width - wide)),
        height=high,
        width=wide,
        value=draw(st.integers(0, 10)) / 10,
    )


def tones(maximum: float = 1.0) -> SearchStrategy[BrightnessContrast]:
    """Change brightness, contrast, or both."""
    amount, zero = amounts(maximum), st.just(0.0)
    return st.one_of(
        st.builds(BrightnessContrast, brightness=amount, contrast=zero),
        st.builds(BrightnessContrast, brightness=zero, contrast=amount),
        st.builds(BrightnessContrast, brightness=amount, contrast=amount),
    )


def waves(maximum: float = 1.0) -> SearchStrategy[CosineField]:
    """Add one to three cosines of at most four half waves per side."""
    element = st.tuples(st.integers(0, 4), st.integers(0, 4), amounts(maximum))
    return st.builds(lambda cosines: CosineField(waves=tuple(cosines)), st.lists(element, min_size=1, max_size=3))


def moves() -> SearchStrategy[ShiftAndRotate]:
    """Shift by up to two pixels, and rotate by up to fifteen degrees."""
    shifts, degrees = st.integers(-2, 2), st.integers(-15, 15).map(float)
    return st.builds(ShiftAndRotate, down=shifts, right=shifts, degrees=degrees)


def noises(maximum: float = 1.0) -> SearchStrategy[Noise]:
    """Add seeded uniform noise."""
    return st.builds(Noise, seed=st.integers(0, 2**16), amplitude=amounts(maximum).map(abs))


def perturbations(shape: tuple[int, int, int], budget: Budget | None = None) -> SearchStrategy[DescribedPerturbation]:
    """
    Return a strategy of all described perturbations of images (C, H, W), simple kinds first; ``budget`` scales them.

    >>> from hypothesis import find
    >>> str(find(perturbations((1, 8, 8)), lambda description: description.kind == "pixels"))
    'one pixel at (0, 0) by 0.05'
    """
    maximum = budget.size if budget is not None and budget.norm == "linf" else 1.0
    return st.one_of(
        pixels(shape, maximum), tones(maximum), boxes(shape), waves(maximum), moves(), noises(maximum)
    )  # fmt: skip
