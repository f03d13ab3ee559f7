"""
Metrics by name: what a card may claim, measured with an interval, and what a classifier that knows nothing gets.

A bare `precision`, `recall` or `f1` is the macro average; ``precision[3]`` or ``precision[cat]`` is one class's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustness.errors import RobustnessError, nearest
from robustness.metrics import confusion_rates, guessing
from robustness.metrics.confusion import Matrix, confusion_matrix
from robustness.metrics.intervals import Interval, delta, mean_interval, wilson

Classes = int | Sequence[str]
"""How many classes there are, or their names in the order of their indices."""


def count_classes(classes: Classes) -> int:
    """Count classes that are given by number or by name."""
    return classes if isinstance(classes, int) else len(classes)


class MetricError(RobustnessError, ValueError):
    """A metric name that means nothing: what is allowed, and the nearest match."""


@dataclass(frozen=True)
class MetricKind:
    """
    What a metric is, whether a card may claim it, and how it follows from a confusion matrix, if it does.

    Each says what one who knows nothing gets: `guess` if it is a `rate`, `ignorance` if it `compares`. There is no
    default: without it no claim on the metric is ever held.
    """

    description: str
    rate: Callable[[Matrix, int | None], confusion_rates.RateEstimate] | None = None
    guess: Callable[[NDArray[np.int64], NDArray[np.float64], int | None], float] | None = None
    """Of a rate: what it is on average if images, (K,) a class, are given each class with these probabilities, (K,)."""
    better: Literal["higher", "lower"] = "higher"
    claimable: bool = True
    takes_class: bool = False
    compares: bool = False
    """Whether it needs more than predictions and labels: other evidence, or an attack probability."""
    ignorance: float | Literal["accuracy"] | None = None
    """Of one that compares: what one who knows nothing gets at best, as a number or as that of accuracy."""
    rest_of: str = ""
    """The metric of the clean images of which one who tells nothing apart gets what is left to 1."""
    beside: tuple[str, ...] = ()
    """The metrics of the clean images that a claim on it counts only together with."""
    filters: bool = False
    """Whether it needs a decision with an attack probability."""
    probabilities: bool = False
    """Whether it needs the probability of every class."""
    shape: bool = False
    """Whether it is of the accuracies at several strengths."""

    @property
    def has_chance(self) -> bool:
        """Whether it is known what one who knows nothing gets: of loss and of areas under curves it follows."""
        if self.compares and not self.probabilities:
            return self.ignorance is not None
        return self.rate is None or self.guess is not None

    @property
    def gateable(self) -> bool:
        """Whether a gate can hold it: it follows from classes, scores and what is discarded, image by image."""
        return self.rate is not None or (self.compares and not self.shape)

    @property
    def family(self) -> str | None:
        """The family of a claim on it, where that is not its perturbation's."""
        return "detection" if self.filters or self.shape else None


RIGHT = ("accuracy",)
"""A constant classifier, which nothing can mislead, has none of it."""
KEPT = ("accuracy", "kept")
"""One that discards everything keeps nothing."""

