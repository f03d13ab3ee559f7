"""
Splits into training and test images: pure functions of labels, groups and a seed.

Each returns sorted row numbers, (train, test). Those that scikit-learn computes import it when they are called.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robustness.data.validation import Indices
from robustness.errors import DataError
from robustness.util.rng import Purpose, generator

Split = tuple[Indices, Indices]


def balanced(labels: npt.ArrayLike, per_class: int, seed: int) -> Split:
    """
    Test on ``per_class`` images of every class, train on the rest.

    >>> train, test = balanced([0, 0, 0, 1, 1, 1], per_class=1, seed=0)
    >>> train.tolist(), test.tolist()
    ([0, 2, 4, 5], [1, 3])
    """
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    if per_class < 1:
        raise DataError(f"`per_class` must be at least 1, got {per_class}; it is the number of test images per class")
    if counts.min() <= per_class:
        raise DataError(
            f"`per_class` must be below the size of every class, so that training images remain; got {per_class}, and "
            f"class {classes[counts.argmin()]} has {counts.min()}; use at most {counts.min() - 1}"
        )
    # NumPy guarantees the raw bits of Philox; a Generator's permutations may change between versions.
    order = np.argsort(generator(seed, Purpose.SPLIT).bit_generator.random_raw(len(labels)), kind="stable")
    return _sides(np.concatenate([order[labels[order] == label][:per_class] for label in classes]), len(labels))


def stratified(labels: npt.ArrayLike, fraction: float, seed: int) -> Split:
    """Test on a fraction of the images, stratified by class."""
    labels = np.asarray(labels)
    split = _sides(_draw(labels, fraction, seed, "images"), len(labels))
    return _complete(labels, split, f"`fraction`={fraction}")


def grouped(labels: npt.ArrayLike, groups: npt.ArrayLike | None, fraction: float, seed: int) -> Split:
    """
    Test on a fraction of the groups; no group is on both sides.

    Groups are drawn stratified by class (a group's class is its most frequent), else a rare class, whose few groups
    hold many images each, would often be missing on one side.
    """
    labels = np.asarray(labels)
    codes = _codes(labels, groups)
    chosen = _draw(_voted(labels, codes), fraction, seed, "groups")
    split = _sides(np.flatnonzero(np.isin(codes, chosen)), len(labels))
    return _complete(labels, split, f"`fraction`={fraction} of the groups")


def held_out(labels: npt.ArrayLike, groups: npt.ArrayLike | None, fraction: float, seed: int) -> Split:
    """
    Hold out a fraction of the images, or of whole groups, stratified by class and at least one of each.

    For choosing an epoch: a rare class may have more than its share.

    >>> held_out([0] * 8 + [1] * 2, None, 0.2, 0)[1].tolist()
    [7, 8]
    """
    labels = np.asarray(labels)
    codes = np.arange(len(labels)) if groups is None else _codes(labels, groups)
    voted = _voted(labels, codes)
    if not 0 < fraction < 1:
        raise DataError(
            f"`fraction` must lie between 0 and 1, got {fraction:g}; it is the part that is held out, such as 0.1"
        )
    chosen = some(voted, max(round(fraction * len(voted)), len(np.unique(voted))), seed)
    split = _sides(np.flatnonzero(np.isin(codes, chosen)), len(labels))
    return _complete(labels, split, f"held-out `fraction`={fraction}")


def folds(labels: npt.ArrayLike, k: int, seed: int, groups: npt.ArrayLike | None = None) -> list[Split]:
    """Return ``k`` stratified splits whose test sides are disjoint and cover all images; no group is divided."""
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    if not 2 <= k <= counts.min():
        raise DataError(
            f"`k` must be at least 2 and at most the size of the smallest class (class {classes[counts.argmin()]} has "
            f"{counts.min()}), got {k}; use another number of folds"
        )
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    codes = None if groups is None else _codes(labels, groups)
    if codes is not None and codes.max() + 1 < k:
        raise DataError(f"`k` must be at most the number of groups, {codes.max() + 1}, got {k}; use fewer folds")
    pairs = kind(k, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels, codes)
    return [
        _complete(labels, _sides(test, len(labels)), f"fold {number} of `k`={k}")
        for number, (_, test) in enumerate(pairs)
    ]


def some(labels: npt.ArrayLike, count: int, seed: int = 0) -> Indices:
    """
    Choose a random subset of the images, stratified by class, with at least one image per class.

    >>> some([0, 0, 0, 0, 1, 1], 3).tolist()
    [1, 3, 5]
    """
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * (count / len(labels))
    quota = np.maximum(np.floor(exact).astype(np.int64), 1)
    while quota.sum() != count:  # the largest remainders get what is left; what the smallest classes got is taken back
        step = 1 if quota.sum() < count else -1
        quota[np.argmax(np.where(quota + step >= 1, step * (exact - quota), -np.inf))] += step
    order = np.argsort(generator(seed, Purpose.SPLIT).bit_generator.random_raw(len(labels)), kind="stable")
    chosen = [order[labels[order] == label][:size] for label, size in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(chosen))


def _draw(labels: Indices, fraction: float, seed: int, what: str) -> Indices:
    """Draw a fraction of the labelled things, stratified by class."""
    if not 0 < fraction < 1:
        raise DataError(
            f"`fraction` must lie between 0 and 1, got {fraction:g}; it is the part used for testing, such as 0.2"
        )
    from sklearn.model_selection import StratifiedShuffleSplit

    splitter = StratifiedShuffleSplit(1, test_size=fraction, random_state=seed)
    try:
        ((_, test),) = splitter.split(np.zeros(len(labels)), labels)
    except ValueError as error:  # too few of a class, or fewer drawn than there are classes
        raise DataError(
            f"`fraction`={fraction:g} cannot be drawn from {len(labels)} {what}, stratified by class: {error} Use "
            "another fraction."
        ) from error
    return np.asarray(test, np.int64)


def _voted(labels: Indices, codes: Indices) -> Indices:
    """Return each group's most frequent class."""
    votes = np.zeros((codes.max() + 1, labels.max() + 1), np.int64)
    np.add.at(votes, (codes, labels), 1)
    return np.asarray(votes.argmax(axis=1), np.int64)


def _codes(labels: Indices, groups: npt.ArrayLike | None) -> Indices:
    if groups is None:
        raise DataError("`groups` must be given to keep groups together, got none; name their array")
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    if codes.shape != labels.shape:
        raise DataError(
            f"`groups` must have one entry per image ({len(labels)}), got {len(codes)}; use the array of the same part"
        )
    return np.asarray(codes, np.int64)


def _sides(test: Indices, count: int) -> Split:
    belongs = np.zeros(count, bool)
    belongs[test] = True
    return np.flatnonzero(~belongs), np.flatnonzero(belongs)


def _complete(labels: Indices, split: Split, what: str) -> Split:
    """Return the split; DataError if a class is missing on one side."""
    for side, rows in zip(("train", "test"), split, strict=True):
        missing = np.setdiff1d(labels, labels[rows])
        if missing.size:
            raise DataError(
                f"{what} must leave every class on both sides, but class {missing[0]} is not in {side}; use another "
                "fraction, fewer folds, or another seed"
            )
    return split
