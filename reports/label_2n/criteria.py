"""
The claims of label-2n, each with the criterion that decides it, written before any run was looked at.

Accuracy over ε is that of images of which half are perturbed, as in the paper. A claim is judged on the data set of
which the paper makes it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from reports import writing
from reports.comparing import compare
from reports.label_2n import theory
from reports.label_2n.numbers import Measured
from reports.rows import mean
from reports.verdicts import Criterion

# The five of the paper, by the systems that carry them; `plain+bin` is no defence.
DEFENCES = {"adv+bin": "ADV", "null": "NULL", "2n": "2N", "cdaec+bin": "CDAEC", "distill+bin": "DISTILL"}
RIVALS = {system: name for system, name in DEFENCES.items() if system != "2n"}
# ε up to which an attack is weak, and above which nothing was seen in training.
WEAK, STRONG = 0.1, 0.3
# The trainings of the paper's tests; with fewer they have little power.
FOLDS = 5
ALMOST_ZERO = 0.02
# The smallest change of an accuracy from one ε to the next on which the formula for r_X is checked.
MIN_CHANGE = 0.001


def printed(source: str) -> Mapping[str, Any]:
    """Return what the paper prints of a data set; digits, on which the code is tried, have that of GTSRB."""
    numbers = writing.printed("label_2n")
    return dict(numbers.get(source, numbers["gtsrb"]))


def _by_defence(number: Callable[[str], float]) -> dict[str, float]:
    return {name: number(system) for system, name in DEFENCES.items()}


def _ranked(values: Mapping[str, float]) -> list[str]:
    """Return the names, the highest value first."""
    return sorted(values, key=lambda name: -values[name])


def _mixed(m: Measured) -> dict[str, float]:
    return _by_defence(lambda system: m.mean(system, "mixed", "selective_accuracy"))


def filtering_gains(m: Measured) -> Criterion:
    """Half of the images perturbed: every defence gains, ADV less than half of what the others gain on average."""
    unfiltered = _by_defence(lambda system: m.mean(system, "mixed"))
    gains = {name: value - unfiltered[name] for name, value in _mixed(m).items()}
    others = mean([gain for name, gain in gains.items() if name != "ADV"])
    claim = "filtering raises the accuracy of all defences, of ADV much less"
    return Criterion("ordering", claim, gains, min(gains.values()) > 0 and gains["ADV"] < 0.5 * others)


def null_is_flat(m: Measured) -> Criterion:
    """NULL's accuracy after filtering varies by at most 0.05 from ε 0.05 on."""
    curve = m.curve("null", "half_selective_accuracy", above=0.04)
    spread = max(curve) - min(curve) if curve else math.nan
    return Criterion("level", "NULL is flat over ε", {"range from ε 0.05": spread}, spread <= 0.05)


