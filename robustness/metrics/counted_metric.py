"""Metrics that count images among others: a share with Wilson's interval, and each image's influence on it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import UNKNOWN, wilson
from robustness.metrics.metric import Count, Influence, Measurement, Metric, MetricError


def counted_metric(name: str, description: str, count: Count, **fields: Any) -> Metric:
    """
    Build a metric that is a share of images.

    Args:
        name: How cards call it.
        description: What it is, in half a sentence.
        count: Returns which images count among which others, as `Counted`.
        fields: Other fields of `Metric`, such as `chance_level`.

    Returns:
        The metric, with Wilson's interval; a gate counts the images that change.
    """
    measure, influence = partial(measure_counted, count), partial(counted_influence, count)
    return Metric(name=name, description=description, count=count, measure=measure, influence=influence, **fields)


def measure_counted(count: Count, evidence: Evidence, row: int, label: int | None, confidence: float) -> Measurement:
    """Measure the share with Wilson's interval."""
    counted = count(evidence, row, label)
    assert counted is not None
    n, successes = int(counted.among.sum()), int((counted.hits & counted.among).sum())
    if not n:
        return Measurement(math.nan, UNKNOWN, "wilson", 0, None, counted.reason)
    return Measurement(successes / n, wilson(successes, n, confidence), "wilson", n, successes)


def counted_influence(count: Count, evidence: Evidence, row: int, label: int | None) -> Influence:
    """Return each image's influence on the share."""
    counted = count(evidence, row, label)
    assert counted is not None
    hits, among, _ = counted
    share = float(among.mean())
    if not share:
        return Influence(math.nan, np.zeros(len(among)), math.nan)
    rate = float((hits & among).mean()) / share
    return Influence(rate, (hits & among).astype(np.float64) / share - among * (rate / share), 1 / share)


def require_evidence(evidence: Evidence | None, what: str) -> Evidence:
    """Return evidence that a metric compares with; MetricError if there is none."""
    if evidence is None:
        raise MetricError(f"the metric compares evidence and needs {what}, got none")
    return evidence
