"""
The claims of label-2n, each with the criterion that decides it, written before any run was looked at.

Accuracy over ε is that of images of which half are perturbed, as in the paper. A claim is judged on the data set of
which the paper makes it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reports import writing
from reports.comparing import compare
from reports.label_2n.numbers import Measured
from reports.label_2n.theory import steps
from reports.rows import mean
from reports.verdicts import Criterion, Kind

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
# Data sets of which a claim is made; on digits, where the code is tried, every claim is.
ALL, GTSRB, CIFAR = ("gtsrb", "cifar10", "digits"), ("gtsrb", "digits"), ("cifar10", "digits")
# The paper's names for the shape of the curve, and the metric of each.
SHAPES = {
    "sensitivity": "selective_max_accuracy_slope",
    "deviation": "selective_accuracy_std",
    "range": "selective_accuracy_range",
}
Values = Mapping[str, float]


class Claim(NamedTuple):
    """What the paper says, the numbers that show it, the bound on these, and the data sets of which it is said."""

    kind: Kind
    text: str
    values: Callable[[Measured], Values]
    holds: Callable[[Values], bool]
    sources: Sequence[str] = ALL
    agrees: Callable[[Measured], bool] = lambda m: True
    testable: Callable[[Measured], bool] = lambda m: True

    def criterion(self, m: Measured) -> Criterion:
        """Return the criterion on measured rows."""
        values = self.values(m)
        return Criterion(self.kind, self.text, values, self.holds(values) and self.agrees(m), self.testable(m))


def printed(source: str) -> Mapping[str, Any]:
    """Return what the paper prints of a data set; digits, on which the code is tried, have that of GTSRB."""
    numbers = writing.printed("label_2n")
    return dict(numbers.get(source, numbers["gtsrb"]))


def transferred(m: Measured, system: str) -> float:
    """Return the mean of a system's filtered transferability over ε."""
    return mean(m.curve(system, "selective_transferability"))


# Numbers of the rows


def _by_defence(number: Callable[[Measured, str], float]) -> Callable[[Measured], Values]:
    return lambda m: {name: number(m, system) for system, name in DEFENCES.items()}


def _shape(name: str) -> Callable[[Measured], Values]:
    return _by_defence(lambda m, system: m.mean(system, "shape", SHAPES[name]))


_mixed = _by_defence(lambda m, system: m.mean(system, "mixed", "selective_accuracy"))
_strong = _by_defence(lambda m, system: mean(m.curve(system, "half_selective_accuracy", above=STRONG)))


def _gains(m: Measured) -> Values:
    return {
        name: value - m.mean(system, "mixed") for (name, value), system in zip(_mixed(m).items(), DEFENCES, strict=True)
    }


def _null_range(m: Measured) -> Values:
    curve = m.curve("null", "half_selective_accuracy", above=0.04)
    return {"range from ε 0.05": max(curve) - min(curve) if curve else math.nan}


def _rising(m: Measured) -> Values:
    curve = [m.mean("2n", "clean", "attack_probability"), *m.curve("2n", "attack_probability")]
    rising = sum(1 for _ in itertools.takewhile(lambda pair: pair[1] > pair[0], itertools.pairwise(curve)))
    return {"clean": curve[0], "at the last ε": curve[-1], "rising steps": rising, "of": len(curve) - 1}


def _ahead(m: Measured) -> Values:
    curves = (m.curve(system, "half_selective_accuracy") for system in ("null", "2n"))
    ahead = {float(e): null - two_n for e, null, two_n in zip(m.strengths("curve"), *curves, strict=True)}
    low = min((value for e, value in ahead.items() if e <= WEAK), default=math.nan)
    high = min((-value for e, value in ahead.items() if e > STRONG), default=math.nan)
    return {f"NULL ahead up to ε {WEAK:g} by at least": low, f"2N ahead above {STRONG:g} by at least": high}


def _largest(m: Measured) -> Values:
    curve = dict(zip(m.strengths("curve"), m.curve("2n", "selective_transferability"), strict=True))
    last = max(curve, key=lambda name: (math.isnan(curve[name]), curve[name]), default="")
    return {f"largest, at ε {last}" if last else "largest": curve.get(last, math.nan)}


def _formula(m: Measured) -> Values:
    changed = [step for system in DEFENCES for step in steps(m, system) if abs(step.change) >= MIN_CHANGE]
    correct = sum(step.reached == (step.change > 0) for step in changed)
    return {"steps": len(changed) or math.nan, "as the formula says": correct}


def _reached(m: Measured) -> Values:
    every = list(steps(m, "2n"))
    return {"reached": sum(step.reached for step in every), "of": len(every) or math.nan}


# Bounds on the numbers


def _ranked(values: Values) -> list[str]:
    """Return the names, the highest value first."""
    return sorted(values, key=lambda name: -values[name])


def _first(values: Values) -> bool:
    return _ranked(values)[0] == "2N"


def _last(values: Values) -> bool:
    return _ranked(values)[-1] == "2N"


def _at_most(bound: float) -> Callable[[Values], bool]:
    return lambda values: max(values.values()) <= bound


def _adv_gains_less(gains: Values) -> bool:
    """Every defence gains, ADV less than half of what the others gain on average."""
    others = mean([gain for name, gain in gains.items() if name != "ADV"])
    return min(gains.values()) > 0 and gains["ADV"] < 0.5 * others


