"""Intervals against scipy, exact fractions and simulation."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustness.metrics.intervals import (
    delta,
    half_width,
    mean_interval,
    missing_successes,
    quantile,
    sample_size_for,
    wilson,
)

CONFIDENCES = st.sampled_from([0.5, 0.9, 0.95, 0.99])


@settings(deadline=None)
@given(n=st.integers(1, 10_000), data=st.data(), confidence=CONFIDENCES)
def test_wilson_is_scipys(n, data, confidence):
    successes = data.draw(st.integers(0, n) | st.sampled_from([0, n]))
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")

    low, high = wilson(successes, n, confidence)

    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= successes / n <= high <= 1  # without tolerance: rounding may not push an end past the rate


def test_wilson_ends_at_zero_and_one():
    """Exactly, at every confidence."""
    for confidence in np.linspace(0.01, 0.99, 99):
        assert wilson(0, 7, confidence).low == 0
        assert wilson(7, 7, confidence).high == 1


def test_of_no_images_nothing_is_known():
    """Not [0, 1], which would hold every threshold between; NaN holds none."""
    assert all(math.isnan(end) for end in wilson(0, 0))
    assert all(math.isnan(end) for end in delta(np.zeros(3, int), np.ones(3), 0.5))
    assert all(math.isnan(end) for end in mean_interval([]))


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 500), min_size=2, max_size=6).filter(sum), confidence=CONFIDENCES, data=st.data())
def test_delta_of_a_plain_share_is_wilson(counts, confidence, data):
    """Whatever cells make up the share, and however few images: one missing n, a square or a mean would show."""
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts))))
    successes, n = int(np.array(counts)[chosen].sum()), sum(counts)
    if chosen.all() or not chosen.any():  # all cells or none: the share is constant
        assert delta(np.array(counts), chosen * 1.0, successes / n) == (successes / n, successes / n)
    else:
        expected = wilson(successes, n, confidence)
        assert delta(np.array(counts), chosen * 1.0, successes / n, confidence) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(rate=st.floats(0.2, 0.8), scale=st.floats(0.3, 2))
def test_delta_is_the_textbooks_where_images_are_many(rate, scale):
    n = 10_000_000
    counts = np.array([round(n * rate), n - round(n * rate)])
    p = counts / n
    gradient = np.array([scale, -0.1])
    sigma = math.sqrt(((p * gradient**2).sum() - (p * gradient).sum() ** 2) / n)

    low, high = delta(counts, gradient, 0.5, 0.9)

    assert (high - low) / 2 == pytest.approx(stats.norm.ppf(0.95) * sigma, rel=1e-5)
    assert (high + low) / 2 == pytest.approx(0.5, abs=1e-5)


def test_delta_of_a_perfect_table_is_not_certain():
    """The variance is zero; an interval [1, 1] would be believed."""
    low, high = delta(np.diag([300, 300]), np.eye(2), 1.0)
    assert high == 1
    assert low == pytest.approx(wilson(600, 600).low)

    low, high = delta(np.diag([50, 550]), np.array([[0, 0], [-12, 0.0]]), 1.0)  # a share of the first class's 50 images
    assert low == pytest.approx(wilson(50, 50).low)


def test_what_rounding_leaves_of_a_zero_is_zero():
    """Equal slopes at every cell that was drawn: their mean differs from them in the last bit, now and then."""
    for n in range(1, 50):
        low, high = delta(np.array([1, 5, n, 0]), np.array([0.1, 0.1, 0.1, 1.1]), 0.5)
        assert high - low > 0.05


@settings(deadline=None)
@given(values=st.lists(st.floats(-50, 50), min_size=2, max_size=50), confidence=CONFIDENCES)
def test_mean_interval_is_scipys(values, confidence):
    low, high = mean_interval(values, confidence)
    half = stats.sem(values) * stats.norm.ppf((1 + confidence) / 2)
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=1e-9)


@pytest.mark.parametrize("values", [[1.0], [1.0, math.inf], [1.0, math.nan]])
def test_a_mean_without_spread_has_no_interval(values):
    assert all(math.isnan(end) for end in mean_interval(values))


@settings(deadline=None)
@given(n=st.integers(1, 10_000), thousandths=st.integers(0, 1000), data=st.data())
def test_shortfall_is_exact(n, thousandths, data):
    """``ceil(threshold * n)`` asks for an image too many at 0.07 of 100, or one too few elsewhere."""
    successes = data.draw(st.integers(0, n))
    needed = next(k for k in range(n * thousandths // 1000, n + 1) if Fraction(k, n) >= Fraction(thousandths, 1000))

    missing = missing_successes(successes, n, thousandths / 1000)

    assert missing == max(0, needed - successes)
    assert (missing == 0) is (successes / n >= thousandths / 1000)  # what the claim itself compares


@pytest.mark.parametrize(("successes", "n", "threshold", "missing"), [(0, 600, 0.95, 570), (0, 100, 0.07, 7)])
def test_shortfall_at_boundaries(successes, n, threshold, missing):
    assert missing_successes(successes, n, threshold) == missing
    assert missing_successes(missing, n, threshold) == 0
    assert missing_successes(missing - 1, n, threshold) == 1


@settings(deadline=None)
@given(n=st.integers(1, 3000), threshold=st.floats(0, 1))
def test_shortfall_holds_for_any_float(n, threshold):
    missing = missing_successes(0, n, threshold)
    assert missing / n >= threshold
    assert missing == 0 or (missing - 1) / n < threshold


def test_quantile_is_two_sided():
    assert quantile(0.95) == pytest.approx(stats.norm.ppf(0.975), abs=1e-12)


@given(n=st.integers(1, 5000), data=st.data())
def test_half_of_wilsons_width(n, data):
    """Catches: the whole width, or another interval's; counts may be fractions here."""
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n)
    assert half_width(n, successes / n) == pytest.approx((high - low) / 2, abs=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.93, 1.0])
