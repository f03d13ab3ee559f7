"""The page of all metrics: what each `Metric` says of itself, those of installed packages among them."""

from __future__ import annotations

import math

import numpy as np

from robustness.metrics.chance_level import chance_level
from robustness.metrics.metric import Metric
from robustness.metrics.registry import METRICS

HEAD = """# All metrics

Generated from the program; [metrics](../metrics.md) explains how they are measured, and how to add one. *Chance level*
is that on ten classes with equally many images: a claim must beat it. *Needs* is what a claim requires besides
predictions: claims on the clean images, a decision that detects attacks (*detector*), the probability of every class
(`store_probabilities = true`), the card of another model (`source`), a sweep.
"""

LABELS = np.arange(100) % 10


def row(metric: Metric) -> str:
    """Write a metric's row."""
    name = f"`{metric.name}`" + (f", `{metric.name}[CLASS]`" if metric.takes_class else "")
    gate = "yes" if metric.influence else "no"
    cells = (name, metric.description, metric.better, _chance(metric), gate, _needs(metric))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _chance(metric: Metric) -> str:
    if not metric.claimable:
        return "cannot be claimed"
    if metric.complement_of:
        return f"1 − the claim of clean `{metric.complement_of}`"
    value = chance_level(metric.name, LABELS, 10).value
    return "unknown" if math.isnan(value) else "∞" if value == math.inf else f"{value:.4g}"


def _needs(metric: Metric) -> str:
    needs = [f"clean `{name}`" for name in metric.requires_claims]
    needs += ["detector"] * metric.needs_detector
    needs += ["probabilities"] * metric.needs_probabilities
    needs += ["source"] * metric.needs_source
    needs += ["sweep"] * (metric.needs_clean_evidence and not metric.needs_source)
    return ", ".join(needs) or "—"


def page() -> str:
    """Write the page."""
    heads = ("metric", "what it is", "better", "chance level", "gate", "needs")
    rows = [row(metric) for metric in METRICS.values()]
    return "\n".join([HEAD, f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *rows, ""])