METRICS: dict[str, MetricKind] = {
    "accuracy": MetricKind("share of images predicted right", confusion_rates.accuracy, guessing.accuracy),
    "balanced_accuracy": MetricKind(
        "mean recall of the classes that have images", confusion_rates.balanced_accuracy, guessing.balanced_accuracy
    ),
    "precision": MetricKind(
        "share of a class's predictions that are right", confusion_rates.precision, guessing.precision, takes_class=True
    ),
    "recall": MetricKind(
        "share of a class's images predicted right", confusion_rates.recall, guessing.recall, takes_class=True
    ),
    "f1": MetricKind(
        "harmonic mean of a class's precision and recall", confusion_rates.f1, guessing.f1, takes_class=True
    ),
    "precision_micro": MetricKind(
        "precision over all predictions together, equal to accuracy", confusion_rates.accuracy, guessing.accuracy
    ),
    "recall_micro": MetricKind(
        "recall over all images together, equal to accuracy", confusion_rates.accuracy, guessing.accuracy
    ),
    "f1_micro": MetricKind(
        "F1 over all images together, equal to accuracy", confusion_rates.accuracy, guessing.accuracy
    ),
    "roc_auc": MetricKind(
        "area under the ROC curve of every class against the rest, all together (micro-averaged)",
        compares=True,
        ignorance=0.5,
        probabilities=True,
    ),
    "loss": MetricKind("mean cross-entropy of an image, in nats", better="lower"),
    "attack_success_rate": MetricKind(
        "share of the images predicted right without the perturbation that are predicted wrong under it",
        better="lower",
        compares=True,
        ignorance=1.0,
        beside=RIGHT,
    ),
    "transferability": MetricKind(
        "share of the examples that mislead their source which mislead this model too (docs/attacks.md)",
        better="lower",
        compares=True,
        ignorance=1.0,
        beside=RIGHT,
    ),
    "transferability_filtered": MetricKind(
        "transferability where an image that the decision discards misleads nobody",
        better="lower",
        compares=True,
        ignorance=1.0,
        beside=KEPT,
        filters=True,
    ),
    "accuracy_filtered": MetricKind(
        "share of the images that are kept which are predicted right",
        compares=True,
        ignorance="accuracy",
        beside=KEPT,
        filters=True,
    ),
    "kept": MetricKind(
        "share of the images that are not discarded", compares=True, ignorance=0.0, beside=RIGHT, filters=True
    ),
    "discarded": MetricKind(
        "share of the images that are discarded: the detector's recall",
        compares=True,
        ignorance=0.0,
        rest_of="kept",
        beside=KEPT,
        filters=True,
    ),
    "undetected_wrong": MetricKind(
        "share of the images that are kept and predicted wrong",
        better="lower",
        compares=True,
        ignorance=1.0,
        beside=KEPT,
        filters=True,
    ),
    "detection_precision": MetricKind(
        "share of perturbed images among what is discarded of as many clean ones",
        compares=True,
        ignorance=0.5,
        filters=True,
    ),
    "detection_auc": MetricKind(
        "area under the detector's ROC curve, perturbed against clean images",
        compares=True,
        ignorance=0.5,
        filters=True,
    ),
    "sensitivity": MetricKind(
        "largest |Δaccuracy/Δstrength| between neighbours up to this strength",
        better="lower",
        compares=True,
        ignorance=math.inf,
        shape=True,
        beside=RIGHT,
    ),
    "deviation": MetricKind(
        "standard deviation of the accuracies up to this strength",
        better="lower",
        compares=True,
        ignorance=0.5,
        shape=True,
        beside=RIGHT,
    ),
    "range": MetricKind(
        "largest less least accuracy up to this strength",
        better="lower",
        compares=True,
        ignorance=1.0,
        shape=True,
        beside=RIGHT,
    ),
    "sensitivity_filtered": MetricKind(
        "sensitivity of the accuracy after filtering",
        better="lower",
        compares=True,
        ignorance=math.inf,
        shape=True,
        beside=KEPT,
        filters=True,
    ),
    "deviation_filtered": MetricKind(
        "deviation of the accuracy after filtering",
        better="lower",
        compares=True,
        ignorance=0.5,
        shape=True,
        beside=KEPT,
        filters=True,
    ),
    "range_filtered": MetricKind(
        "range of the accuracy after filtering",
        better="lower",
        compares=True,
        ignorance=1.0,
        shape=True,
        beside=KEPT,
        filters=True,
    ),
    "snr": MetricKind("mean signal-to-noise ratio of the changed images, in dB", claimable=False),
}


class Metric(NamedTuple):
    """A metric's name and, where it is one class's, the index of the class."""

    name: str
    label: int | None = None

    @property
    def kind(self) -> MetricKind:
        """What METRICS says about it."""
        return METRICS[self.name]


def gateable(metric: str) -> bool:
    """
    Return whether a gate can hold a metric, which may be one class's.

    >>> gateable("recall[3]"), gateable("detection_auc"), gateable("loss"), gateable("acuracy")
    (True, True, False, False)
    """
    name = metric.partition("[")[0]
    return name in METRICS and METRICS[name].gateable


