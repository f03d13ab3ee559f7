"""The numbers of the page on statistics are those of other libraries, and its sentences follow from them."""

import ast

import helpers
import numpy as np
import pages
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

PAGE = helpers.ROOT / "docs" / "statistics.md"
ALPHA = 0.05


@pytest.fixture(scope="module")
def page():
    """What the page computes and shows: names, and each shown value by the text of its expression."""
    names, shown = {}, {}
    every = pages.blocks(PAGE)
    for block in every:
        assert block.language == "python", block.place
        for text, said, got in pages.evaluate(block, names):
            assert got == said, f"{block.place}: {text}"
            shown[text] = ast.literal_eval(said)
    assert len(shown) >= len(every), "a block computes and shows nothing, which no reader could check"
    return names, shown


def beginning(page, start):
    (found,) = (value for text, value in page[1].items() if text.startswith(start))
    return found


def test_intervals_and_tests_are_other_libraries(page):
    """Catches: another interval than Wilson's; McNemar by χ² or one-sided; Bonferroni's factor for all, or none."""
    for right, n in ((575, 600), (600, 600)):
        oracle = proportion_confint(right, n, method="wilson")
        assert beginning(page, f"[round(end, 4) for end in wilson({right}, {n})]") == pytest.approx(oracle, abs=6e-5)
    oracle = [stats.binomtest(10, 35).pvalue, stats.binomtest(100, 215).pvalue]
    assert beginning(page, "mcnemar(") == pytest.approx(oracle, abs=6e-5)
    assert beginning(page, "holm(") == pytest.approx([30 * 0.001, 29 * 0.004, 28 * 0.03])
    assert beginning(page, "round(1 - 0.95") == round(1 - (1 - ALPHA) ** 30, 2)


def test_the_three_models_come_to_what_the_page_says(page):
    """Catches: an example that no longer passes, fails, stays open or passes as often as the sentence below it says."""
    below, above = beginning(page, "p_within_margin(lost, gained"), beginning(page, "p_exceeds_margin(lost, gained")
    assert [p <= ALPHA for p in below] == [True, False, False]
    assert [p <= ALPHA for p in above] == [False, False, True]
    assert beginning(page, "p_within_margin([250]")[0] <= ALPHA
    low, high = beginning(page, "[round(float(end[0]), 4)")
    assert 0 < low < 0.015 < high
    several, few = beginning(page, "[pass_rate_if_equal(")
    assert several < 0.9 < few


def test_the_bounds_of_retrainings_are_students_widened(page):
    """Catches: the standard error of a mean in place of one more, α not shared, no widening. Oracle: scipy."""
    accepted = page[0]["accepted"]
    for some, shown in zip((accepted[:5], accepted), beginning(page, "(prediction_bounds("), strict=True):
        k = len(some)
        far = 1.7 * stats.t.ppf(1 - ALPHA / 2, k - 1) * some.std(axis=0, ddof=1) * np.sqrt(1 + 1 / k)
        assert shown == pytest.approx(some.mean(axis=0) - far, abs=6e-4)
    healthy, low = beginning(page, "(rank_p_value(")
    assert healthy > ALPHA
    assert low == pytest.approx(ALPHA)
