"""Thresholds against another way to compute them, against closed forms, and against what ignorance gets by luck."""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustness.metrics import registry
from robustness.metrics.chance_level import chance_level, lucky_level
from robustness.thresholds.derive import UnstableTrainings, derive


def slowly(table, higher, limits, resolution):
    """The same in plain Python, cell by cell, with decimal rounding."""

    def bound(column, c, up, least, beyond):
        if not all(map(math.isfinite, column)):
            return None
        way = -1 if up else 1
        mean = math.fsum(column) / len(column)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in column) / (len(column) - 1))
        exact = mean + way * c * max(deviation, least)
        rounded = float(Decimal(exact).quantize(Decimal("0.0001"), ROUND_FLOOR if up else ROUND_CEILING))
        return rounded if (rounded > beyond if up else rounded < beyond) else None

    def bounds(rows, c):
        return [bound(*args) for args in zip(zip(*rows), [c] * len(higher), higher, resolution, limits)]  # noqa: B905

    for tenths in range(30, 101 if len(table) >= 10 else 301):
        c, red = tenths / 10, []
        for i, row in enumerate(table):
            found = bounds(table[:i] + table[i + 1 :], c)
            if any(b is not None and (v < b if up else v > b) for v, b, up in zip(row, found, higher, strict=True)):
                red.append(i)
        if len(red) * 50 <= len(table):
            return bounds(table, c), c, tuple(red)
    return None


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.sampled_from([3, 7, 50]),
    spread=st.sampled_from([0.001, 0.02, 0.2]),
    blank=st.booleans(),
)
def test_derived_as_one_would_by_hand(seed, rows, spread, blank):
    """
    Catches: wrong ddof, a bound that the red row itself helped to make, rounding to the nearest, c not the least.

    A training without a number takes the cell's claim away and nothing else.
    """
    rng = np.random.default_rng(seed)
    table = rng.standard_t(4, (rows, 4)) * spread * rng.uniform(0, 1, 4) + rng.uniform(0, 1, 4)
    table[0, 1] = np.nan if blank else table[0, 1]
    higher = rng.random(4) < 0.7
    limits, resolution = np.where(higher, 0.3, 0.9), rng.choice([0.0, 0.01], 4)
    due = slowly(table.tolist(), higher.tolist(), limits.tolist(), resolution.tolist())
    if due is None:
        with pytest.raises(UnstableTrainings):
            derive(table, higher, limits, resolution)
        return
    found = derive(table, higher, limits, resolution)
    assert (found.c, found.left_out_red) == due[1:]
    assert [None if math.isnan(b) else b for b in found.bounds.tolist()] == due[0]


@pytest.mark.parametrize(("trainings", "reds"), [(49, 0), (50, 1), (99, 1)])
def test_one_in_fifty_may_be_red(trainings, reds):
    column = np.append(np.linspace(0.90, 0.92, trainings - 1), 0.885)[:, None]
    found = derive(column, [True], [0.1])
    assert len(found.left_out_red) == reds
    assert (found.c == 3) == (reds == 1)


@pytest.mark.parametrize(
    ("higher", "bound", "within", "beyond"), [(True, 0.3, (0.0, 0.29), 0.31), (False, 0.9001, (2.0, 0.91), 0.89)]
)
def test_bounds_round_away_from_the_mean_and_must_be_beyond_the_limit(higher, bound, within, beyond):
    """Catches: rounding to the nearest; a claim that chance meets."""
    table = np.array([[0.5], [0.6], [0.7]]) + 0.00001  # mean 0.6, deviation 0.1
    for limit in within:
        assert derive(table, [higher], [limit]).bounds.tolist() == [bound]
    assert np.isnan(derive(table, [higher], [beyond]).bounds).all()


def test_a_cell_that_promises_nothing_makes_no_training_red():
    """At the noisiest strength trainings may differ wildly; what is not claimed there must not push c up."""
    calm, wild = np.linspace(0.90, 0.92, 12), np.append(np.full(11, 0.3), 0.1)
    table = np.column_stack([calm, wild])
    assert derive(table, [True, True], [0.1, 0.5]).c == 3.0
    with pytest.raises(UnstableTrainings):
        derive(table, [True, True], [0.1, 0.05])


def test_trainings_that_agree_to_the_image_still_have_a_spread():
    """Without it one image less would be infinitely many deviations."""
    table = np.append(np.full(39, 1.0), 1 - 1 / 600)[:, None]
    assert derive(table, [True], [0.1], 1 / 600).bounds[0] == pytest.approx(1 - 3 / 600, abs=2e-4)
    with pytest.raises(UnstableTrainings):
        derive(table, [True], [0.1])


def test_unhealthy_and_too_few_trainings_are_refused():
    table = np.append(np.linspace(0.90, 0.92, 39), 0.1)[:, None]
    with pytest.raises(UnstableTrainings, match="1 of 40 trainings") as caught:
        derive(table, [True], [0.05])
    assert caught.value.rows == (39,)
    with pytest.raises(ValueError, match="at least 3 trainings"):
        derive(table[:2], [True], [0.1])


@pytest.mark.parametrize("metric", ["accuracy", "precision", "recall", "f1", "recall[1]", "precision[1]"])
@pytest.mark.parametrize("images", [[60] * 10, [400, 150, 50]], ids=["balanced", "unbalanced"])
def test_guesses_do_not_reach_the_limit(metric, images):
    """No guess of 300 reaches it, and it is not far above all of them either: it is made for these images."""
    labels = np.repeat(np.arange(len(images)), images)
    rng = np.random.default_rng(0)
    guesses = rng.integers(0, len(images), (300, len(labels)))
    values = np.array([registry.measure(metric, labels, guess, len(images)).value for guess in guesses])
    bound, least = lucky_level(metric, labels, len(images)), chance_level(metric, labels, len(images)).value
    assert (values >= bound).sum() <= 2
    assert bound - least == pytest.approx(3 * values.std(), rel=0.3)


@pytest.mark.parametrize(
    ("metric", "labels", "classes", "limit"),
    [
        ("accuracy", np.arange(1000) % 10, 10, 0.1 + 3 * math.sqrt(0.1 * 0.9 / 1000)),  # binomial
        ("accuracy", [0, 1], 2, 0.75),  # few images do not forbid every claim
        ("loss", np.arange(10), 10, math.log(10)),  # of constant probabilities
    ],
)
def test_limits_are_closed_forms(metric, labels, classes, limit):
    assert lucky_level(metric, labels, classes) == pytest.approx(limit)


def test_nothing_heavy_is_imported():
    code = "import sys, robustness.thresholds.derive; print({'torch', 'scipy', 'sklearn'} & set(sys.modules))"
    assert helpers.run(code) == "set()\n"
