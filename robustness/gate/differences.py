"""The drop of one metric in one cell between two models on the same images: counted, or by the delta method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustness import claims
from robustness.errors import RobustnessError
from robustness.metrics import detection, registry
from robustness.metrics.critical_strength import ladder, strengths_resisted
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.metric import Counted, Influence

DISAGREEMENT = "disagreement"
"""Stands for a metric in a cell of `max_disagreement`."""


class GateError(RobustnessError):
    """A gate that cannot be evaluated: what is missing or differs, and how to fix it."""


class GateCell(NamedTuple):
    """One perturbation at one strength (or all, of critical strengths) under one metric, and its accepted drop."""

    sweep: str
    strength: str
    metric: str
    margin: float
    strengths: tuple[str, ...] = ()
    """Of critical strengths: the ladder on which they lie."""

    def __str__(self) -> str:
        return f"{self.sweep}:{self.strength}:{self.metric}"


class PairedDifference(NamedTuple):
    """
    How much worse a candidate is than the baseline in one cell.

    `changes`, (N,), is 1 if an image is lost, −1 if it is gained, among the `n` that the metric counts; None for a
    metric that counts no images, whose `error` is the standard error of the drop, by the `method` that is named. `sign`
    is −1 if less is better. Of critical strengths on a ladder of `steps` strengths, `changes` are drops in strengths.
    """

    baseline: float
    candidate: float
    sign: int
    n: int
    changes: NDArray[np.integer[Any]] | None
    error: float = math.nan
    method: str = "paired score"
    steps: int = 1

    @property
    def drop(self) -> float:
        """The candidate's deficit: positive if it is worse."""
        if self.changes is None:
            return self.sign * (self.baseline - self.candidate)
        return float(self.changes.sum(dtype=np.int64)) / (self.n * self.steps)


def disagreement(baseline: Evidence, candidate: Evidence, strength: str) -> PairedDifference:
    """
    Return the share of images whose decision differs, in one cell; images may be wrong in both models.

    A rejected image differs from one that is not. On a ladder of two steps, of which an image takes both or none, the
    bounds are those of Clopper and Pearson (see `ladder_stats`): exact also where no decision differs.
    """
    was, now = (each.predictions[each.index(strength)] for each in (baseline, candidate))
    differs = was != now
    if candidate.attack_probability is not None:
        before, after = (detection.discarded(each, each.index(strength)) for each in (baseline, candidate))
        differs = np.where(before | after, before != after, differs)
    changes = 2 * differs.astype(np.int8)
    return PairedDifference(0.0, float(differs.mean()), -1, len(differs), changes, math.nan, "disagreement", 2)


def by_critical_strength(cells: Sequence[GateCell]) -> list[GateCell]:
    """
    Put the cells of each sweep together; clean images stay as they are. The margin is the mean of the strengths'.

    >>> cells = [GateCell("fgsm", "0.1", "accuracy", 0.02), GateCell("fgsm", "0.2", "accuracy", 0.04)]
    >>> (one,) = by_critical_strength(cells)
    >>> str(one), one.margin, one.strengths
    ('fgsm:all:critical_strength', 0.03, ('0.1', '0.2'))
    """
    together = []
    for sweep, each in itertools.groupby(cells, lambda cell: cell.sweep):
        group = list(each)
        if sweep == "clean":
            together += group
            continue
        margin, strengths = float(np.mean([cell.margin for cell in group])), tuple(cell.strength for cell in group)
        together.append(GateCell(sweep, "all", "critical_strength", margin, strengths))
    return together


def critical_difference(baseline: Evidence, candidate: Evidence, strengths: Sequence[str]) -> PairedDifference:
    """
    Compare two models by each image's critical strength, as a rank on the ladder of these strengths.

    The drop is the mean over images and strengths: how much the accuracy "not misled at this strength or below" fell on
    average over the strengths.
    """
    order = ladder(strengths, candidate.provenance.get("subject", {}).get("unit", "default"))
    clean = all(each.clean is not None and each.clean.status[0] == OK for each in (baseline, candidate))
    was, now = (strengths_resisted(evidence, order, clean=clean) for evidence in (baseline, candidate))
    steps, n = len(strengths), len(was)
    method = "paired score" if steps == 1 else "paired ladder"
    return PairedDifference(
        float(was.mean()) / steps, float(now.mean()) / steps, 1, n, was - now, math.nan, method, steps
    )


def is_defined_for(metric: str, sweep: str, *, transferred: bool) -> bool:
    """
    Return whether a metric is defined for a sweep; a comparison with the clean pass is not defined on it.

    >>> [is_defined_for(metric, "clean", transferred=False) for metric in ("attack_success_rate", "coverage")]
    [False, True]
    """
    known = registry.get(metric)
    if known.needs_source:
        return transferred
    return sweep != "clean" or not known.needs_clean_evidence


def paired_difference(metric: str, baseline: Evidence, candidate: Evidence, strength: str) -> PairedDifference:
    """
    Compare two models in one cell, image by image.

    If both count the same images, the changes are counted; otherwise each image's influence on the two rates is used.
    GateError if a denominator is 0.
    """
    if not registry.gateable(metric):
        raise GateError(
            f"{metric}: follows from no predictions, scores or rejections, so a gate cannot test it; leave it out of "
            "[gate]"
        )
    sign = 1 if registry.get(metric).better == "higher" else -1
    was, now = (_counts(metric, evidence, evidence.index(strength)) for evidence in (baseline, candidate))
    if was is not None and now is not None and np.array_equal(was.among, now.among):
        among, n = now.among, int(now.among.sum())
        if not n:
            raise GateError(f"{metric} at {strength}: no image counts; leave the metric out of [gate]")
        changes = np.where(among, sign * (was.hits.astype(np.int8) - now.hits.astype(np.int8)), 0).astype(np.int8)
        return PairedDifference(float(was.hits[among].mean()), float(now.hits[among].mean()), sign, n, changes)
    before, after = (_influence(metric, evidence, strength) for evidence in (baseline, candidate))
    moved = before.per_image - after.per_image
    # No observed difference does not prove that there is none: add one image with the largest possible difference.
    largest = max(before.largest, after.largest)
    error = math.sqrt(float(((moved - moved.mean()) ** 2).sum()) + largest**2) / len(moved)
    return PairedDifference(before.value, after.value, sign, len(moved), None, error, after.method)


def _counts(metric: str, evidence: Evidence, row: int) -> Counted | None:
    """Return the images that are counted, and among which; None for a metric that counts no images."""
    reference = registry.parse(metric, evidence.classes)
    count = reference.metric.count
    return None if count is None else count(evidence, row, reference.label)


def _influence(metric: str, evidence: Evidence, strength: str) -> Influence:
    """Return a metric's value and how much each image moves it; GateError if the denominator is 0."""
    reference = registry.parse(metric, evidence.classes)
    assert reference.metric.influence is not None
    influence = reference.metric.influence(evidence, evidence.index(strength), reference.label)
    if math.isnan(influence.value):
        raise GateError(f"{metric} at {strength}: the denominator is 0; leave the metric out of [gate]")
    return influence


def cell_value(metric: str, evidence: Evidence, strength: str) -> float:
    """Measure one cell of one model; GateError if there is nothing to divide by."""
    counted = _counts(metric, evidence, evidence.index(strength))
    if counted is not None and counted.among.any():
        return float((counted.hits & counted.among).sum() / counted.among.sum())
    value = claims.measure(evidence, strength, metric).value
    if math.isnan(value):
        raise GateError(f"{metric} at {strength}: the denominator is 0; leave the metric out of [gate]")
    return value
