"""Check for permuted classes: a model that separates the classes, but in another order than the data's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from robustness.data.images import Images
from robustness.util.rng import Purpose, generator

Indices = npt.NDArray[np.int64]
Predict = Callable[[npt.NDArray[np.float32]], Indices]

# Images per class for the search of a permutation; with fewer than half there is no search.
IMAGES_PER_CLASS = 8
# Images to predict if the first sample shows no more than chance.
RETRY_IMAGES = 500
# The fraction of the way from chance to 100 % that a permutation must explain: untrained models reach less.
MIN_EXPLAINED = 1 / 3
# The fraction of each class's images that a cycle must explain, and by how many standard errors it must explain more
# than the original classes.
MIN_RING_FRACTION, RING_ERRORS = 0.5, 4.0


def check_permutation(predict: Predict, images: Images, count: int, seed: int) -> dict[str, Any]:
    """Check whether a permutation explains predictions; see `sample_predictions`, `explain_by_permutation`."""
    return explain_by_permutation(*sample_predictions(predict, images, count), images.classes, seed)


def sample_predictions(predict: Predict, images: Images, count: int) -> tuple[Indices, Indices]:
    """
    Return labels and predictions of ``count`` images spread over the set, or of more if they show only chance.

    ``predict`` maps images, (N, C, H, W), to classes.
    """
    size, classes = min(count, len(images)), len(images.classes)
    labels, predictions = _predict_spread(predict, images, size, count)
    more = min(len(images), max(size, IMAGES_PER_CLASS * classes, RETRY_IMAGES))
    if int((labels == predictions).sum()) > _upper_limit(size, _chance_accuracy(labels, classes), 3) or more == size:
        return labels, predictions
    return _predict_spread(predict, images, more, count)


def explain_by_permutation(labels: Indices, predictions: Indices, names: Sequence[str], seed: int) -> dict[str, Any]:
    """
    Check whether a permutation of all classes, or of some of them, explains the predictions.

    ``labels`` and ``predictions`` are (N,), ``names`` are those of all classes. A permutation is fitted on one half
    of the images and evaluated on the other.
    """
    size, classes, chance = len(labels), len(names), _chance_accuracy(labels, len(names))
    accuracy = f"clean accuracy {int((labels == predictions).sum()) / size:.1%} of {size} images"
    first = np.zeros(size, bool)
    first[generator(seed, Purpose.DOUBTED, 3).permutation(size)[: size // 2]] = True
    mapped = np.full(size, -1)  # the predictions, each half mapped by the permutation of the other
    for fit in (first, ~first):
        mapped[~fit] = fit_permutation(labels[fit], predictions[fit], classes)[predictions[~fit]]
    if (labels == predictions).sum() > _upper_limit(size, chance, 3):
        moved = _in_rings(labels, predictions, mapped, classes)
        if not moved.any():
            return {"seen": accuracy, "doubted": False}
        correct = int((mapped == labels)[moved].sum())
        seen = f"{accuracy}; of {moved.sum()} images of some classes {correct / moved.sum():.1%} with these permuted"
        return {"seen": f"{seen}: {_list_renamed(labels[moved], predictions[moved], names)}", "doubted": True}
    if (present := len(np.unique(labels))) < 2 or size < IMAGES_PER_CLASS // 2 * present:
        reason = f"{size} images of {present} classes are too few to tell a permutation"
        return {"seen": f"not checked: {accuracy}; {reason}", "doubted": None}
    correct = int((mapped == labels).sum())
    explains = correct > max(_upper_limit(size, chance, 4), size * (chance + MIN_EXPLAINED * (1 - chance)))
    seen = f"{accuracy}; with the classes permuted {correct / size:.1%} of {size} (found on the other half)"
    return {"seen": f"{seen}: {_list_renamed(labels, predictions, names)}" if explains else seen, "doubted": explains}


def _in_rings(labels: Indices, predictions: Indices, mapped: Indices, classes: int) -> npt.NDArray[np.bool_]:
    """
    Return which images belong to classes that are permuted in a cycle; none if no cycle is significant.

    In a cycle, most images of each class are predicted as the next class. A weak model confuses classes too, but
    into fewer classes, which forms no cycle.
    """
    permutation, permuted = fit_permutation(labels, predictions, classes), np.zeros(len(labels), bool)
    for start in range(classes):
        cycle, next_class = [start], int(permutation[start])
        while next_class not in (-1, *cycle):
            cycle.append(next_class)
            next_class = int(permutation[next_class])
        if next_class != start or len(cycle) < 2:
            continue
        in_cycle = np.isin(labels, cycle)
        explained = [(mapped == labels)[labels == c].mean() > MIN_RING_FRACTION for c in cycle if (labels == c).any()]
        before, after = (predictions == labels)[in_cycle], (mapped == labels)[in_cycle]
        won, lost = int((after & ~before).sum()), int((before & ~after).sum())
        if len(explained) == len(cycle) and all(explained) and won - lost > RING_ERRORS * sqrt(won + lost):
            permuted |= in_cycle
    return permuted


def fit_permutation(labels: Indices, predictions: Indices, classes: int) -> Indices:
    """
    Return the label that each predicted class stands for, -1 if unknown; no label is used twice.

    >>> fit_permutation(np.array([1, 1, 0]), np.array([0, 0, 2]), 3)
    array([ 1, -1,  0])
    """
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (predictions, labels), 1)
    predicted, assigned = linear_sum_assignment(counts, maximize=True)
    permutation = np.full(classes, -1, np.int64)
    permutation[predicted] = np.where(counts[predicted, assigned] > 0, assigned, -1)
    return permutation


def _chance_accuracy(labels: Indices, classes: int) -> float:
    """Return the accuracy without knowledge: by guessing, or by always predicting the largest class."""
    return max(1 / classes, float(np.bincount(labels).max() / len(labels)))


def _predict_spread(predict: Predict, images: Images, count: int, batch_size: int) -> tuple[Indices, Indices]:
    """Return labels and predictions of images spread evenly over the set: many sets are sorted by class."""
    rows = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
    sample = images.select(rows, images.name)
    parts = [predict(sample.batch(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
    return sample.labels, np.concatenate(parts)


def _upper_limit(count: int, rate: float, deviations: float) -> float:
    return count * rate + deviations * sqrt(count * rate * (1 - rate))


def _list_renamed(labels: Indices, predictions: Indices, names: Sequence[str]) -> str:
    """List up to five classes that stand for others."""
    permutation = fit_permutation(labels, predictions, len(names))
    moved = [(predicted, label) for predicted, label in enumerate(permutation.tolist()) if label not in (-1, predicted)]
    listed = ", ".join(f"its {names[predicted]} is the data's {names[label]}" for predicted, label in moved[:5])
    return listed + (f" and {len(moved) - 5} more" if len(moved) > 5 else "")
