"""The claims of digits-noise, each with the criterion that decides it, on the tables that the counts give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from reports.digits_noise import published
from reports.verdicts import Criterion

# How far clean accuracy may lie from the printed one: three deviations over seeds and a little.
CLEAN_MARGIN = 0.005
# How far a printed curve may lie from the mean over seeds, at every V, in deviations over seeds.
DEVIATIONS = 2.0
# The fraction of the printed pairs (digit, other class) that must be among those measured.
PAIRS = 0.75


def _mean(entry: Mapping[str, Any]) -> float:
    return math.nan if entry["mean"] is None else float(entry["mean"])


def criteria(tables: Mapping[str, Any]) -> Iterator[Criterion]:
    """Return all claims, on the tables of one kind of initial weights."""
    yield from _curves(tables)
    yield from _digit_0(tables["noise"], tables["fit"])
    yield from _errors(tables["collecting"], tables["groups"])


def _curves(tables: Mapping[str, Any]) -> Iterator[Criterion]:
    clean = {epochs: _mean(entry["accuracy"]) for epochs, entry in tables["clean_by_epochs"].items()}
    last = max(clean)
    printed = published.EPOCHS.get(last, {}).get("accuracy", math.nan)
    rises = all(first < second for first, second in pairwise(clean.values()))
    values = {f"after {epochs}": value for epochs, value in clean.items()} | {"published": printed}
    claim = "Without noise accuracy rises with the epochs to 0.9783 after ten"
    yield Criterion("level", claim, values, rises and abs(clean[last] - printed) <= CLEAN_MARGIN)
    means = [_mean(entry) for entry in tables["noise"]["accuracy"]]
    distance, limit = tables["distance"]["of_mean"], tables["distance"]["limit"]
    falls = all(first > second for first, second in pairwise(means))
    values = {"mean distance": distance, "at most": limit, "at V = 1": means[-1]}
    claim = "Accuracy falls with V as table 5 says, to 0.26 at V = 1"
    yield Criterion("level", claim, values, distance <= limit and falls)


def _digit_0(noise: Mapping[str, Any], fit: Mapping[str, Any]) -> Iterator[Criterion]:
    recall = noise["recall[0]"]
    near = [
        abs(_mean(entry) - printed) <= DEVIATIONS * (entry["deviation"] or 0.0)
        for entry, printed in zip(recall, published.CURVES["recall[0]"], strict=True)
    ]
    values = {"recall[0] at V = 1": _mean(recall[-1]), "accuracy there": _mean(noise["accuracy"][-1])}
    values["mean distance"] = fit["recall[0]"]["mean"]
    yield Criterion(
        "level", "Digit 0 is lost as tables 7 and 8 say: its recall is 0.162 at V = 1", values, all(near)
    )  # fmt: skip
    points = zip(published.AMPLITUDES, noise["precision[0]"], recall, strict=True)
    gaps = {f"V = {v:.1f}": _mean(precision) - _mean(recall_) for v, precision, recall_ in points if v >= 0.6}
    claim = "Under strong noise few other digits are taken for 0: precision[0] stays above recall[0] from V = 0.6 on"
    yield Criterion("ordering", claim, gaps, all(value > 0 for value in gaps.values()))


def _errors(collecting: Mapping[str, Any], groups: Mapping[str, Any]) -> Iterator[Criterion]:
    clean, noisy = (_mean(collecting["share"][index]) for index in (0, -1))
    printed = sum(share for _, share in published.attractors(3))
    values = {"share of the first three": noisy, "without noise": clean, "published": printed}
    claim = "Under strong noise the wrong predictions collect in few classes"
    yield Criterion("level", claim, values, noisy >= printed and noisy > clean)
    named = {label for label, _ in published.attractors()}
    common = [len(named & {label for label, _ in ranked}) for ranked in groups["attractors"]]
    claim = "These classes are 5, 2, 3 and 7: three of them or more among the first four in most trainings"
    in_most = 2 * sum(count >= 3 for count in common) > len(common)
    yield Criterion("ordering", claim, {"of the four, fewest": min(common), "most": max(common)}, in_most)
    pairs = groups["pairs"]
    values = {"published": pairs["published"], "of them here": pairs["of_mean_published"], "here": pairs["of_mean"]}
    claim = (
        f"The groups of wrong classes at high noise: at least {PAIRS:.0%} of the printed pairs on the mean over seeds"
    )
    yield Criterion("level", claim, values, pairs["of_mean_published"] >= PAIRS * pairs["published"])
