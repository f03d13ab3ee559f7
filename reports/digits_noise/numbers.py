"""The digits-noise paper's numbers from counts: confusion matrices in, tables out; nothing here runs a model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.digits_noise import published
from reports.digits_noise.protocol import INITIAL_WEIGHTS, METRICS, PAPER_READING, READINGS
from reports.rows import unpacked
from reports.writing import summary
from robustness.metrics.confusion import Matrix, attractors, concentration, confusion_groups
from robustness.metrics.registry import measure_matrix

# How far from table 5 the mean curve over seeds may lie, on average over V, by the initial weights.
LIMITS = {"keras": 0.004, "torch": 0.008}
# From this share of a digit's images on another class is in its group: the paper lists none below it.
SHARE = 0.06

# For each seed the matrix of each V.
Curves = Sequence[Sequence[Matrix]]


def derive(result: Mapping[str, Any]) -> dict[str, Any]:
    """Compute every table from the confusion matrices; V runs over the published amplitudes."""
    matrices: dict[tuple[str, int, str], dict[int, list[Matrix]]] = {}
    rows, clean = unpacked(result), dict[tuple[str, int], Matrix]()
    for row in rows:
        initial, _, epochs = row["system"].partition("-")
        matrix = np.array(row["matrix"], np.int64)
        if row["sweep"] == "clean":
            clean[row["system"], row["fold"]] = matrix
        else:
            curves = matrices.setdefault((initial, int(epochs), row["sweep"]), {})
            curves.setdefault(row["fold"], [clean[row["system"], row["fold"]]]).append(matrix)
    every = {key: [curves[seed] for seed in sorted(curves)] for key, curves in matrices.items()}
    last = max(epochs for _, epochs, _ in every)
    return {
        "initial": {
            name: _tables(
                {e: c for (i, e, reading), c in every.items() if (i, reading) == (name, PAPER_READING)}, LIMITS[name]
            )
            for name in INITIAL_WEIGHTS
        },
        "readings": {reading: _reading(every["torch", last, reading]) for reading in READINGS},
    }


def _tables(by_epochs: Mapping[int, Curves], limit: float) -> dict[str, Any]:
    """Compute the paper's tables for one kind of initial weights."""
    epochs = sorted(by_epochs)
    final = by_epochs[epochs[-1]]
    noise = {metric: _over_seeds(metric, final) for metric in METRICS}
    return {
        "clean_by_epochs": {e: {m: _over_seeds(m, by_epochs[e])[0] for m in METRICS} for e in epochs},
        "accuracy_by_epochs": {e: _over_seeds("accuracy", by_epochs[e]) for e in epochs},
        "noise": noise,
        "fit": {metric: _fit(noise[metric], curve) for metric, curve in published.CURVES.items()},
        "distance": {"limit": limit, **distance(final)},
        "collecting": _collecting(final),
        "groups": _groups([matrices[-1] for matrices in final]),
        "confusion": _mean_confusion(final),
        "first": {e: by_epochs[e][0][0] for e in epochs},
    }


def _reading(by_seed: Curves) -> dict[str, Any]:
    """Compute what tells one reading of the noise from another: the fitted curve, and numbers that were not fitted."""
    recalls = _over_seeds("recall[0]", by_seed)
    groups = _groups([matrices[-1] for matrices in by_seed])
    firsts = [{label for label, _ in ranked} for ranked in groups["attractors"]]
    named = {label for label, _ in published.attractors()}
    return {
        "accuracy": _over_seeds("accuracy", by_seed),
        "distance": distance(by_seed),
        "recall[0]": _fit(recalls, published.CURVES["recall[0]"])["mean"],
        "pairs": groups["pairs"],
        "seeds": len(firsts),
        "with_three_attractors": sum(len(named & first) >= 3 for first in firsts),
        "with_8": sum(8 in first for first in firsts),
    }


def _mean_confusion(by_seed: Curves) -> dict[str, list[list[float]]]:
    """Return the mean over seeds of the share of each digit's images per prediction, at no, medium and full noise."""
    amplitudes = published.AMPLITUDES
    chosen = [0, len(amplitudes) // 2, len(amplitudes) - 1]
    return {
        f"{amplitudes[i]:g}": np.mean([m[i] / np.maximum(m[i].sum(1, keepdims=True), 1) for m in by_seed], 0)
        .round(4)
        .tolist()
        for i in chosen
    }


def distance(by_seed: Curves) -> dict[str, Any]:
    """
    Return how far accuracy lies from table 5: the mean of |accuracy − published| over V.

    ``of_mean`` is the mean curve's over seeds, which the limit is for; ``of_seeds`` is that of each training alone.
    """
    curves = np.array([[measure_matrix("accuracy", m).value for m in matrices] for matrices in by_seed])
    table = np.array(published.CURVES["accuracy"])
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
            "V": published.AMPLITUDES[i],
            "published": curve[i],
            "measured": measured[i]["mean"],
            "deviations": round(largest / deviation, 1) if deviation else None,
        },
    }


def _over_seeds(metric: str, by_seed: Curves) -> list[dict[str, Any]]:
    """Return a metric's summary over seeds for each V."""
    return [summary(measure_matrix(metric, m).value for m in seeds) for seeds in zip(*by_seed, strict=True)]


def _collecting(by_seed: Curves) -> dict[str, list[dict[str, Any]]]:
    """Return for each V how few classes draw the wrong predictions: share of the first three, entropy in bits."""
    entries = [[concentration(m) for m in seeds] for seeds in zip(*by_seed, strict=True)]
    return {
        "share": [summary(c.share for c in seeds) for seeds in entries],
        "entropy": [summary(c.entropy for c in seeds) for seeds in entries],
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
    by_seed = [{(true, wrong) for true, drawn in groups.items() for wrong in drawn} for groups in of_seeds]
    return {
        "share": SHARE,
        "digits": digits,
        "pairs": {
            "published": len(published.PAIRS),
            "of_seeds": [len(pairs) for pairs in by_seed],
            "of_seeds_published": [len(pairs & published.PAIRS) for pairs in by_seed],
            "of_mean": sum(map(len, digits.values())),
            "of_mean_published": sum(
                (int(d), w["class"]) in published.PAIRS for d, drawn in digits.items() for w in drawn
            ),
        },
        "attractors": [[[label, round(share, 6)] for label, share in attractors(m, 4)] for m in matrices],
    }
