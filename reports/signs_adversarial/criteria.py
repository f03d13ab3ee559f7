"""The project's criteria for signs-adversarial, whose document prints no number; written before any run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from reports import rows
from reports.comparing import compare
from reports.rows import Measured
from reports.signs_adversarial.protocol import ATTACKS, BUDGET, DEFENDED, SYSTEMS, USUAL
from reports.verdicts import Criterion, Kind

# With fewer, a difference may be one of the trainings alone.
SEEDS = 3
# p below which Welch's test over the seeds decides.
SIGNIFICANCE = 0.05
MIN_ACCURACY, MAX_COST = 0.95, 0.03


def values(measured: Measured, system: str, sweep: str, metric: str = "accuracy", strength: str = "") -> list[float]:
    """Return a number of every seed, at the usual budget unless a strength is named; empty if nothing was measured."""
    return measured.folds(system, sweep, metric, strength or ("0" if sweep == "clean" else USUAL), "test")


def mean(measured: Measured, system: str, sweep: str) -> float:
    """Return the mean accuracy over the seeds; NaN if any has none."""
    return rows.mean(values(measured, system, sweep))


def criteria(measured: Measured) -> Iterator[Criterion]:
    """Return all criteria; only traffic signs can test them, and they wait for several seeds."""
    lacking = SEEDS - len(values(measured, "plain", "clean"))
    missing = [f"{lacking} of {SEEDS} seeds"] if lacking > 0 else []
    for states in (_levels, _gains, _orders):
        for kind, claim, numbers, holds in states(lambda system, sweep: mean(measured, system, sweep), measured):
            yield Criterion(kind, claim, numbers, holds, measured.source == "gtsrb", missing)


Mean = Callable[[str, str], float]
Parts = Iterator[tuple[Kind, str, Mapping[str, float], bool]]


def _levels(mean: Mean, measured: Measured) -> Parts:
    clean = {system: mean(system, "clean") for system in SYSTEMS}
    claim = f"the undefended network reaches {100 * MIN_ACCURACY:.0f} % on the official test set"
    yield "level", claim, {"mean": clean["plain"]}, clean["plain"] >= MIN_ACCURACY
    for system in DEFENDED:
        numbers = {SYSTEMS[name]: clean[name] for name in ("plain", system)}
        claim = f"{SYSTEMS[system]} costs at most {100 * MAX_COST:.0f} points of clean accuracy"
        yield "level", claim, numbers, clean["plain"] - clean[system] <= MAX_COST
    for attack, name in ATTACKS.items():
        numbers = {"clean": clean["plain"], "attacked": (left := mean("plain", attack))}
        claim = f"{name} at {BUDGET} halves the undefended network's accuracy"
        yield "level", claim, numbers, left <= 0.5 * clean["plain"]


def _gains(mean: Mean, measured: Measured) -> Parts:
    clean = mean("plain", "clean")
    for system in DEFENDED:
        for attack, name in ATTACKS.items():
            plain, left = mean("plain", attack), mean(system, attack)
            numbers = {"undefended, clean": clean, "undefended": plain, SYSTEMS[system]: left}
            claim = f"{SYSTEMS[system]} wins back half of what {name} at {BUDGET} takes"
            yield "level", claim, numbers, left - plain >= 0.5 * (clean - plain)
    for attack, name in ATTACKS.items():
        # A training must help in every seed, not on average.
        seeds = {system: values(measured, system, attack) for system in SYSTEMS}
        gains = {
            system: [defended - plain for defended, plain in zip(seeds[system], seeds["plain"], strict=False)]
            for system in DEFENDED
        }
        numbers = {f"least gain by {SYSTEMS[system]}": min(gain, default=math.nan) for system, gain in gains.items()}
        claim = f"in every seed both trainings leave more accuracy under {name} at {BUDGET} than none"
        yield "ordering", claim, numbers, all(value > 0 for value in numbers.values())


def _orders(mean: Mean, measured: Measured) -> Parts:
    gaps = {system: mean(system, "fgsm") - mean(system, "pgd") for system in SYSTEMS}
    claim = f"PGD at {BUDGET} leaves less accuracy than FGSM on every network"
    yield (
        "ordering", claim, {SYSTEMS[system]: gap for system, gap in gaps.items()},
        all(gap > 0 for gap in gaps.values()),
    )  # fmt: skip
    numbers = {SYSTEMS[system]: mean(system, "pgd") for system in ("pgd", "fgsm")}
    p = compare(*(values(measured, system, "pgd") for system in ("pgd", "fgsm"))).means
    better = numbers[SYSTEMS["pgd"]] > numbers[SYSTEMS["fgsm"]]
    claim = f"under PGD at {BUDGET} PGD-7 training leaves more accuracy than FGSM training"
    yield "ordering", claim, {**numbers, "p": p}, better and p < SIGNIFICANCE
    # FGSM flatters a network that was trained on it: many steps take more of its accuracy.
    claim = f"from FGSM to PGD at {BUDGET} FGSM training loses more accuracy than PGD-7 training"
    yield "ordering", claim, {SYSTEMS[system]: gaps[system] for system in DEFENDED}, gaps["fgsm"] > gaps["pgd"]
    for attack, name in ATTACKS.items():
        numbers = {SYSTEMS[system]: mean(system, f"twin-{attack}") - mean(system, attack) for system in DEFENDED}
        claim = f"{name} at {BUDGET} made on the undefended twin leaves more accuracy than made on the network"
        yield "ordering", claim, numbers, all(value > 0 for value in numbers.values())
