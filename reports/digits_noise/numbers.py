"""The digits-noise paper's numbers from counts: confusion matrices in, tables out; nothing here runs a model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.digits_noise import published
from reports.writing import summary
from robustness.metrics.confusion import Matrix, attractors, concentration, confusion_groups
from robustness.metrics.registry import measure_matrix

METRICS = ("accuracy", "precision[0]", "recall[0]", "f1[0]", "precision", "recall", "f1")
"""The four that the paper prints, then the macro averages."""

LIMITS = {"keras": 0.004, "torch": 0.008}
"""How far from table 5 the mean curve over seeds may lie, on average over V, by the initial weights."""

INITIAL_WEIGHTS = {
    "keras": "Glorot's uniform distribution, biases 0: the default of the paper's library",
    "torch": "torch's default of `nn.Linear`: this project's",
}
"""The paper names none. The first is what it most likely had."""
NAMES = {"keras": "Keras'", "torch": "torch's"}

SHARE = 0.06
"""From this share of a digit's images on a wrong class is in its group: the paper lists none below it."""

PAPER = "accumulated"
READINGS = {
    "accumulated": "x_k = x_(k−1) + V_k·R_k, R_k ~ N(0, 1) drawn for each V, not clipped",
    "bounded": "x + V·R, R ~ N(0, 1) clamped to [−1, 1], clipped to [0, 1]",
    "unbounded": "x + V·R, R ~ N(0, 1), clipped to [0, 1]",
    "uniform": "x + V·R, R ~ U(−1, 1), clipped to [0, 1]",
}
"""Of the paper's `NI = I + V·R`. The first is the paper's; the second was taken for it before."""

Counts = Sequence[Mapping[str, Any]]
"""One entry per training and reading: ``initial``, ``seed``, ``epochs``, ``reading``, and ``matrices``, one per V."""


def derive(counts: Counts) -> dict[str, Any]:
    """Compute every table from the confusion matrices; V runs over the published amplitudes."""
    last = max(entry["epochs"] for entry in counts)
    final = {reading: _matrices([c for c in counts if c["initial"] == "torch"], last, reading) for reading in READINGS}
    return {
        "initial": {
            name: _tables([c for c in counts if c["initial"] == name and c["reading"] == PAPER], name)
            for name in INITIAL_WEIGHTS
        },
        "readings": {reading: _reading(matrices) for reading, matrices in final.items()},
    }


def _tables(counts: Counts, initial: str) -> dict[str, Any]:
    """Compute the paper's tables for one kind of initial weights."""
    epochs = sorted({entry["epochs"] for entry in counts})
    by_epochs = {e: _matrices(counts, e, PAPER) for e in epochs}
    final = by_epochs[epochs[-1]]
    noise = {metric: _over_seeds(metric, final) for metric in METRICS}
    return {
        "clean_by_epochs": {str(e): {m: _over_seeds(m, by_epochs[e])[0] for m in METRICS} for e in epochs},
        "accuracy_by_epochs": {str(e): _over_seeds("accuracy", by_epochs[e]) for e in epochs},
        "noise": noise,
        "fit": {metric: _fit(noise[metric], curve) for metric, curve in published.curves().items()},
        "distance": {"limit": LIMITS[initial], **distance(final)},
        "collecting": _collecting(final),
        "groups": _groups([matrices[-1] for matrices in final]),
        "confusion": _mean_confusion(final),
    }


def _reading(by_seed: Sequence[Sequence[Matrix]]) -> dict[str, Any]:
    """Compute what tells one reading of the noise from another: the fitted curve, and numbers that were not fitted."""
    recalls = _over_seeds("recall[0]", by_seed)
    groups = _groups([matrices[-1] for matrices in by_seed])
    firsts = [{label for label, _ in ranked} for ranked in groups["attractors"]]
    named = {label for label, _ in published.attractors()}
    return {
        "accuracy": _over_seeds("accuracy", by_seed),
        "distance": distance(by_seed),
        "recall[0]": _fit(recalls, published.curves()["recall[0]"])["mean"],
        "pairs": groups["pairs"],
        "seeds": len(firsts),
        "with_three_attractors": sum(len(named & first) >= 3 for first in firsts),
        "with_8": sum(8 in first for first in firsts),
    }


def _mean_confusion(by_seed: Sequence[Sequence[Matrix]]) -> dict[str, list[list[float]]]:
    """Return the mean over seeds of the share of each digit's images per prediction, at no, medium and full noise."""
    amplitudes = published.load()["accuracy"]["V"]
    chosen = [0, len(amplitudes) // 2, len(amplitudes) - 1]
    return {
        f"{amplitudes[i]:g}": np.mean([m[i] / np.maximum(m[i].sum(1, keepdims=True), 1) for m in by_seed], 0)
        .round(4)
        .tolist()
        for i in chosen
    }


def distance(by_seed: Sequence[Sequence[Matrix]]) -> dict[str, Any]:
    """
    Return how far accuracy lies from table 5: the mean of |accuracy − published| over V.

    ``of_mean`` is the mean curve's over seeds, which the limit is for; ``of_seeds`` is that of each training alone.
    """
    curves = np.array([[measure_matrix("accuracy", m).value for m in matrices] for matrices in by_seed])
    table = np.array(published.curves()["accuracy"])
    return {
        "of_mean": round(float(abs(curves.mean(axis=0) - table).mean()), 6),
        "of_seeds": summary(abs(curves - table).mean(axis=1).tolist()),
    }


def _fit(measured: Sequence[Mapping[str, Any]], curve: Sequence[float]) -> dict[str, Any]:
    """Return how far the mean curve over seeds lies from a published one: on average over V, and at most, and where."""
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
    """Return for each seed the matrix of each V."""
    chosen = [entry for entry in counts if (entry["epochs"], entry["reading"]) == (epochs, reading)]
    return [[np.array(m, np.int64) for m in entry["matrices"]] for entry in sorted(chosen, key=lambda e: e["seed"])]


def _over_seeds(metric: str, by_seed: Sequence[Sequence[Matrix]]) -> list[dict[str, Any]]:
    """Return a metric's summary over seeds for each V."""
    return [summary(measure_matrix(metric, m).value for m in seeds) for seeds in zip(*by_seed, strict=True)]


def _collecting(by_seed: Sequence[Sequence[Matrix]]) -> dict[str, list[dict[str, Any]]]:
    """Return for each V how few classes draw the wrong predictions: share of the first three, entropy in bits."""
    found = [[concentration(m) for m in seeds] for seeds in zip(*by_seed, strict=True)]
    return {
        "share": [summary(c.share for c in seeds) for seeds in found],
        "entropy": [summary(c.entropy for c in seeds) for seeds in found],
    }


def _groups(matrices: Sequence[Matrix]) -> dict[str, Any]:
    """
    Return each digit's group: the wrong classes that on the mean over seeds draw at least SHARE of its images.

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
