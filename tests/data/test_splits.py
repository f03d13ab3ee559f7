"""Splits: what they promise, whatever the labels, groups and seed."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from robustness.data import splits
from robustness.errors import DataError

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def labels_of(draw, smallest=2, classes=4):
    """Labels with at least ``smallest`` of every class; class numbers may have gaps."""
    numbers = draw(st.lists(st.integers(0, 9), min_size=1, max_size=classes, unique=True))
    counts = [draw(st.integers(smallest, 12)) for _ in numbers]
    return np.array(draw(st.permutations(np.repeat(numbers, counts).tolist())))


def assert_sides(labels, train, test):
    """Sorted, disjoint, covering."""
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()


@given(labels_of(), SEEDS, st.data())
def test_balanced_is_exact(labels, seed, data):
    _, counts = np.unique(labels, return_counts=True)
    per_class = data.draw(st.integers(1, counts.min() - 1))

    train, test = splits.balanced(labels, per_class, seed)

    assert_sides(labels, train, test)
    assert np.unique(labels[test], return_counts=True)[1].tolist() == [per_class] * len(counts)
    assert set(labels[train]) == set(labels)
    again = splits.balanced(labels.tolist(), per_class, seed)
    assert np.array_equal(train, again[0])
    assert np.array_equal(test, again[1])


def test_balanced_is_drawn_not_taken_from_the_front():
    """Each image is chosen about equally often; seeds differ; the state of NumPy's own generator is left alone."""
    labels = np.repeat([0, 1], [10, 20])
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    chosen = np.array([np.isin(np.arange(30), splits.balanced(labels, 5, seed)[1]) for seed in range(400)])

    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert np.abs(chosen[:, :10].mean(axis=0) - 0.5).max() < 0.1  # 4 standard deviations
    assert np.abs(chosen[:, 10:].mean(axis=0) - 0.25).max() < 0.09
    assert len(np.unique(chosen, axis=0)) == 400


def test_balanced_is_the_same_everywhere():
    """Worked out from Philox's raw bits, which NumPy promises to keep."""
    labels = np.arange(100) % 5
    bits = np.random.Philox(np.random.SeedSequence([7, 3, 0])).random_raw(100)
    expected = sorted(row for label in range(5) for row in sorted(range(label, 100, 5), key=lambda row: bits[row])[:3])

    assert splits.balanced(labels, 3, seed=7)[1].tolist() == expected
    assert expected == [7, 13, 17, 35, 46, 54, 55, 59, 60, 61, 64, 68, 73, 81, 82]


@settings(deadline=None, max_examples=30)
@given(labels_of(smallest=5), SEEDS, st.sampled_from([0.3, 0.5, 0.6]))
def test_stratified_keeps_the_shares(labels, seed, share):
    assume(len(labels) * min(share, 1 - share) >= len(set(labels)))

    train, test = splits.stratified(labels, share, seed)

    assert_sides(labels, train, test)
    assert len(test) == np.ceil(len(labels) * share)
    for label in set(labels):
        assert abs((labels[test] == label).sum() - share * (labels == label).sum()) <= 1
    assert np.array_equal(test, splits.stratified(labels, share, seed)[1])


@st.composite
def grouped_labels(draw):
    """At least six groups a class, of one to five images each."""
    sizes = draw(st.lists(st.lists(st.integers(1, 5), min_size=6, max_size=9), min_size=1, max_size=3))
    labels = np.concatenate([np.full(sum(of_class), label) for label, of_class in enumerate(sizes)])
    flat = [size for of_class in sizes for size in of_class]
    names = np.array(draw(st.permutations([f"person {number}" for number in range(len(flat))])))
    order = np.array(draw(st.permutations(range(len(labels)))))
    return labels[order], np.repeat(names, flat)[order]


@settings(deadline=None, max_examples=30)
@given(grouped_labels(), SEEDS, st.sampled_from([0.3, 0.5]))
def test_grouped_tears_no_group_apart(case, seed, share):
    labels, groups = case
    train, test = splits.grouped(labels, groups, share, seed)

    assert_sides(labels, train, test)
    assert not set(groups[train]) & set(groups[test])
    assert set(labels[train]) == set(labels[test]) == set(labels)
    assert len(set(groups[test])) == np.ceil(len(set(groups)) * share)
    assert np.array_equal(test, splits.grouped(labels, groups, share, seed)[1])


@settings(deadline=None, max_examples=30)
@given(labels_of(smallest=3), SEEDS, st.sampled_from([2, 3]))
def test_folds_are_disjoint_and_cover(labels, seed, k):
    made = splits.folds(labels, k, seed)

    assert len(made) == k
    for train, test in made:
        assert_sides(labels, train, test)
        for label in set(labels):
            assert abs((labels[test] == label).sum() - (labels == label).sum() / k) < 1
    assert np.array_equal(np.sort(np.concatenate([test for _, test in made])), np.arange(len(labels)))
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(made, splits.folds(labels, k, seed), strict=True))


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 4), SEEDS)
def test_folds_keep_groups_whole(k, seed):
    labels = np.arange(240) % 2
    groups = np.arange(240) // 2 % 40  # forty persons, both classes each
    made = splits.folds(labels, k, seed, groups)

    for train, test in made:
        assert_sides(labels, train, test)
        assert not set(groups[train]) & set(groups[test])
    assert np.array_equal(np.sort(np.concatenate([test for _, test in made])), np.arange(240))


