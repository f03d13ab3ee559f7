"""
All metrics by name: those of this package, one line per family, and those of other packages, by entry points.

A bare `precision`, `recall` or `f1` is the macro average; ``precision[3]`` or ``precision[cat]`` is one class's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from robustness.errors import nearest
from robustness.metrics import (
    attack_success,
    calibration,
    confusion_rates,
    detection,
    image_means,
    roc_auc,
    strength_curves,
)
from robustness.metrics.confusion import Matrix, confusion_matrix
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.metric import Measurement, Metric, MetricError
from robustness.metrics.rate_metric import measure_rate
from robustness.util.registry import Registry

Classes = int | Sequence[str]
"""How many classes there are, or their names in the order of their indices."""


def _problem(name: str, candidate: Any) -> str:
    """Return why an entry point is no metric, or ""."""
    if not isinstance(candidate, Metric):
        return f"must be a robustness.metrics.metric.Metric, got {candidate!r}; name an instance"
    if candidate.name != name:
        return f"must be named as its entry point, got {candidate.name!r}; rename one of them"
    return ""


# The metrics of this package, in the order of messages and tables.
METRICS: Registry[Metric] = Registry(
    "robustness.metrics",
    {
        metric.name: metric
        for metric in (
            *confusion_rates.METRICS,
            roc_auc.ROC_AUC,
            image_means.LOSS,
            *calibration.METRICS,
            *attack_success.METRICS,
            *detection.METRICS,
            *strength_curves.METRICS,
            image_means.SNR,
        )
    },
    _problem,
)


class MetricRef(NamedTuple):
    """A metric's name and, if it is one class's, the index of the class."""

    name: str
    label: int | None = None

    @property
    def metric(self) -> Metric:
        """The metric of that name."""
        return get(self.name)


def find(metric: str) -> Metric | None:
    """Return the metric of a name, which may have a class in brackets; None if there is no such metric."""
    return METRICS.get(metric.partition("[")[0])


def get(metric: str) -> Metric:
    """Return the metric of a name, which may have a class in brackets; MetricError lists all if there is none."""
    known = find(metric)
    if known is None:
        raise _unknown(metric)
    return known


def gateable(metric: str) -> bool:
    """
    Return whether a gate supports a metric, which may be one class's.

    >>> gateable("recall[3]"), gateable("detection_auc"), gateable("loss"), gateable("acuracy")
    (True, True, False, False)
    """
    definition = find(metric)
    return definition is not None and definition.influence is not None


def count_classes(classes: Classes) -> int:
    """Count classes that are given by number or by name."""
    return classes if isinstance(classes, int) else len(classes)


def parse(metric: str, classes: Classes) -> MetricRef:
    """
    Parse a metric from a card; a class is given by index or by name.

    >>> parse("recall[dog]", ["cat", "dog"])
    MetricRef(name='recall', label=1)
    >>> parse("recal", 10)
    Traceback (most recent call last):
    robustness.metrics.metric.MetricError: `metric` must be one of accuracy, ...; got 'recal'; did you mean 'recall'?
    """
    match = re.fullmatch(r"(\w+)(?:\[(.*)\])?", metric)
    name, label = match.groups() if match else (metric, None)
    known = find(name) if match else None
    if known is None or (label is not None and not known.takes_class):
        raise _unknown(metric)
    return MetricRef(name, None if label is None else _class_index(metric, label, classes))


def measure_cell(evidence: Evidence, row: int, metric: str, confidence: float = 0.95) -> Measurement:
    """
    Measure a metric on the evidence of one strength.

    Args:
        evidence: The classifier's decisions, with `clean` and `source` evidence if the metric compares with them.
        row: The row of the strength.
        metric: A name, with a class in brackets for the metric of one class.
        confidence: Coverage of the interval.

    Returns:
        The value with its interval; NaN with a note if nothing is counted.

    Raises:
        MetricError: If there is no such metric or class, or the evidence lacks what it needs.
    """
    reference = parse(metric, evidence.classes)
    return replace(reference.metric.measure(evidence, row, reference.label, confidence), metric=metric)


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
    reference = parse(metric, classes)
    known = reference.metric
    if known.rate is not None:
        return measure_matrix(
            metric, confusion_matrix(labels, predictions, count_classes(classes)), classes, confidence=confidence
        )
    names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
    unknown = np.full(np.shape(predictions), np.nan, np.float32)
    loss, snr = (np.asarray(unknown if numbers is None else numbers)[None] for numbers in (loss, snr))
    rows, unknown = np.asarray(predictions)[None], unknown[None]
    evidence = Evidence(np.asarray(labels), names, ("0",), rows, unknown, unknown, loss, snr, (OK,))
    return replace(known.measure(evidence, 0, reference.label, confidence), metric=metric)


def measure_matrix(
    metric: str, matrix: Matrix, classes: Classes | None = None, *, confidence: float = 0.95
) -> Measurement:
    """
    Measure a metric on a confusion matrix; `classes` are needed only for their names.

    >>> measured = measure_matrix("accuracy", np.array([[971, 29], [7, 993]]))
    >>> print(measured.value, measured.method, measured.n, measured.successes)
    0.982 wilson 2000 1964
    """
    count = len(matrix) if classes is None else count_classes(classes)
    if matrix.shape != (count, count):
        raise ValueError(f"`matrix` must have a row and a column per class ({count}), got {matrix.shape}")
    reference = parse(metric, count if classes is None else classes)
    known = reference.metric
    if known.rate is None:
        raise MetricError(f"`metric` must follow from a confusion matrix, got {metric!r}; call measure with {metric}=")
    return replace(measure_rate(known.rate, known.limits, matrix, reference.label, confidence), metric=metric)


def _unknown(metric: str) -> MetricError:
    """Return the error for an unknown name: what is allowed, and the nearest match."""
    # Other packages' metrics are listed without loading them: a broken one must not hide the misspelt name.
    names = list(METRICS)
    takes_class = {name for name in METRICS.built_in if METRICS[name].takes_class}
    allowed = [form for name in names for form in (name, f"{name}[CLASS]")[: 1 + (name in takes_class)]]
    plain = re.sub(r"[\W_]+", "_", metric.partition("[")[0].strip().lower())  # as "Balanced accuracy", "f1-score"
    near = nearest(re.sub("_(macro|score)$", "", plain), names)
    return MetricError(f"`metric` must be one of {', '.join(allowed)}; got {metric!r}{near}")


def _class_index(metric: str, label: str, classes: Classes) -> int:
    """Return the index of a class from an index or name; MetricError if the text means two classes."""
    names, count = [] if isinstance(classes, int) else list(classes), count_classes(classes)
    indices = {index for index, name in enumerate(names) if name == label}
    if re.fullmatch("[0-9]+", label) and int(label) < count:
        indices.add(int(label))
    if len(indices) == 1:
        return indices.pop()
    if indices:
        raise MetricError(
            f"`{metric}` must mean one class, got one that matches the classes {', '.join(map(str, sorted(indices)))} "
            "by index or name; rename a class, or use an index that is no class's name"
        )
    known = ", ".join(map(repr, names[:12])) + ", …" * (len(names) > 12)
    raise MetricError(
        f"`{metric}` must name a class by index, 0 to {count - 1}{f', or by name, {known}' if names else ''}; "
        f"got {label!r}{nearest(label, names)}"
    )
