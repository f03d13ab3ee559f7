"""Classes in another order: a model that knows its images, and calls the classes by each other's names."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from robustness.datasets.images import Images
from robustness.draws import Purpose, generator

Indices = npt.NDArray[np.int64]
Predict = Callable[[npt.NDArray[np.float32]], Indices]

EACH = 8
"""Images of a class that a permutation is looked for on, where there are so many; with fewer than half it is not."""
KNOWS = 1 / 3
"""The share of the way from chance to all images that a permutation must reach: untrained models reach less."""


def look(predict: Predict, images: Images, count: int, seed: int) -> dict[str, Any]:
    """
    Say whether accuracy is near chance while a permutation of the classes would explain it.

    ``predict`` gives the class of each image, (N, C, H, W). Only where ``count`` images spread over the set show no
    more than chance are further ones looked at. A permutation is found on one half of them and counted on the other.
    """
    size, classes = min(count, len(images)), len(images.classes)
    labels, predictions = _some(predict, images, size, count)
    chance = max(1 / classes, float(np.bincount(labels).max() / len(labels)))
    right = int((labels == predictions).sum())
    accuracy = f"clean accuracy {right / size:.1%} of {size} images"
    if right > _beyond(size, chance, 3):
        return {"seen": accuracy, "doubted": False}
    if (more := min(len(images), max(size, EACH * classes))) > size:
        labels, predictions = _some(predict, images, more, count)
    if (present := len(np.unique(labels))) < 2 or len(labels) < EACH // 2 * present:
        few = f"{len(labels)} images of {present} classes are too few to tell a permutation"
        return {"seen": f"not looked for: {accuracy}; {few}", "doubted": None}
    first = np.zeros(len(labels), bool)
    first[generator(seed, Purpose.DOUBTED, 3).permutation(len(labels))[: len(labels) // 2]] = True
    held = sum(
        int((fitted(labels[fit], predictions[fit], classes)[predictions[~fit]] == labels[~fit]).sum())
        for fit in (first, ~first)
    )
    chance = max(1 / classes, float(np.bincount(labels).max() / len(labels)))
    explains = held > max(_beyond(len(labels), chance, 4), len(labels) * (chance + KNOWS * (1 - chance)))
    seen = f"{accuracy}; with the classes permuted {held / len(labels):.1%} of {len(labels)} (found on the other half)"
    return {"seen": f"{seen}: {_named(labels, predictions, images)}" if explains else seen, "doubted": explains}


def fitted(labels: Indices, predictions: Indices, classes: int) -> Indices:
    """
    Give for each class that a model says the one that it stands for, −1 where nothing tells; none stands for two.

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


def _some(predict: Predict, images: Images, count: int, at_once: int) -> tuple[Indices, Indices]:
    """Give labels and predictions of images spread over all: in many sets they lie class by class."""
    rows = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
    chosen = images.select(rows, images.name)
    parts = [predict(chosen.batch(start, min(start + at_once, count))) for start in range(0, count, at_once)]
    return chosen.labels, np.concatenate(parts)


def _beyond(count: int, share: float, deviations: float) -> float:
    return count * share + deviations * sqrt(count * share * (1 - share))


def _named(labels: Indices, predictions: Indices, images: Images) -> str:
    """Say which classes stand for which, five of them."""
    found = fitted(labels, predictions, len(images.classes))
    moved = [(said, meant) for said, meant in enumerate(found.tolist()) if meant not in (-1, said)]
    listed = ", ".join(f"its {images.classes[said]} is the data's {images.classes[meant]}" for said, meant in moved[:5])
    return listed + (f" and {len(moved) - 5} more" if len(moved) > 5 else "")
