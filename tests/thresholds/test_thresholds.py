"""Thresholds against another way to compute them, against closed forms, and against what ignorance gets by luck."""

import math
import subprocess
import sys
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustness.metrics import registry
from robustness.metrics.chance_level import chance_level, lucky_level
from robustness.thresholds.derive import Thresholds, UnstableTrainings, derive


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


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.sampled_from([3, 7, 50]), spread=st.sampled_from([0.001, 0.02, 0.2]))
def test_derived_as_one_would_by_hand(seed, rows, spread):
    """Catches: wrong ddof, a bound that the red row itself helped to make, rounding to the nearest, c not the least."""
    rng = np.random.default_rng(seed)
    table = rng.standard_t(4, (rows, 4)) * spread * rng.uniform(0, 1, 4) + rng.uniform(0, 1, 4)
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


def test_c_is_what_holds_the_farthest_training():
    """With one cell, c is the distance of the farthest from the others in their deviations, up to the next tenth."""
    column = np.array([0.90, 0.91, 0.92, 0.93, 0.85])
    others = column[:4]
    needed = (others.mean() - 0.85) / others.std(ddof=1)
    assert 3 < needed < 10
    assert derive(column[:, None], [True], [0.1]).c == math.ceil(needed * 10) / 10


@pytest.mark.parametrize(("trainings", "reds"), [(49, 0), (50, 1), (99, 1)])
def test_one_in_fifty_may_be_red(trainings, reds):
    column = np.append(np.linspace(0.90, 0.92, trainings - 1), 0.885)[:, None]
    found = derive(column, [True], [0.1])
    assert len(found.left_out_red) == reds
    assert (found.c == 3) == (reds == 1)


def test_lower_bounds_round_down_and_upper_bounds_up():
    table = np.array([[0.5], [0.6], [0.7]])  # mean 0.6, deviation 0.1
    assert derive(table + 0.00001, [True], [0.0]).bounds.tolist() == [0.3]
    assert derive(table + 0.00001, [False], [2.0]).bounds.tolist() == [0.9001]


def test_no_claim_where_the_bound_is_not_beyond_the_limit():
    table = np.array([[0.5, 0.5], [0.6, 0.6], [0.7, 0.7]])
    assert np.isnan(derive(table, [True, False], [0.31, 0.89]).bounds).all()
    assert not np.isnan(derive(table, [True, False], [0.29, 0.91]).bounds).any()


def test_a_cell_that_promises_nothing_makes_no_training_red():
    """At the noisiest strength trainings may differ wildly; what is not claimed there must not push c up."""
    calm, wild = np.linspace(0.90, 0.92, 12), np.append(np.full(11, 0.3), 0.1)
    table = np.column_stack([calm, wild])
    assert derive(table, [True, True], [0.1, 0.5]).c == 3.0
    with pytest.raises(UnstableTrainings):
        derive(table, [True, True], [0.1, 0.05])


def test_a_training_without_a_number_takes_the_claim_away_and_nothing_else():
    table = np.column_stack([np.linspace(0.90, 0.92, 12), np.linspace(0.7, 0.8, 12)])
    whole = derive(table, [True, True], [0.1, 0.1])
    table[3, 1] = np.nan
    found = derive(table, [True, True], [0.1, 0.1])
    assert np.isnan(found.bounds[1])
    assert (found.bounds[0], found.c, found.left_out_red) == (whole.bounds[0], whole.c, whole.left_out_red)


def test_trainings_that_agree_to_the_image_still_have_a_spread():
    """Without it one image less would be infinitely many deviations."""
    table = np.append(np.full(39, 1.0), 1 - 1 / 600)[:, None]
    assert derive(table, [True], [0.1], 1 / 600).bounds[0] == pytest.approx(1 - 3 / 600, abs=2e-4)
    with pytest.raises(UnstableTrainings):
        derive(table, [True], [0.1])


def test_unhealthy_trainings_are_named():
    table = np.append(np.linspace(0.90, 0.92, 39), 0.1)[:, None]
    with pytest.raises(UnstableTrainings, match="1 of 40 trainings") as caught:
        derive(table, [True], [0.05])
    assert caught.value.rows == (39,)


def test_two_trainings_are_too_few():
    with pytest.raises(ValueError, match="at least 3 trainings"):
        derive([[0.9], [0.8]], [True], [0.1])


def test_missed_is_judged_cell_by_cell():
    found = Thresholds(np.array([0.9, np.nan]), np.array([True, True]), 3.0, ())
    assert found.missed([0.9, 0.0]).tolist() == [False, False]
    assert found.missed([np.nan, np.nan]).tolist() == [True, False]


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


def test_limit_of_accuracy_is_the_binomial_one():
    labels = np.arange(1000) % 10
    assert lucky_level("accuracy", labels, 10) == pytest.approx(0.1 + 3 * math.sqrt(0.1 * 0.9 / 1000))


def test_few_images_do_not_forbid_every_claim():
    assert lucky_level("accuracy", [0, 1], 2) == 0.75


def test_limit_of_loss_is_below_that_of_constant_probabilities():
    assert lucky_level("loss", np.arange(10), 10) == pytest.approx(math.log(10))


def test_nothing_heavy_is_imported():
    code = "import sys, robustness.thresholds.derive; print({'torch', 'scipy', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
