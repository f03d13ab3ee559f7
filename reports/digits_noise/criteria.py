"""What came of the digits-noise paper's claims, by criteria on the tables that the counts give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from reports.digits_noise import published
from reports.verdicts import Kind, Verdict, decided

NEAR = 0.005
"""How far clean accuracy may lie from the printed one: three deviations over seeds and a little."""
DEVIATIONS = 2.0
"""How far a printed curve may lie from the mean over seeds, at every V, in deviations over seeds."""

PAIRS = 0.75
"""The share of the printed pairs (digit, wrong class) that must be among those measured."""


def verdicts(result: Mapping[str, Any], initial: str = "keras") -> list[Verdict]:
    """Judge the tables of one kind of initial weights: those of the paper's library, unless another is named."""
    tables, scale = result["tables"]["initial"][initial], result["scale"]
    return [decided(*judge(tables), kind=kind, scale=scale) for judge, kind in CRITERIA.items()]


Parts = tuple[str, Mapping[str, float], bool]


def _mean(entry: Mapping[str, Any]) -> float:
    return math.nan if entry["mean"] is None else float(entry["mean"])


def _clean(tables: Mapping[str, Any]) -> Parts:
    measured = {int(e): _mean(entry["accuracy"]) for e, entry in tables["clean_by_epochs"].items()}
    epochs = sorted(measured)
    last = published.after(epochs[-1]).get("accuracy", math.nan)
    rises = all(measured[a] < measured[b] for a, b in pairwise(epochs))
    return (
        "Without noise accuracy rises with the epochs to 0.9783 after ten",
        {f"after {e}": measured[e] for e in epochs} | {"published": last},
        rises and abs(measured[epochs[-1]] - last) <= NEAR,
    )


def _falls(tables: Mapping[str, Any]) -> Parts:
    means = [_mean(entry) for entry in tables["noise"]["accuracy"]]
    distance, limit = tables["distance"]["of_mean"], tables["distance"]["limit"]
    return (
        "Accuracy falls with V as table 5 says, to 0.26 at V = 1",
        {"mean distance": distance, "at most": limit, "at V = 1": means[-1]},
        distance <= limit and all(a > b for a, b in pairwise(means)),
    )


def _zero(tables: Mapping[str, Any]) -> Parts:
    found = tables["noise"]["recall[0]"]
    off = [
        abs(_mean(entry) - known) <= DEVIATIONS * (entry["deviation"] or 0.0)
        for entry, known in zip(found, published.recalls(), strict=True)
    ]
    return (
        "Digit 0 is lost as tables 7 and 8 say: its recall is 0.162 at V = 1",
        {
            "recall[0] at V = 1": _mean(found[-1]),
            "accuracy there": _mean(tables["noise"]["accuracy"][-1]),
            "mean distance": tables["fit"]["recall[0]"]["mean"],
        },
        all(off),
    )


def _precision(tables: Mapping[str, Any]) -> Parts:
    precision, recall = (tables["noise"][f"{metric}[0]"] for metric in ("precision", "recall"))
    apart = {
        f"V = {v:.1f}": _mean(p) - _mean(r)
        for v, p, r in zip(published.load()["accuracy"]["V"], precision, recall, strict=True)
        if v >= 0.6
    }
    return (
        "Under strong noise few other digits are taken for 0: precision[0] stays above recall[0] from V = 0.6 on",
        apart,
        all(value > 0 for value in apart.values()),
    )


def _collects(tables: Mapping[str, Any]) -> Parts:
    shares = tables["collecting"]["share"]
    least = sum(share for _, share in published.attractors(3))
    return (
        "Under strong noise the wrong predictions collect in few classes",
        {"share of the first three": _mean(shares[-1]), "without noise": _mean(shares[0]), "published": least},
        _mean(shares[-1]) >= least and _mean(shares[-1]) > _mean(shares[0]),
    )


def _which(tables: Mapping[str, Any]) -> Parts:
    named = {label for label, _ in published.attractors()}
    common = [len(named & {label for label, _ in ranked}) for ranked in tables["groups"]["attractors"]]
    return (
        "These classes are 5, 2, 3 and 7: three of them or more among the first four in most trainings",
        {"of the four, fewest": min(common), "most": max(common)},
        2 * sum(count >= 3 for count in common) > len(common),
    )


def _groups(tables: Mapping[str, Any]) -> Parts:
    pairs = tables["groups"]["pairs"]
    return (
        f"The groups of wrong classes at high noise: at least {PAIRS:.0%} of the printed pairs on the mean over seeds",
        {"published": pairs["published"], "of them here": pairs["of_mean_published"], "here": pairs["of_mean"]},
        pairs["of_mean_published"] >= PAIRS * pairs["published"],
    )


CRITERIA: Mapping[Callable[[Mapping[str, Any]], Parts], Kind] = {
    _clean: "level",
    _falls: "level",
    _zero: "level",
    _precision: "ordering",
    _collects: "level",
    _which: "ordering",
    _groups: "level",
}
