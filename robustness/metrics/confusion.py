"""The confusion matrix, and the concentration of wrong predictions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.metrics.evidence import Evidence

Matrix = NDArray[np.int64]


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int) -> Matrix:
    """
    Count the images of each true class (row) by predicted class (column).

    >>> confusion_matrix([0, 0, 1, 2], [0, 1, 1, 1], 3)
    array([[1, 1, 0],
           [0, 1, 0],
           [0, 1, 0]])
    """
    if classes < 1:
        raise ValueError(f"`classes` must be at least 1, got {classes}; use the number of classes")
    rows, columns = _indices("labels", labels, classes), _indices("predictions", predictions, classes)
    if rows.shape != columns.shape:
        raise ValueError(
            f"`predictions` must have one class per label ({len(rows)}), got {len(columns)}; use both of the same "
            "images"
        )
    counts = np.bincount(rows * classes + columns, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64, copy=False)


@lru_cache(maxsize=256)
def cell_matrix(evidence: Evidence, row: int) -> Matrix:
    """Count the images of one strength by true and predicted class, (K, K), once for all metrics of the cell."""
    return confusion_matrix(evidence.labels, evidence.predictions[row], len(evidence.classes))


def confusion_groups(matrix: Matrix, share: float = 0.06) -> dict[int, dict[int, float]]:
    """
    List for each true class the wrong classes that draw at least `share` of all its images.

    >>> confusion_groups(np.array([[90, 8, 2], [0, 100, 0], [30, 10, 60]]))
    {0: {1: 0.08}, 1: {}, 2: {0: 0.3, 1: 0.1}}
    """
    if not 0 < share <= 1:
        raise ValueError(f"`share` must lie in (0, 1], got {share:g}; write 0.06 for 6 % of a class's images")
    wrong = _wrong(matrix)
    shares = wrong / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return {
        true: {int(drawn): float(row[drawn]) for drawn in np.flatnonzero(row >= share)}
        for true, row in enumerate(shares)
    }


def attractors(matrix: Matrix, top: int = 3) -> list[tuple[int, float]]:
    """
    Rank the classes by their share of all wrong predictions; at most `top` classes, without those of share 0.

    >>> attractors(np.array([[90, 8, 2], [0, 100, 0], [30, 10, 60]]))
    [(0, 0.6), (1, 0.36), (2, 0.04)]
    """
    drawn = _wrong(matrix).sum(axis=0)
    order = np.argsort(-drawn, kind="stable")[:top]  # stable: of two that draw alike the lower class comes first
    return [(int(label), float(drawn[label] / drawn.sum())) for label in order if drawn[label]]


class Concentration(NamedTuple):
    """The concentration of wrong predictions: the share of the first classes, and the entropy over all, in bits."""

    share: float
    entropy: float


def concentration(matrix: Matrix, top: int = 3) -> Concentration:
    """
    Measure the concentration of wrong predictions; NaN for both numbers if no prediction is wrong.

    Entropy is 0 if all wrong predictions are of one class, and log₂ K if K classes have equal shares.

    >>> concentration(np.array([[5, 2, 2], [0, 9, 0], [2, 2, 5]]), top=1)
    Concentration(share=0.5, entropy=1.5)
    """
    drawn = _wrong(matrix).sum(axis=0)
    if not drawn.any():
        return Concentration(np.nan, np.nan)
    shares = np.sort(drawn[drawn > 0] / drawn.sum())[::-1]
    entropy = float(-(shares * np.log2(shares)).sum())
    return Concentration(min(float(shares[:top].sum()), 1.0), max(entropy, 0.0))


def _wrong(matrix: Matrix) -> Matrix:
    """Copy the matrix without its diagonal."""
    return matrix - np.diag(matrix.diagonal())


def _indices(name: str, values: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Check that each value is a class."""
    array: NDArray[Any] = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(
            f"`{name}` must be one integer per image, got shape {array.shape} of {array.dtype}; use class indices, not "
            "scores"
        )
    indices = array.astype(np.int64)  # narrow types would overflow in row · classes + column
    outside = indices[(indices < 0) | (indices >= classes)]
    if outside.size:
        repair = (
            "-1 marks an image without a valid prediction: such a cell is an error and not measured"
            if name == "predictions" and (outside == -1).any()
            else "use the data's number of classes"
        )
        raise ValueError(
            f"`{name}` must lie in 0 to {classes - 1}, got {outside[0]} ({outside.size} of {array.size} outside); "
            f"{repair}"
        )
    return indices
