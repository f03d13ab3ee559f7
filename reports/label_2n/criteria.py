"""
The claims of label-2n, each with the criterion that decides it, written before any run was looked at.

Accuracy over ε is that of images of which half are perturbed, as in the paper. A claim is judged on the data set of
which the paper makes it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from reports.comparing import compared
from reports.label_2n import published, theory
from reports.label_2n.numbers import Measured
from reports.rows import mean
from reports.verdicts import Kind, Verdict, decided

DEFENCES = {"adv+bin": "ADV", "null": "NULL", "2n": "2N", "cdaec+bin": "CDAEC", "distill+bin": "DISTILL"}
"""The five of the paper, by the systems that carry them; `plain+bin` is no defence."""
RIVALS = {system: name for system, name in DEFENCES.items() if system != "2n"}
LOW, STRONG = 0.1, 0.3
"""ε up to which an attack is weak, and above which nothing was seen in training."""
FOLDS = 5
"""What the paper's tests have; with fewer they have little power."""
ALMOST_ZERO = 0.02
SEEN = 0.001
"""The least change of an accuracy from one ε to the next that the formula for r_X is checked on."""


def _each(number: Callable[[str], float], systems: Mapping[str, str] = DEFENCES) -> dict[str, float]:
    return {name: number(system) for system, name in systems.items()}


def _best(found: Mapping[str, float]) -> list[str]:
    """Return the names, the highest value first."""
    return sorted(found, key=lambda name: -found[name])


def _decided(measured: Measured, claim: str, values: Mapping[str, float], holds: bool, kind: Kind) -> Verdict:
    return decided(claim, values, holds, kind=kind, scale=measured.scale)


def filtering_gains(measured: Measured) -> Verdict:
    """Half of the images perturbed: every defence gains, ADV less than half of what the others gain on average."""
    gains = _each(
        lambda s: measured.mean(s, "mixed", "selective_accuracy") - measured.mean(s, "mixed", "accuracy"),
    )
    others = [gain for name, gain in gains.items() if name != "ADV"]
    holds = min(gains.values()) > 0 and gains["ADV"] < 0.5 * mean(others)
    return _decided(
        measured, "filtering raises the accuracy of all defences, of ADV much less", gains, holds, "ordering"
    )


def null_is_flat(measured: Measured) -> Verdict:
    """NULL's accuracy after filtering varies by at most 0.05 from ε 0.05 on."""
    curve = measured.curve("null", "half_selective_accuracy", above=0.04)
    spread = max(curve) - min(curve) if curve else math.nan
    return _decided(measured, "NULL is flat over ε", {"range from ε 0.05": spread}, spread <= 0.05, "level")


