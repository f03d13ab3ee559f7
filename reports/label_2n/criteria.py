"""
The claims of label-2n, each with the criterion that decides it, written before any run was looked at.

Accuracy over ε is that of images of which half are perturbed, as in the paper.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from reports.comparing import compared
from reports.label_2n.numbers import Measured
from reports.verdicts import Verdict, decided

DEFENCES = {"adv+bin": "ADV", "null": "NULL", "2n": "2N", "cdaec+bin": "CDAEC", "distill+bin": "DISTILL"}
"""The five of the paper, by the systems that carry them; `plain+bin` is no defence."""
STRONG = 0.3
"""ε above which nothing was seen in training."""
FOLDS = 5
"""What the paper's tests have; with fewer they have little power."""


def _each(measured: Measured, number: Callable[[str], float]) -> dict[str, float]:
    return {name: number(system) for system, name in DEFENCES.items()}


def filtering_gains(measured: Measured) -> Verdict:
    """Half of the images perturbed: every defence gains, ADV less than half of what the others gain on average."""
    gains = _each(
        measured,
        lambda s: measured.mean(s, "mixed", "accuracy_filtered") - measured.mean(s, "mixed", "accuracy"),
    )
    others = [gain for name, gain in gains.items() if name != "ADV"]
    holds = min(gains.values()) > 0 and gains["ADV"] < 0.5 * sum(others) / len(others)
    claim = "filtering raises the accuracy of all defences, of ADV much less"
    return decided(claim, gains, holds, kind="ordering", scale=measured.scale)


def null_is_flat(measured: Measured) -> Verdict:
    """NULL's accuracy after filtering varies by at most 0.05 from ε 0.05 on."""
    curve = measured.curve("null", "half_accuracy_filtered", above=0.04)
    spread = max(curve) - min(curve) if curve else math.nan
    found = {"range from ε 0.05": spread}
    return decided("NULL is flat over ε", found, spread <= 0.05, kind="level", scale=measured.scale)


def attack_probability_rises(measured: Measured) -> Verdict:
    """2N's mean attack probability rises over at least the first half of the curve."""
    curve = [measured.mean("2n", "clean", "attack_probability"), *measured.curve("2n", "attack_probability")]
    rising = 0
    for before, after in itertools.pairwise(curve):
        if not after > before:
            break
        rising += 1
    values = {"clean": curve[0], "at the last ε": curve[-1], "rising steps": float(rising)}
    claim, holds = "2N's mean attack probability rises with ε over a long range", rising >= len(curve) // 2
    return decided(claim, values, holds, kind="ordering", scale=measured.scale)


def constant_after_filtering(measured: Measured) -> Verdict:
    """2N's accuracy after filtering varies by at most 0.1 over all ε, clean included."""
    found = {"range": measured.mean("2n", "shape", "range_filtered")}
    claim = "2N's accuracy with filtering is nearly constant over ε"
    return decided(claim, found, found["range"] <= 0.1, kind="level", scale=measured.scale)


def lowest(shape: str) -> Callable[[Measured], Verdict]:
    """Of the five defences 2N has the lowest of a shape, after filtering."""

    def decide(measured: Measured) -> Verdict:
        found = _each(measured, lambda s: measured.mean(s, "shape", f"{shape}_filtered"))
        rest = min(value for name, value in found.items() if name != "2N")
        claim = f"{shape} of the accuracy over ε is lowest for 2N"
        return decided(claim, found, found["2N"] < rest, kind="ordering", scale=measured.scale)

    return decide


def best_mean_accuracy(measured: Measured) -> Verdict:
    """Half of the images perturbed, filtered: 2N is best; on CIFAR-10 NULL is ahead, by at most 0.02."""
    found = _each(measured, lambda s: measured.mean(s, "mixed", "accuracy_filtered"))
    best = max(found, key=lambda name: found[name])
    if measured.source == "cifar10":
        holds = best == "NULL" and found["NULL"] - found["2N"] <= 0.02
        claim = "NULL has the best mean accuracy, 1 % ahead of 2N"
        return decided(claim, found, holds, kind="level", scale=measured.scale)
    return decided("2N has the best mean accuracy", found, best == "2N", kind="ordering", scale=measured.scale)


def best_beyond_training(measured: Measured) -> Verdict:
    """For ε above 0.3 2N has the best mean accuracy after filtering."""

    def mean(system: str) -> float:
        curve = measured.curve(system, "half_accuracy_filtered", above=STRONG)
        return sum(curve) / len(curve) if curve else math.nan

    found = _each(measured, mean)
    holds = max(found, key=lambda name: found[name]) == "2N"
    return decided("for ε above 0.3 2N is best", found, holds, kind="ordering", scale=measured.scale)


def hardly_transfers(measured: Measured) -> Verdict:
    """2N's filtered transferability is below 0.02 on average, and a half of the paper's factor below its rival's."""
    rival, factor = ("distill+bin", 3.0) if measured.source == "cifar10" else ("null", 5.0)

    def mean(system: str) -> float:
        curve = measured.curve(system, "transferability_filtered")
        return sum(curve) / len(curve) if curve else math.nan

    found = {"2N": mean("2n"), DEFENCES[rival]: mean(rival)}
    holds = found["2N"] < 0.02 and found[DEFENCES[rival]] >= 0.5 * factor * found["2N"]
    text = f"filtered transferability of 2N is almost zero, about {factor:g} times below {DEFENCES[rival]}'s"
    return decided(text, found, holds, kind="level", scale=measured.scale)


def differences(measured: Measured) -> Verdict:
    """All pairs of defences differ in mean accuracy (Welch, p < 0.05), but NULL and 2N on CIFAR-10."""
    folds = {name: measured.folds(system, "mixed", "accuracy_filtered") for system, name in DEFENCES.items()}
    found = {
        f"{a} and {b}": compared(folds[a], folds[b]).means for a, b in itertools.combinations(DEFENCES.values(), 2)
    }
    alike = {"NULL and 2N"} if measured.source == "cifar10" else set()
    holds = all((p >= 0.05) == (pair in alike) for pair, p in found.items())
    enough = min(map(len, folds.values()), default=0) >= FOLDS
    claim = "all pairs differ, but NULL and 2N on CIFAR-10" if alike else "all pairs differ"
    return decided(claim, found, holds, kind="ordering", scale=measured.scale, testable=enough)


CLAIMS: tuple[Callable[[Measured], Verdict], ...] = (
    filtering_gains,
    null_is_flat,
    attack_probability_rises,
    constant_after_filtering,
    lowest("sensitivity"),
    lowest("deviation"),
    lowest("range"),
    best_mean_accuracy,
    best_beyond_training,
    hardly_transfers,
    differences,
)
"""In the order of the paper."""
