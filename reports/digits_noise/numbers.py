"""The digits-noise paper's numbers from counts: confusion matrices in, tables out; nothing here runs a model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.digits_noise import published
from reports.writing import summary
from robustness.measures.confusion import Matrix, attractors, concentration, confusion_groups
from robustness.measures.metrics import measure_matrix

METRICS = ("accuracy", "precision[0]", "recall[0]", "f1[0]", "precision", "recall", "f1")
"""The four that the paper prints, then the macro averages."""

LIMIT = 0.02
"""How far from table 5 the mean curve over seeds may lie, on average over V; one seed differs by more at V > 0.4."""

SHARE = 0.06
"""From this share of a digit's images on a wrong class is in its group: the paper lists none below it."""

READINGS = {
    "bounded": "R ~ N(0, 1) clamped to [−1, 1]",
    "unbounded": "R ~ N(0, 1)",
    "uniform": "R ~ U(−1, 1)",
}
"""Of `NI = I + V·R`; the result is clipped to [0, 1] in each. The first is the one that is taken for the paper's."""

Counts = Sequence[Mapping[str, Any]]
"""One entry a classifier and reading: ``seed``, ``epochs``, ``reading`` and ``matrices``, a confusion matrix per V."""


def derive(counts: Counts) -> dict[str, Any]:
    """Compute every table from the confusion matrices; V runs over the published amplitudes."""
    last = max(entry["epochs"] for entry in counts)
    final = {reading: _matrices(counts, last, reading) for reading in READINGS}
    epochs = sorted({entry["epochs"] for entry in counts})
    bounded = {e: _matrices(counts, e, "bounded") for e in epochs}
    noise = {metric: _over_seeds(metric, final["bounded"]) for metric in METRICS}
    return {
        "clean_by_epochs": {str(e): {m: _over_seeds(m, bounded[e])[0] for m in METRICS} for e in epochs},
        "accuracy_by_epochs": {str(e): _over_seeds("accuracy", bounded[e]) for e in epochs},
        "noise": noise,
        "fit": {metric: _fit(noise[metric], curve) for metric, curve in published.curves().items()},
        "accuracy_by_reading": {reading: _over_seeds("accuracy", final[reading]) for reading in READINGS},
        "distance": {"limit": LIMIT, **{reading: distance(final[reading]) for reading in READINGS}},
        "collecting": _collecting(final["bounded"]),
        "groups": _groups([matrices[-1] for matrices in final["bounded"]]),
    }


def distance(by_seed: Sequence[Sequence[Matrix]]) -> dict[str, Any]:
    """
    Give how far accuracy lies from table 5: the mean of |accuracy − published| over V.

    ``of_mean`` is the mean curve's over seeds, which the limit is for; ``of_seeds`` is that of each training alone.
    """
    curves = np.array([[measure_matrix("accuracy", m).value for m in matrices] for matrices in by_seed])
    table = np.array(published.curves()["accuracy"])
    return {
        "of_mean": round(float(abs(curves.mean(axis=0) - table).mean()), 6),
        "of_seeds": summary(abs(curves - table).mean(axis=1).tolist()),
    }


def _fit(measured: Sequence[Mapping[str, Any]], curve: Sequence[float]) -> dict[str, Any]:
    """Give how far the mean curve over seeds lies from a published one: on average over V, and at most, and where."""
    known = [
        (abs(m["mean"] - p), i) for i, (m, p) in enumerate(zip(measured, curve, strict=True)) if m["mean"] is not None
    ]
    if not known:
        return {"mean": None, "largest": None}
    largest, i = max(known)
    deviation = measured[i]["deviation"]
    return {
        "mean": round(statistics.fmean(distance for distance, _ in known), 6),
        "largest": {
            "V": published.load()["accuracy"]["V"][i],
            "published": curve[i],
            "measured": measured[i]["mean"],
            "deviations": round(largest / deviation, 1) if deviation else None,
        },
    }


def _matrices(counts: Counts, epochs: int, reading: str) -> list[list[Matrix]]:
    """Give for each seed the matrix of each V."""
    chosen = [entry for entry in counts if (entry["epochs"], entry["reading"]) == (epochs, reading)]
    return [[np.array(m, np.int64) for m in entry["matrices"]] for entry in sorted(chosen, key=lambda e: e["seed"])]


def _over_seeds(metric: str, by_seed: Sequence[Sequence[Matrix]]) -> list[dict[str, Any]]:
    """Give a metric's summary over seeds for each V."""
    return [summary(measure_matrix(metric, m).value for m in seeds) for seeds in zip(*by_seed, strict=True)]


def _collecting(by_seed: Sequence[Sequence[Matrix]]) -> dict[str, list[dict[str, Any]]]:
    """Give for each V how few classes draw the wrong predictions: share of the first three, entropy in bits."""
    found = [[concentration(m) for m in seeds] for seeds in zip(*by_seed, strict=True)]
    return {
        "share": [summary(c.share for c in seeds) for seeds in found],
        "entropy": [summary(c.entropy for c in seeds) for seeds in found],
    }


def _groups(matrices: Sequence[Matrix]) -> dict[str, Any]:
    """
    Give each digit's group: the wrong classes that on the mean over seeds draw at least SHARE of its images.

    Beside each stands its mean share and in how many seeds it reaches SHARE: which class draws depends on the seed.
    Pairs (digit, wrong class) are compared with those that are published.
    """
    shares = np.mean([m / np.maximum(m.sum(axis=1, keepdims=True), 1) for m in matrices], axis=0)
    of_seeds = [confusion_groups(m, SHARE) for m in matrices]
    digits = {
        str(digit): [
            {
                "class": wrong,
                "share": round(float(share), 6),
                "seeds": sum(wrong in groups[digit] for groups in of_seeds),
            }
            for wrong, share in enumerate(row)
            if wrong != digit and share >= SHARE
        ]
        for digit, row in enumerate(shares)
    }
    listed = {(true, wrong) for true, drawn in published.groups().items() for wrong in drawn}
    own = [{(true, wrong) for true, drawn in groups.items() for wrong in drawn} for groups in of_seeds]
    return {
        "share": SHARE,
        "digits": digits,
        "pairs": {
            "published": len(listed),
            "of_seeds": [len(pairs) for pairs in own],
            "of_seeds_published": [len(pairs & listed) for pairs in own],
            "of_mean": sum(map(len, digits.values())),
            "of_mean_published": sum((int(d), w["class"]) in listed for d, drawn in digits.items() for w in drawn),
        },
        "attractors": [[[label, round(share, 6)] for label, share in attractors(m, 4)] for m in matrices],
    }