def parse(metric: str, classes: Classes) -> Metric:
    """
    Read a metric as it stands in a card; a class is given by index or by name.

    >>> parse("recall[dog]", ["cat", "dog"])
    Metric(name='recall', label=1)
    >>> parse("acuracy", 10)
    Traceback (most recent call last):
    robustness.metrics.registry.MetricError: `metric` must be one of accuracy, balanced_accuracy, precision, \
precision[CLASS], recall, recall[CLASS], f1, f1[CLASS], precision_micro, recall_micro, f1_micro, roc_auc, loss, \
attack_success_rate, transferability, transferability_filtered, accuracy_filtered, kept, discarded, \
undetected_wrong, detection_precision, detection_auc, sensitivity, deviation, range, sensitivity_filtered, \
deviation_filtered, range_filtered, snr; got 'acuracy'; did you mean 'accuracy'?
    """
    match = re.fullmatch(r"(\w+)(?:\[(.*)\])?", metric)
    name, label = match.groups() if match else (metric, None)
    if name not in METRICS or (label is not None and not METRICS[name].takes_class):
        allowed = [form for key, kind in METRICS.items() for form in (key, f"{key}[CLASS]")[: 1 + kind.takes_class]]
        plain = re.sub(r"[\W_]+", "_", name.partition("[")[0].strip().lower())  # as "Balanced accuracy", "f1-score"
        near = nearest(re.sub("_(macro|score)$", "", plain), list(METRICS))
        raise MetricError(f"`metric` must be one of {', '.join(allowed)}; got {metric!r}{near}")
    return Metric(name, None if label is None else _class_index(metric, label, classes))


@dataclass(frozen=True)
class Measurement:
    """
    A metric's value on some images, with an interval and the method it comes from.

    `n` is the denominator in images; `successes` is there where images are counted. A value of NaN (a dash in tables,
    a failed claim) has its reason in `note`.
    """

    metric: str
    value: float
    interval: Interval
    method: Literal["wilson", "delta", "normal", "delong", "influence"]
    n: int
    successes: int | None = None
    note: str = ""