def _transfers_less(source: str, sources: Sequence[str]) -> Claim:
    """The second best's filtered transferability is at least half of the paper's factor above 2N's."""
    rival, factor = (printed(source)[f"transferability_{key}"] for key in ("rival", "ratio"))
    return Claim(
        "level", f"filtered transferability of 2N is about {factor} times below {DEFENCES[rival]}'s",
        lambda m: {DEFENCES[system]: transferred(m, system) for system in ("2n", rival)},
        lambda values: values[DEFENCES[rival]] >= 0.5 * factor * values["2N"], sources,
    )  # fmt: skip


def _differs(
    text: str, numbers: Callable[[Measured, str], list[float]], sign: int, sources: Sequence[str] = ALL, alike: str = ""
) -> Claim:
    """Compare 2N with each of its four competitors by Welch's test; ``alike`` is the one that does not differ."""

    def differences(m: Measured) -> dict[str, float]:
        return {name: sign * (mean(numbers(m, "2n")) - mean(numbers(m, system))) for system, name in RIVALS.items()}

    return Claim(
        "ordering", text,
        lambda m: {f"2N and {name}": compare(numbers(m, "2n"), numbers(m, s)).means for s, name in RIVALS.items()},
        lambda ps: all(p >= 0.05 if pair == f"2N and {alike}" else p < 0.05 for pair, p in ps.items()), sources,
        lambda m: all(difference > 0 for name, difference in differences(m).items() if name != alike),
        lambda m: min(len(numbers(m, system)) for system in ("2n", *RIVALS)) >= FOLDS,
    )  # fmt: skip


def _accuracies(m: Measured, system: str) -> list[float]:
    return m.folds(system, "mixed", "selective_accuracy")


_ABOVE, _BETTER = (
    printed("cifar10")["accuracy_null_above_2n"],
    "2N is significantly more accurate than each of the four others",
)
# In the order of the paper.
CLAIMS = {
    "filtering gains": Claim(
        "ordering", "filtering raises the accuracy of all defences, of ADV much less", _gains, _adv_gains_less
    ),
    "NULL is flat": Claim("level", "NULL is flat over ε", _null_range, _at_most(0.05), GTSRB),
    "attack probability rises": Claim(
        "ordering", "2N's mean attack probability rises with ε over a long range", _rising,
        lambda v: v["rising steps"] >= max(1, (v["of"] + 1) // 2),
    ),
    "formula": Claim(
        "ordering", "the accuracy with filtering falls where the detector misses the required r_X, and there alone",
        _formula, lambda v: v["as the formula says"] >= 0.9 * v["steps"],
    ),
    "ratio reached": Claim(
        "ordering", "2N's detector reaches r_X at most steps", _reached, lambda v: 2 * v["reached"] > v["of"]
    ),
    "constant after filtering": Claim(
        "level", "2N's accuracy with filtering is nearly constant over ε",
        lambda m: {"range": m.mean("2n", "shape", SHAPES["range"])}, _at_most(0.1),
    ),
    "NULL, then 2N": Claim(
        "ordering", "NULL is ahead at low ε, 2N at high ε", _ahead, lambda v: all(by > 0 for by in v.values()), CIFAR
    ),
    **{
        f"lowest {name}": Claim("ordering", f"{name} of the accuracy over ε is lowest for 2N", _shape(name), _last)
        for name in SHAPES
    },
    "best mean": Claim("ordering", "2N has the best mean accuracy", _mixed, _first, GTSRB),
    "second mean": Claim(
        "ordering", "NULL has the best mean accuracy, 2N the second best", _mixed,
        lambda v: _ranked(v)[:2] == ["NULL", "2N"], CIFAR,
    ),
    "close behind": Claim(  # at most twice the paper's one point
        "level", f"NULL's mean accuracy is {_ABOVE:.0%} above 2N's",
        lambda m: {"above by": _mixed(m)["NULL"] - _mixed(m)["2N"]}, lambda v: 0 < v["above by"] <= 2 * _ABOVE, CIFAR,
    ),
    "best beyond training": Claim("ordering", f"for ε above {STRONG:g} 2N is best", _strong, _first),
    "more accurate": _differs(_BETTER, _accuracies, 1, GTSRB),
    "more accurate, but NULL": _differs(f"{_BETTER}, but NULL", _accuracies, 1, ("cifar10",), "NULL"),
    "hardly transfers": Claim(
        "level", "filtered transferability of 2N is almost zero at every ε", _largest,
        lambda v: max(v.values()) < ALMOST_ZERO,
    ),
    "transfers least": Claim(
        "ordering", "filtered transferability, the mean over ε, is lowest for 2N", _by_defence(transferred), _last
    ),
    "transfers far less": _transfers_less("gtsrb", GTSRB),
    "transfers far less, CIFAR-10": _transfers_less("cifar10", ("cifar10",)),
    "transfers less": _differs(
        "significantly less transfers to 2N than to each of the four others",
        lambda m, system: m.over_curve(system, "selective_transferability"), -1,
    ),
}  # fmt: skip


def criteria(m: Measured) -> Iterator[Criterion]:
    """Return the claims that the paper makes of a data set."""
    return (claim.criterion(m) for claim in CLAIMS.values() if m.source in claim.sources)
