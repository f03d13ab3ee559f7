"""
Rates of a confusion matrix, each with its gradient for the delta method.

Averages follow scikit-learn with ``labels`` = all classes and ``zero_division=0``: a macro average covers every class;
a class with an empty denominator counts 0, with a note. `balanced_accuracy` leaves out classes without images. The rate
of one class is NaN if its denominator is empty.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from robustness.metrics import guessing
from robustness.metrics.confusion import Matrix
from robustness.metrics.evidence import Evidence
from robustness.metrics.metric import Counted, Floats, RateEstimate
from robustness.metrics.rate_metric import rate_metric


def accuracy(matrix: Matrix, label: int | None = None) -> RateEstimate:
    """
    Return the share of correctly predicted images, which equals the micro averages.

    >>> accuracy(np.array([[8, 2], [1, 9]])).value
    0.85
    """
    return _count(int(matrix.trace()), int(matrix.sum()), "no images")


def recall(matrix: Matrix, label: int | None = None) -> RateEstimate:
    """
    Return the share of a class's images that are predicted correctly, or its mean over all classes.

    >>> recall(np.array([[8, 2], [1, 9]]), 1).value
    0.9
    """
    images = matrix.sum(axis=1)
    if label is not None:
        return _count(int(matrix[label, label]), int(images[label]), "the class has no images")
    value = _mean(matrix.diagonal(), images, len(matrix))
    return _average(matrix, value, _slopes(matrix.T, 1 / len(matrix)).T, _empty(images, "images", "counted 0"))


def balanced_accuracy(matrix: Matrix, label: int | None = None) -> RateEstimate:
    """
    Return the mean recall of the classes that have images.

    >>> balanced_accuracy(np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])).value
    0.85
    """
    images = matrix.sum(axis=1)
    present = max(int(np.count_nonzero(images)), 1)
    value = _mean(matrix.diagonal(), images, present)
    return _average(matrix, value, _slopes(matrix.T, 1 / present).T, _empty(images, "images", "left out"))


def precision(matrix: Matrix, label: int | None = None) -> RateEstimate:
    """
    Return the share of a class's predictions that are correct, or its mean over all classes.

    >>> precision(np.array([[8, 2], [0, 9]]), 0).value
    1.0
    """
    predicted = matrix.sum(axis=0)
    if label is None:
        value = _mean(matrix.diagonal(), predicted, len(matrix))
        return _average(matrix, value, _slopes(matrix, 1 / len(matrix)), _empty(predicted, "predictions", "counted 0"))
    hits, n, gradient = int(matrix[label, label]), int(predicted[label]), _slopes(matrix, _only(matrix, label))
    return RateEstimate(hits / n if n else math.nan, n, None, gradient, "" if n else "the class has no predictions")


def f1(matrix: Matrix, label: int | None = None) -> RateEstimate:
    """
    Return 2·hits / (images + predictions) of a class, or its mean over all classes.

    n of one class counts the images of the class or with its prediction.

    >>> f1(np.array([[8, 2], [0, 8]]), 1).value
    0.8888888888888888
    """
    hits, images, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    total = images + predicted
    weights = 1 / len(matrix) if label is None else _only(matrix, label)
    rates, slope = _divide(2 * hits, total), weights * _divide(matrix.sum(), total)
    gradient = np.diag(2 * slope) - (rates * slope)[:, None] - rates * slope
    if label is None:
        notes = (_empty(predicted, "predictions", "counted 0"), _empty(images, "images", "counted 0"))
        return _average(matrix, _mean(2 * hits, total, len(matrix)), gradient, "; ".join(filter(None, notes)))
    if not total[label]:
        return RateEstimate(math.nan, 0, None, gradient, "the class has neither images nor predictions")
    return RateEstimate(2 * int(hits[label]) / int(total[label]), int(total[label] - hits[label]), None, gradient)


def _count(successes: int, n: int, empty: str) -> RateEstimate:
    """Divide two counts; `empty` is the note if there is nothing to divide by."""
    return RateEstimate(successes / n, n, successes) if n else RateEstimate(math.nan, 0, 0, note=empty)


def _average(matrix: Matrix, value: float, gradient: Floats, note: str) -> RateEstimate:
    n = int(matrix.sum())
    return RateEstimate(value, n, None, gradient, note) if n else RateEstimate(math.nan, 0, None, gradient, "no images")


def _mean(counts: NDArray[np.int64], by: NDArray[np.int64], classes: int) -> float:
    """Average the quotients, an empty one as 0; in integers: 0.85 must not come out just below a bound of 0.85."""
    pairs: list[tuple[int, int]] = [(k, n) for k, n in zip(counts.tolist(), by.tolist(), strict=True) if n]
    whole = math.lcm(*(n for _, n in pairs))
    return sum(k * (whole // n) for k, n in pairs) / (whole * classes)


def _slopes(matrix: Matrix, weights: Floats | float) -> Floats:
    """Derive Σ w·p_jj / p_j, the weighed shares of right ones in the columns, by p_ij: w·(δ_ij − share_j) / p_j."""
    drawn = matrix.sum(axis=0)
    return (np.eye(len(matrix)) - _divide(matrix.diagonal(), drawn)) * weights * _divide(matrix.sum(), drawn)


def _divide(counts: NDArray[np.int64], by: NDArray[np.int64]) -> Floats:
    """Divide; the result is 0 where the denominator is 0."""
    return np.divide(counts, by, out=np.zeros(len(by)), where=by > 0)


def _only(matrix: Matrix, label: int) -> Floats:
    weights = np.zeros(len(matrix))
    weights[label] = 1
    return weights


def _empty(counts: NDArray[np.int64], what: str, fate: str) -> str:
    """Return how many classes have an empty denominator, and how they are treated."""
    empty = int((counts == 0).sum())
    return f"{empty} of {len(counts)} classes without {what} {fate}" if empty else ""


def count_correct(evidence: Evidence, row: int, label: int | None = None) -> Counted:
    """Count the correctly predicted images."""
    return Counted(evidence.predictions[row] == evidence.labels, np.ones(len(evidence), np.bool_))


def count_recalled(evidence: Evidence, row: int, label: int | None = None) -> Counted | None:
    """Count a class's correctly predicted images; None for an average."""
    if label is None:
        return None
    return Counted(evidence.predictions[row] == evidence.labels, evidence.labels == label)


ACCURACY = rate_metric(
    "accuracy",
    "fraction of images predicted correctly",
    accuracy,
    guessing.accuracy,
    count=count_correct,
    required_because="a constant classifier scores 0",
    monotone=True,
)

METRICS = (
    ACCURACY,
    rate_metric(
        "balanced_accuracy",
        "mean recall of the classes that have images",
        balanced_accuracy,
        guessing.balanced_accuracy,
        monotone=True,
    ),
    rate_metric(
        "precision",
        "fraction of a class's predictions that are correct",
        precision,
        guessing.precision,
        takes_class=True,
    ),
    rate_metric(
        "recall",
        "fraction of a class's images predicted correctly",
        recall,
        guessing.recall,
        count=count_recalled,
        takes_class=True,
        perfect_by_constant=True,
        monotone=True,
    ),
    rate_metric("f1", "harmonic mean of a class's precision and recall", f1, guessing.f1, takes_class=True),
    *(
        rate_metric(f"{name}_micro", description, accuracy, guessing.accuracy, count=count_correct, monotone=True)
        for name, description in (
            ("precision", "precision over all predictions together, equal to accuracy"),
            ("recall", "recall over all images together, equal to accuracy"),
            ("f1", "F1 over all images together, equal to accuracy"),
        )
    ),
)