@settings(deadline=None, max_examples=30)
@given(grouped_labels(), SEEDS, st.sampled_from([0.05, 0.3]))
def test_held_out_has_every_class_and_no_part_of_a_group(case, seed, share):
    """Catches: a rare class missing where the share of its groups is less than one; a group torn apart."""
    labels, groups = case
    train, test = splits.held_out(labels, groups, share, seed)

    assert_sides(labels, train, test)
    assert not set(groups[train]) & set(groups[test])
    assert set(labels[train]) == set(labels[test]) == set(labels)
    assert len(set(groups[test])) == max(round(len(set(groups)) * share), len(set(labels)))


def test_seeds_give_other_rows():
    labels, groups = np.arange(200) % 4, np.arange(200) // 2
    for split in (
        lambda seed: splits.stratified(labels, 0.3, seed)[1],
        lambda seed: splits.grouped(labels, groups, 0.3, seed)[1],
        lambda seed: splits.held_out(labels, groups, 0.3, seed)[1],
        lambda seed: splits.held_out(labels, None, 0.3, seed)[1],
        lambda seed: splits.folds(labels, 3, seed)[0][1],
        lambda seed: splits.folds(labels, 3, seed, groups)[0][1],
    ):
        assert not np.array_equal(split(0), split(1))


def test_grouped_goes_by_the_groups_class():
    """A rare class of few large groups is on both sides, whatever the seed; without its class, often not."""
    labels = np.repeat([0, 1], [2000, 120])
    groups = np.concatenate([np.arange(2000), 2000 + np.arange(120) // 30])
    for seed in range(20):
        _, test = splits.grouped(labels, groups, 0.25, seed)
        assert (labels[test] == 1).sum() == 30


LABELS = [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            lambda: splits.balanced([0, 0, 0, 0, 7, 7, 7], 3, 0),
            "`per_class` must be below .* got 3, and class 7 has 3; use at most 2",
        ),
        (lambda: splits.balanced(LABELS, 0, 0), "`per_class` must be at least 1, got 0"),
        (lambda: splits.stratified(LABELS, 0, 0), r"`fraction` must lie between 0 and 1, got 0"),
        (lambda: splits.stratified(LABELS, 1, 0), r"`fraction` must lie between 0 and 1, got 1"),
        (lambda: splits.stratified(LABELS, 20, 0), r"`fraction` must lie between 0 and 1, got 20"),
        (lambda: splits.stratified(LABELS, float("nan"), 0), "`fraction` must lie between 0 and 1, got nan"),
        (lambda: splits.stratified([0, 0, 0, 1], 0.5, 0), "`fraction`=0.5 cannot be drawn from 4 images"),
        (lambda: splits.stratified(LABELS, 0.1, 0), "`fraction`=0.1 cannot be drawn from 8 images"),
        (lambda: splits.stratified([0] * 90 + [1] * 2, 0.1, 0), "class 1 is not in test"),
        (lambda: splits.grouped(LABELS, None, 0.5, 0), "`groups` must be given"),
        (lambda: splits.grouped(LABELS, [1, 2], 0.5, 0), r"`groups` must have one entry per image \(8\), got 2"),
        (lambda: splits.grouped(LABELS, LABELS, 0.5, 0), "cannot be drawn from 2 groups"),
        (lambda: splits.grouped(LABELS, [0, 1, 2, 3, 0, 0, 4, 4], 1.5, 0), "between 0 and 1"),
        (lambda: splits.held_out(LABELS, None, 1.0, 0), "`fraction` must lie between 0 and 1, got 1"),
        (lambda: splits.held_out(LABELS, [0, 0, 1, 1, 2, 2, 2, 2], 0.2, 0), "class 1 is not in train"),
        (lambda: splits.folds(LABELS, 1, 0), r"`k` must be at least 2 and .* got 1"),
        (lambda: splits.folds([*LABELS, 2], 2, 0), r"size of the smallest class \(class 2 has 1\), got 2"),
        (lambda: splits.folds(LABELS, 5, 0), r"size of the smallest class \(class 0 has 4\), got 5"),
        (lambda: splits.folds(LABELS, 3, 0, [0, 0, 1, 1, 0, 0, 1, 1]), "at most the number of groups, 2, got 3"),
        (lambda: splits.folds(LABELS, 2, 0, [0, 0, 0, 0, 1, 2, 3, 4]), r"class 0 is not in \w+; use"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(split, message):
    with pytest.raises(DataError, match=message):
        split()


@pytest.mark.parametrize("count", [3, 10, 41, 99, 100])
def test_some_of_every_class_alike(count):
    """Catches: a class left out, a count that is missed by rounding, the first images of every class."""
    labels = np.repeat([0, 1, 2], [80, 18, 2])
    rows = splits.some(labels, count)
    found = np.bincount(labels[rows], minlength=3)
    assert len(rows) == len(set(rows.tolist())) == count == found.sum()
    assert (np.diff(rows) > 0).all()
    assert all(
        abs(got - max(due, 1)) < 1.5 for got, due in zip(found, np.array([0.8, 0.18, 0.02]) * count, strict=True)
    )
    if count == 41:
        assert rows[0] != 0 or rows[1] != 1 or rows[2] != 2
