"""Classes in another order: a model that knows its images, and calls the classes by each other's names."""

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

EACH = 8
"""Images of a class that a permutation is looked for on, where there are so many; with fewer than half it is not."""
MORE = 500
"""Images that are looked at if the first show no more than chance."""
KNOWS = 1 / 3
"""The share of the way from chance to all images that a permutation must reach: untrained models reach less."""
MOST, SURE = 0.5, 4.0
"""The share of each class's images that classes in a ring explain, and by how many standard errors they explain more
than the classes as they stand."""


def look(predict: Predict, images: Images, count: int, seed: int) -> dict[str, Any]:
    """Return whether a permutation of classes explains what a model says of some images; see `sampled`, `explained`."""
    return explained(*sampled(predict, images, count), images.classes, seed)


def sampled(predict: Predict, images: Images, count: int) -> tuple[Indices, Indices]:
    """
    Return labels and predictions of ``count`` images spread over the set; of more if they show no more than chance.

    ``predict`` gives the class of each image, (N, C, H, W).
    """
    size, classes = min(count, len(images)), len(images.classes)
    labels, predictions = _some(predict, images, size, count)
    more = min(len(images), max(size, EACH * classes, MORE))
    if int((labels == predictions).sum()) > _beyond(size, _chance(labels, classes), 3) or more == size:
        return labels, predictions
    return _some(predict, images, more, count)


def explained(labels: Indices, predictions: Indices, names: Sequence[str], seed: int) -> dict[str, Any]:
    """
    Return whether a permutation of all classes, or of some of them, explains the classes that a model says.

    ``labels`` and ``predictions`` are (N,), ``names`` those of all classes. A permutation is found on one half of the
    images and counted on the other.
    """
    size, classes, chance = len(labels), len(names), _chance(labels, len(names))
    accuracy = f"clean accuracy {int((labels == predictions).sum()) / size:.1%} of {size} images"
    first = np.zeros(size, bool)
    first[generator(seed, Purpose.DOUBTED, 3).permutation(size)[: size // 2]] = True
    read = np.full(size, -1)  # the classes that are meant, each half read as the other tells
    for fit in (first, ~first):
        read[~fit] = fitted(labels[fit], predictions[fit], classes)[predictions[~fit]]
    if (labels == predictions).sum() > _beyond(size, chance, 3):
        moved = _exchanged(labels, predictions, read, classes)
        if not moved.any():
            return {"seen": accuracy, "doubted": False}
        right = int((read == labels)[moved].sum())
        seen = f"{accuracy}; of {moved.sum()} images of some classes {right / moved.sum():.1%} with these permuted"
        return {"seen": f"{seen}: {_named(labels[moved], predictions[moved], names)}", "doubted": True}
    if (present := len(np.unique(labels))) < 2 or size < EACH // 2 * present:
        few = f"{size} images of {present} classes are too few to tell a permutation"
        return {"seen": f"not looked for: {accuracy}; {few}", "doubted": None}
    held = int((read == labels).sum())
    explains = held > max(_beyond(size, chance, 4), size * (chance + KNOWS * (1 - chance)))
    seen = f"{accuracy}; with the classes permuted {held / size:.1%} of {size} (found on the other half)"
    return {"seen": f"{seen}: {_named(labels, predictions, names)}" if explains else seen, "doubted": explains}


def _exchanged(labels: Indices, predictions: Indices, read: Indices, classes: int) -> npt.NDArray[np.bool_]:
    """
    Return which images are of classes that stand for one another in a ring, none if no ring is beyond doubt.

    In a ring most images of each class are called by the next one's name. A model that is only weak confuses classes,
    but into fewer, which closes no ring.
    """
    meant, inside = fitted(labels, predictions, classes), np.zeros(len(labels), bool)
    for start in range(classes):
        ring, at = [start], int(meant[start])
        while at not in (-1, *ring):
            ring.append(at)
            at = int(meant[at])
        if at != start or len(ring) < 2:
            continue
        of_ring = np.isin(labels, ring)
        apart = [(read == labels)[labels == c].mean() > MOST for c in ring if (labels == c).any()]
        won, lost = (int((of_ring & one & ~other).sum()) for one, other in (
            (read == labels, predictions == labels), (predictions == labels, read == labels),
        ))  # fmt: skip
        if len(apart) == len(ring) and all(apart) and won - lost > SURE * sqrt(won + lost):
            inside |= of_ring
    return inside


def fitted(labels: Indices, predictions: Indices, classes: int) -> Indices:
    """
    Return for each class that a model says the one that it stands for, −1 where nothing tells; none stands for two.

    >>> fitted(np.array([1, 1, 0]), np.array([0, 0, 2]), 3)
    array([ 1, -1,  0])
    """
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (predictions, labels), 1)
    said, meant = linear_sum_assignment(counts, maximize=True)
    found = np.full(classes, -1, np.int64)
    found[said] = np.where(counts[said, meant] > 0, meant, -1)
    return found


def _chance(labels: Indices, classes: int) -> float:
    """Return the accuracy of who knows nothing: by guessing, or by always saying the largest class."""
    return max(1 / classes, float(np.bincount(labels).max() / len(labels)))


def _some(predict: Predict, images: Images, count: int, at_once: int) -> tuple[Indices, Indices]:
    """Return labels and predictions of images spread over all: in many sets they lie class by class."""
    rows = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
    chosen = images.select(rows, images.name)
    parts = [predict(chosen.batch(start, min(start + at_once, count))) for start in range(0, count, at_once)]
    return chosen.labels, np.concatenate(parts)


def _beyond(count: int, share: float, deviations: float) -> float:
    return count * share + deviations * sqrt(count * share * (1 - share))


def _named(labels: Indices, predictions: Indices, names: Sequence[str]) -> str:
    """Say which classes stand for which, five of them."""
    found = fitted(labels, predictions, len(names))
    moved = [(said, meant) for said, meant in enumerate(found.tolist()) if meant not in (-1, said)]
    listed = ", ".join(f"its {names[said]} is the data's {names[meant]}" for said, meant in moved[:5])
    return listed + (f" and {len(moved) - 5} more" if len(moved) > 5 else "")