def measure(
    metric: str,
    labels: ArrayLike,
    predictions: ArrayLike,
    classes: Classes,
    *,
    loss: ArrayLike | None = None,
    snr: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Measurement:
    """
    Measure one metric on predictions.

    Args:
        metric: The metric's name, "recall[3]" or "recall[cat]" for one class.
        labels: The true class of each image, (N,).
        predictions: The predicted class of each image, (N,).
        classes: The number of classes, or their names.
        loss: Cross-entropy per image, (N,), for "loss".
        snr: Signal-to-noise ratio per image in dB, (N,), for "snr"; infinite if an image was not changed.
        confidence: Coverage of the two-sided interval.

    Returns:
        The value with its interval.

    Raises:
        MetricError: If the metric is unknown or needs more than predictions.
        ValueError: If shapes do not fit or a number is NaN.

    >>> measure("recall[1]", [0, 1, 1, 1], [0, 1, 1, 0], 2).successes
    2
    """
    name = parse(metric, classes).name
    if METRICS[name].compares:
        raise MetricError(f"`{name}` compares several pieces of evidence; call comparisons.measure")
    if METRICS[name].rate is None:
        return _mean(name, {"loss": loss, "snr": snr}[name], len(np.asarray(labels)), confidence)
    matrix = confusion_matrix(labels, predictions, count_classes(classes))
    return measure_matrix(metric, matrix, classes, confidence=confidence)


def measure_matrix(
    metric: str, matrix: Matrix, classes: Classes | None = None, *, confidence: float = 0.95
) -> Measurement:
    """
    Measure a metric on a confusion matrix that is already there; `classes` are needed only for their names.

    >>> measured = measure_matrix("accuracy", np.array([[971, 29], [7, 993]]))
    >>> print(measured.value, measured.method, measured.n, measured.successes)
    0.982 wilson 2000 1964
    """
    count = len(matrix) if classes is None else count_classes(classes)
    if matrix.shape != (count, count):
        raise ValueError(f"`matrix` must have a row and a column for each of {count} classes, got {matrix.shape}")
    parsed = parse(metric, count if classes is None else classes)
    if parsed.kind.rate is None:
        raise MetricError(f"`metric` must follow from a confusion matrix, got {metric!r}; call measure with {metric}=")
    value, n, successes, gradient, note = parsed.kind.rate(matrix, parsed.label)
    if gradient is None:
        return Measurement(metric, value, wilson(successes or 0, n, confidence), "wilson", n, successes, note)
    return Measurement(metric, value, delta(matrix, gradient, value, confidence), "delta", n, successes, note)


class RocCurve(NamedTuple):
    """One point a threshold, from the strictest to the laxest."""

    false_positive_rates: NDArray[np.float64]
    true_positive_rates: NDArray[np.float64]
    thresholds: NDArray[np.float64]


def roc_curve(positive: ArrayLike, scores: ArrayLike) -> RocCurve:
    """
    Trade false for true positives over all thresholds on a score that should be high for `positive` images.

    >>> roc_curve([False, True, True], [0.1, 0.4, 0.9]).true_positive_rates.tolist()
    [0.0, 0.5, 1.0, 1.0]
    """
    from sklearn.metrics import roc_curve as curve  # takes 2 to 3 s to import, and only reports draw curves

    truth, numbers = _binary(positive, scores)
    if truth.all() or not truth.any():
        raise ValueError(f"`positive` must hold both kinds, got {truth.sum()} of {truth.size}; add images of the other")
    return RocCurve(*curve(truth, numbers))


def _binary(positive: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    truth, numbers = np.asarray(positive), np.asarray(scores, dtype=np.float64)
    if truth.shape != numbers.shape or truth.ndim != 1 or not np.isin(truth, (0, 1)).all():
        raise ValueError(
            f"`positive` must be 0 or 1 for each of the scores, got shape {truth.shape} of {truth.dtype} for "
            f"{numbers.shape}; give one flag and one score an image"
        )
    if np.isnan(numbers).any():
        raise ValueError(
            f"`scores` must be numbers, got {np.isnan(numbers).sum()} NaN; a cell with NaN is not measured"
        )
    return truth.astype(bool), numbers


def _mean(name: str, values: ArrayLike | None, images: int, confidence: float) -> Measurement:
    """Average one number an image; an SNR that is infinite is left out, an infinite loss is not."""
    if values is None:
        raise ValueError(f"`{name}` must be given to measure {name!r}, got None; pass one number an image")
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (images,) or np.isnan(numbers).any():
        raise ValueError(
            f"`{name}` must be one number for each of {images} images, got shape {numbers.shape} with "
            f"{np.isnan(numbers).sum()} NaN; an image without a number makes its cell an error, not a mean"
        )
    infinite = int(np.isinf(numbers).sum())
    note = f"{infinite} of {images} images with infinite {name}" if infinite else ""
    if infinite and name == "snr":
        numbers = numbers[np.isfinite(numbers)]
        note += " (unchanged, or black) left out"
    value = float(numbers.mean()) if numbers.size else math.nan
    interval = mean_interval(numbers, confidence)
    return Measurement(name, value, interval, "normal", numbers.size, note=note if images else "no images")


def _class_index(metric: str, label: str, classes: Classes) -> int:
    """Find a class by index or name; one text that means two classes is refused."""
    names, count = [] if isinstance(classes, int) else list(classes), count_classes(classes)
    found = {index for index, name in enumerate(names) if name == label}
    if re.fullmatch("[0-9]+", label) and int(label) < count:
        found.add(int(label))
    if len(found) == 1:
        return found.pop()
    if found:
        raise MetricError(
            f"`{metric}` must mean one class, got one that is classes {', '.join(map(str, sorted(found)))} "
            "by index or name; rename a class, or give an index that is no other's name"
        )
    known = ", ".join(map(repr, names[:12])) + ", …" * (len(names) > 12)
    raise MetricError(
        f"`{metric}` must name a class by index, 0 to {count - 1}{f', or by name, {known}' if names else ''}; "
        f"got {label!r}{nearest(label, names)}"
    )