@pytest.mark.parametrize("margin", [0.005, 0.02, 0.1, 0.9])
def test_the_fewest_images_for_a_margin(rate, margin):
    """Catches: a count that is off by one, or that the search never reaches."""
    n = sample_size_for(margin, rate)
    assert half_width(n, rate) <= margin
    assert n == 1 or half_width(n - 1, rate) > margin


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *((lambda of=of: wilson(*of), "`successes`") for of in ((-1, 10), (11, 10), (1, 0))),
        *((lambda of=of: missing_successes(*of, 0.5), "`successes`") for of in ((-1, 10), (11, 10), (1, 0))),
        *((lambda of=of: wilson(1, 2, of), "`confidence`") for of in (0, 1, 95, -0.5, math.nan)),
        *((lambda of=of: mean_interval([1, 2], of), "`confidence`") for of in (0, 1, 95, -0.5, math.nan)),
        (lambda: delta(np.ones((2, 2), int), np.ones(2), 0.5), "`gradient`"),
        (lambda: missing_successes(0, 0, 0.5), "`n`"),
        (lambda: missing_successes(0, 5, 95), "`threshold`"),
        (lambda: missing_successes(0, 5, math.nan), "`threshold`"),
        (lambda: half_width(0, 0.5), "`n` must be at least 1, got 0"),
        (lambda: half_width(10, 90), "`rate` must lie in .*, got 90; write 0.9"),
        (lambda: sample_size_for(2, 0.5), "`margin` must lie between 0 and 1, got 2; write 0.02"),
        (lambda: sample_size_for(0, 0.5), "`margin` must lie between"),
    ],
)
def test_what_is_no_count_no_share_or_of_nothing_is_refused(call, message):
    """Catches: an interval of impossible counts, a percentage for a share, a slope too few, NaN that holds a claim."""
    with pytest.raises(ValueError, match=message):
        call()


def test_a_rate_is_no_count():
    with pytest.raises(TypeError):
        wilson(0.97, 1000)