def attack_probability_rises(measured: Measured) -> Verdict:
    """2N's mean attack probability rises over at least the first half of the curve."""
    curve = [measured.mean("2n", "clean", "attack_probability"), *measured.curve("2n", "attack_probability")]
    rising = sum(1 for _ in itertools.takewhile(lambda pair: pair[1] > pair[0], itertools.pairwise(curve)))
    values = {"clean": curve[0], "at the last ε": curve[-1], "rising steps": rising, "of": len(curve) - 1}
    claim = "2N's mean attack probability rises with ε over a long range"
    return _decided(measured, claim, values, rising >= max(1, len(curve) // 2), "ordering")


def constant_after_filtering(measured: Measured) -> Verdict:
    """2N's accuracy after filtering varies by at most 0.1 over all ε, clean included."""
    found = {"range": measured.mean("2n", "shape", "selective_accuracy_range")}
    claim = "2N's accuracy with filtering is nearly constant over ε"
    return _decided(measured, claim, found, found["range"] <= 0.1, "level")


SHAPES = {
    "sensitivity": "selective_max_accuracy_slope",
    "deviation": "selective_accuracy_std",
    "range": "selective_accuracy_range",
}
"""What the paper calls the shapes of the curve, and the metric of each."""


def lowest(shape: str) -> Callable[[Measured], Verdict]:
    """Of the five defences 2N has the lowest of a shape, after filtering."""

    def decide(measured: Measured) -> Verdict:
        found = _each(lambda s: measured.mean(s, "shape", SHAPES[shape]))
        holds = _best(found)[-1] == "2N"
        return _decided(measured, f"{shape} of the accuracy over ε is lowest for 2N", found, holds, "ordering")

    return decide


def _mixed(measured: Measured) -> dict[str, float]:
    return _each(lambda s: measured.mean(s, "mixed", "selective_accuracy"))


def best_mean_accuracy(measured: Measured) -> Verdict:
    """Half of the images perturbed, filtered: 2N is best."""
    found = _mixed(measured)
    return _decided(measured, "2N has the best mean accuracy", found, _best(found)[0] == "2N", "ordering")


def second_mean_accuracy(measured: Measured) -> Verdict:
    """Half of the images perturbed, filtered: NULL is best and 2N second."""
    found = _mixed(measured)
    claim = "NULL has the best mean accuracy, 2N the second best"
    return _decided(measured, claim, found, _best(found)[:2] == ["NULL", "2N"], "ordering")


def close_behind(measured: Measured) -> Verdict:
    """NULL's mean accuracy is at most twice the paper's one point above 2N's."""
    found, printed = _mixed(measured), published.of("cifar10")["accuracy_null_above_2n"]
    ahead = found["NULL"] - found["2N"]
    claim = f"NULL's mean accuracy is {printed:.0%} above 2N's"
    return _decided(measured, claim, {"above by": ahead}, 0 < ahead <= 2 * printed, "level")


def best_beyond_training(measured: Measured) -> Verdict:
    """For ε above 0.3 2N has the best mean accuracy after filtering."""
    found = _each(lambda s: mean(measured.curve(s, "half_selective_accuracy", above=STRONG)))
    return _decided(measured, f"for ε above {STRONG:g} 2N is best", found, _best(found)[0] == "2N", "ordering")


def null_then_2n(measured: Measured) -> Verdict:
    """With filtering NULL is more accurate than 2N at every ε up to 0.1, and 2N than NULL at every ε above 0.3."""
    ahead = {
        float(e): measured.mean("null", "curve", "half_selective_accuracy", e)
        - measured.mean("2n", "curve", "half_selective_accuracy", e)
        for e in measured.strengths("curve")
    }
    low = min((value for e, value in ahead.items() if e <= LOW), default=math.nan)
    high = min((-value for e, value in ahead.items() if e > STRONG), default=math.nan)
    values = {f"NULL ahead up to ε {LOW:g} by at least": low, f"2N ahead above {STRONG:g} by at least": high}
    return _decided(measured, "NULL is ahead at low ε, 2N at high ε", values, low > 0 and high > 0, "ordering")


def transferred(measured: Measured, system: str) -> float:
    """Return the mean of a system's filtered transferability over ε."""
    return mean(measured.curve(system, "selective_transferability"))


def hardly_transfers(measured: Measured) -> Verdict:
    """At every ε 2N's filtered transferability is below 0.02."""
    names = measured.strengths("curve")
    curve = dict(zip(names, measured.curve("2n", "selective_transferability"), strict=True))
    last = max(curve, key=lambda name: (math.isnan(curve[name]), curve[name]), default="")
    values = {f"largest, at ε {last}" if last else "largest": curve.get(last, math.nan)}
    claim = "filtered transferability of 2N is almost zero at every ε"
    return _decided(measured, claim, values, max(values.values()) < ALMOST_ZERO, "level")


def transfers_least(measured: Measured) -> Verdict:
    """2N's filtered transferability, the mean over ε, is the lowest of the five."""
    found = _each(lambda s: transferred(measured, s))
    claim = "filtered transferability, the mean over ε, is lowest for 2N"
    return _decided(measured, claim, found, _best(found)[-1] == "2N", "ordering")


def transfers_far_less(measured: Measured) -> Verdict:
    """The named rival's filtered transferability is at least half of the paper's factor above 2N's."""
    about = published.of(measured.source)
    rival, factor = about["transferability_rival"], about["transferability_ratio"]
    found = {"2N": transferred(measured, "2n"), DEFENCES[rival]: transferred(measured, rival)}
    claim = f"filtered transferability of 2N is about {factor} times below {DEFENCES[rival]}'s"
    return _decided(measured, claim, found, found[DEFENCES[rival]] >= 0.5 * factor * found["2N"], "level")


def _pairs(measured: Measured, claim: str, values: Callable[[str], list[float]], sign: int, alike: str = "") -> Verdict:
    """Compare 2N with each of its four competitors by Welch's test; ``alike`` is the one that does not differ."""
    own, found, holds = values("2n"), {}, True
    for system, name in RIVALS.items():
        other = values(system)
        p = compared(own, other).means
        found[f"2N and {name}"] = p
        holds &= p >= 0.05 if name == alike else p < 0.05 and sign * (mean(own) - mean(other)) > 0
    enough = min(len(own), *(len(values(system)) for system in RIVALS)) >= FOLDS
    return decided(claim, found, holds, kind="ordering", scale=measured.scale, testable=enough)


def differs_in_accuracy(measured: Measured) -> Verdict:
    """2N's mean accuracy is above each competitor's (Welch, p < 0.05); on CIFAR-10 it and NULL's do not differ."""
    alike = "NULL" if measured.source == "cifar10" else ""
    claim = "2N is significantly more accurate than each of the four others" + (", but NULL" if alike else "")
    return _pairs(measured, claim, lambda s: measured.folds(s, "mixed", "selective_accuracy"), 1, alike)


def differs_in_transferability(measured: Measured) -> Verdict:
    """2N's filtered transferability is below each competitor's (Welch, p < 0.05)."""
    claim = "significantly less transfers to 2N than to each of the four others"
    return _pairs(measured, claim, lambda s: measured.over_curve(s, "selective_transferability"), -1)


class Step(NamedTuple):
    """From one ε to the next: how the accuracy after filtering changes, and both ratios of what is not discarded."""

    strength: str
    fallen: float
    """r_Z, that of the accuracies on perturbed images."""
    required: float
    """r_X at which the accuracy after filtering would stay; NaN where the formula has no value."""
    ratio: float
    """What the detector has of perturbed images that pass at this ε, as a share of those at the one before."""
    reached: bool
    change: float


def steps(measured: Measured, system: str) -> Iterator[Step]:
    """Return every step of a system's curve, from the first ε on, where its numbers are there."""
    for pair in itertools.pairwise(measured.strengths("curve")):
        whole, attacked, missed = (
            [measured.mean(system, "curve", metric, strength) for strength in pair]
            for metric in ("half_selective_accuracy", "accuracy", "coverage")
        )
        if not all(map(math.isfinite, (*whole, *attacked, *missed))):
            continue
        solvable = attacked[0] and abs(whole[0] - attacked[1]) > 1e-9  # else the formula divides by 0
        yield Step(
            pair[1],
            attacked[1] / attacked[0] if attacked[0] else math.nan,
            theory.constant_ratio(whole[0], attacked[0], attacked[1]) if solvable else math.nan,
            missed[1] / missed[0] if missed[0] else math.nan,
            theory.stays(whole[0], attacked[0], attacked[1], missed[0], missed[1]),
            whole[1] - whole[0],
        )


def ratio_tells(measured: Measured) -> Verdict:
    """Over all defences, at nine of ten steps that change the accuracy it falls just where r_X is not reached."""
    seen = [step for system in DEFENCES for step in steps(measured, system) if abs(step.change) >= SEEN]
    right = sum(step.reached == (step.change > 0) for step in seen)
    values = {"steps": len(seen) or math.nan, "as the formula says": right}
    claim = "the accuracy with filtering falls where the detector misses the required r_X, and there alone"
    return _decided(measured, claim, values, right >= 0.9 * len(seen), "ordering")


def ratio_reached(measured: Measured) -> Verdict:
    """2N's detector reaches r_X at more than half of the steps."""
    found = list(steps(measured, "2n"))
    reached = sum(step.reached for step in found)
    values = {"reached": reached, "of": len(found) or math.nan}
    return _decided(measured, "2N's detector reaches r_X at most steps", values, 2 * reached > len(found), "ordering")


ALL, GTSRB, CIFAR = ("gtsrb", "cifar10", "digits"), ("gtsrb", "digits"), ("cifar10", "digits")
"""Data sets of which a claim is made; on digits, where the code is tried, every one is looked at."""
CLAIMS: Mapping[Callable[[Measured], Verdict], Sequence[str]] = {
    filtering_gains: ALL,
    null_is_flat: GTSRB,
    attack_probability_rises: ALL,
    ratio_tells: ALL,
    ratio_reached: ALL,
    constant_after_filtering: ALL,
    null_then_2n: CIFAR,
    lowest("sensitivity"): ALL,
    lowest("deviation"): ALL,
    lowest("range"): ALL,
    best_mean_accuracy: GTSRB,
    second_mean_accuracy: CIFAR,
    close_behind: CIFAR,
    best_beyond_training: ALL,
    differs_in_accuracy: ALL,
    hardly_transfers: ALL,
    transfers_least: ALL,
    transfers_far_less: ALL,
    differs_in_transferability: ALL,
}
"""In the order of the paper."""


def verdicts(measured: Measured) -> list[Verdict]:
    """Judge the claims that the paper makes of a data set."""
    return [decide(measured) for decide, sources in CLAIMS.items() if measured.source in sources]