def attack_probability_rises(m: Measured) -> Criterion:
    """2N's mean attack probability rises over at least the first half of the curve."""
    curve = [m.mean("2n", "clean", "attack_probability"), *m.curve("2n", "attack_probability")]
    rising = sum(1 for _ in itertools.takewhile(lambda pair: pair[1] > pair[0], itertools.pairwise(curve)))
    values = {"clean": curve[0], "at the last ε": curve[-1], "rising steps": rising, "of": len(curve) - 1}
    claim = "2N's mean attack probability rises with ε over a long range"
    return Criterion("ordering", claim, values, rising >= max(1, len(curve) // 2))


def constant_after_filtering(m: Measured) -> Criterion:
    """2N's accuracy after filtering varies by at most 0.1 over all ε, clean included."""
    spread = m.mean("2n", "shape", "selective_accuracy_range")
    return Criterion(
        "level", "2N's accuracy with filtering is nearly constant over ε", {"range": spread}, spread <= 0.1
    )


# The paper's names for the shape of the curve, and the metric of each.
SHAPES = {
    "sensitivity": "selective_max_accuracy_slope",
    "deviation": "selective_accuracy_std",
    "range": "selective_accuracy_range",
}


def lowest(shape: str, m: Measured) -> Criterion:
    """Of the five defences 2N has the lowest of a shape, after filtering."""
    values = _by_defence(lambda system: m.mean(system, "shape", SHAPES[shape]))
    claim = f"{shape} of the accuracy over ε is lowest for 2N"
    return Criterion("ordering", claim, values, _ranked(values)[-1] == "2N")


def best_mean_accuracy(m: Measured) -> Criterion:
    """Half of the images perturbed, filtered: 2N is best."""
    values = _mixed(m)
    return Criterion("ordering", "2N has the best mean accuracy", values, _ranked(values)[0] == "2N")


def second_mean_accuracy(m: Measured) -> Criterion:
    """Half of the images perturbed, filtered: NULL is best and 2N second."""
    values = _mixed(m)
    claim = "NULL has the best mean accuracy, 2N the second best"
    return Criterion("ordering", claim, values, _ranked(values)[:2] == ["NULL", "2N"])


def close_behind(m: Measured) -> Criterion:
    """NULL's mean accuracy is at most twice the paper's one point above 2N's."""
    values, paper = _mixed(m), printed("cifar10")["accuracy_null_above_2n"]
    ahead = values["NULL"] - values["2N"]
    claim = f"NULL's mean accuracy is {paper:.0%} above 2N's"
    return Criterion("level", claim, {"above by": ahead}, 0 < ahead <= 2 * paper)


def best_beyond_training(m: Measured) -> Criterion:
    """For ε above 0.3 2N has the best mean accuracy after filtering."""
    values = _by_defence(lambda system: mean(m.curve(system, "half_selective_accuracy", above=STRONG)))
    return Criterion("ordering", f"for ε above {STRONG:g} 2N is best", values, _ranked(values)[0] == "2N")


def null_then_2n(m: Measured) -> Criterion:
    """With filtering NULL is more accurate than 2N at every ε up to 0.1, and 2N than NULL at every ε above 0.3."""
    curves = (m.curve(system, "half_selective_accuracy") for system in ("null", "2n"))
    ahead = {float(e): null - two_n for e, null, two_n in zip(m.strengths("curve"), *curves, strict=True)}
    low = min((value for e, value in ahead.items() if e <= WEAK), default=math.nan)
    high = min((-value for e, value in ahead.items() if e > STRONG), default=math.nan)
    values = {f"NULL ahead up to ε {WEAK:g} by at least": low, f"2N ahead above {STRONG:g} by at least": high}
    return Criterion("ordering", "NULL is ahead at low ε, 2N at high ε", values, low > 0 and high > 0)


def transferred(m: Measured, system: str) -> float:
    """Return the mean of a system's filtered transferability over ε."""
    return mean(m.curve(system, "selective_transferability"))


def hardly_transfers(m: Measured) -> Criterion:
    """At every ε 2N's filtered transferability is below 0.02."""
    curve = dict(zip(m.strengths("curve"), m.curve("2n", "selective_transferability"), strict=True))
    last = max(curve, key=lambda name: (math.isnan(curve[name]), curve[name]), default="")
    largest = curve.get(last, math.nan)
    claim = "filtered transferability of 2N is almost zero at every ε"
    return Criterion("level", claim, {f"largest, at ε {last}" if last else "largest": largest}, largest < ALMOST_ZERO)


def transfers_least(m: Measured) -> Criterion:
    """2N's filtered transferability, the mean over ε, is the lowest of the five."""
    values = _by_defence(lambda system: transferred(m, system))
    claim = "filtered transferability, the mean over ε, is lowest for 2N"
    return Criterion("ordering", claim, values, _ranked(values)[-1] == "2N")


def transfers_far_less(m: Measured) -> Criterion:
    """The named rival's filtered transferability is at least half of the paper's factor above 2N's."""
    rival, factor = (printed(m.source)[f"transferability_{key}"] for key in ("rival", "ratio"))
    two_n, second = transferred(m, "2n"), transferred(m, rival)
    claim = f"filtered transferability of 2N is about {factor} times below {DEFENCES[rival]}'s"
    return Criterion("level", claim, {"2N": two_n, DEFENCES[rival]: second}, second >= 0.5 * factor * two_n)


def _pairs(claim: str, values: Callable[[str], list[float]], sign: int, alike: str = "") -> Criterion:
    """Compare 2N with each of its four competitors by Welch's test; ``alike`` is the one that does not differ."""
    two_n, ps, holds = values("2n"), {}, True
    for system, name in RIVALS.items():
        other = values(system)
        ps[f"2N and {name}"] = p = compare(two_n, other).means
        holds &= p >= 0.05 if name == alike else p < 0.05 and sign * (mean(two_n) - mean(other)) > 0
    enough = min(len(two_n), *(len(values(system)) for system in RIVALS)) >= FOLDS
    return Criterion("ordering", claim, ps, holds, testable=enough)


def differs_in_accuracy(m: Measured) -> Criterion:
    """2N's mean accuracy is above each competitor's (Welch, p < 0.05); on CIFAR-10 it and NULL's do not differ."""
    alike = "NULL" if m.source == "cifar10" else ""
    claim = "2N is significantly more accurate than each of the four others" + (", but NULL" if alike else "")
    return _pairs(claim, lambda system: m.folds(system, "mixed", "selective_accuracy"), 1, alike)


def differs_in_transferability(m: Measured) -> Criterion:
    """2N's filtered transferability is below each competitor's (Welch, p < 0.05)."""
    claim = "significantly less transfers to 2N than to each of the four others"
    return _pairs(claim, lambda system: m.over_curve(system, "selective_transferability"), -1)


class Step(NamedTuple):
    """
    From one ε to the next: how the accuracy after filtering changes, and both ratios of what is not discarded.

    Attributes:
        strength: The larger ε.
        fallen: r_Z, the ratio of the accuracies on perturbed images.
        required: r_X at which the accuracy after filtering would not change; NaN if the formula has no value.
        ratio: The detector's ratio: perturbed images that pass at this ε, to those at the one before.
        reached: Whether the accuracy after filtering does not fall by the formula.
        change: The measured change of the accuracy after filtering.
    """

    strength: str
    fallen: float
    required: float
    ratio: float
    reached: bool
    change: float


def steps(m: Measured, system: str) -> Iterator[Step]:
    """Return every step of a system's curve, from the first ε on, if its numbers exist."""
    for pair in itertools.pairwise(m.strengths("curve")):
        whole, attacked, missed = (
            [m.mean(system, "curve", metric, strength) for strength in pair]
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


def ratio_tells(m: Measured) -> Criterion:
    """Over all defences, at nine of ten steps that change the accuracy it falls just where r_X is not reached."""
    changed = [step for system in DEFENCES for step in steps(m, system) if abs(step.change) >= MIN_CHANGE]
    correct = sum(step.reached == (step.change > 0) for step in changed)
    values = {"steps": len(changed) or math.nan, "as the formula says": correct}
    claim = "the accuracy with filtering falls where the detector misses the required r_X, and there alone"
    return Criterion("ordering", claim, values, correct >= 0.9 * len(changed))


def ratio_reached(m: Measured) -> Criterion:
    """2N's detector reaches r_X at more than half of the steps."""
    every = list(steps(m, "2n"))
    reached = sum(step.reached for step in every)
    values = {"reached": reached, "of": len(every) or math.nan}
    return Criterion("ordering", "2N's detector reaches r_X at most steps", values, 2 * reached > len(every))


# Data sets of which a claim is made; on digits, where the code is tried, every claim is.
ALL, GTSRB, CIFAR = ("gtsrb", "cifar10", "digits"), ("gtsrb", "digits"), ("cifar10", "digits")
# In the order of the paper.
CLAIMS: Mapping[Callable[[Measured], Criterion], Sequence[str]] = {
    filtering_gains: ALL,
    null_is_flat: GTSRB,
    attack_probability_rises: ALL,
    ratio_tells: ALL,
    ratio_reached: ALL,
    constant_after_filtering: ALL,
    null_then_2n: CIFAR,
    partial(lowest, "sensitivity"): ALL,
    partial(lowest, "deviation"): ALL,
    partial(lowest, "range"): ALL,
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


def criteria(m: Measured) -> Iterator[Criterion]:
    """Return the claims that the paper makes of a data set."""
    return (state(m) for state, sources in CLAIMS.items() if m.source in sources)
