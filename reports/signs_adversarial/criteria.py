"""The project's criteria for signs-adversarial, whose document prints no number; written before any run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from reports.comparing import compared
from reports.rows import Measured
from reports.signs_adversarial.protocol import ATTACKS, SYSTEMS, USUAL
from reports.verdicts import Kind, Verdict, decided, pending

SEEDS = 3
"""With fewer, a difference may be one of the trainings alone."""
SURE = 0.05
"""p below which Welch's test over the seeds decides."""
REACHED = 0.95
COST = 0.03
DEFENDED = [system for system in SYSTEMS if system != "plain"]
BUDGET = "8/255"


def values(measured: Measured, system: str, sweep: str, metric: str = "accuracy", strength: str = "") -> list[float]:
    """Return a number of every seed, at the usual budget unless a strength is named; empty where none was measured."""
    return measured.folds(system, sweep, metric, strength or ("0" if sweep == "clean" else USUAL), "test")


def mean(measured: Measured, system: str, sweep: str, metric: str = "accuracy", strength: str = "") -> float:
    """Return the mean over the seeds; NaN where any has none."""
    numbers = values(measured, system, sweep, metric, strength)
    return sum(numbers) / len(numbers) if numbers else math.nan


def _decided(measured: Measured, claim: str, numbers: Mapping[str, float], holds: bool, kind: Kind) -> Verdict:
    """Return a verdict; only traffic signs can test a criterion, and it waits for several seeds."""
    verdict = decided(claim, numbers, holds, kind=kind, scale=measured.scale, testable=measured.source == "gtsrb")
    lacking = SEEDS - len(values(measured, "plain", "clean"))
    return pending(verdict, [f"{lacking} of {SEEDS} seeds"] if lacking > 0 else [])


def reaches(measured: Measured) -> Verdict:
    """The undefended network is a fair classifier of traffic signs."""
    clean = mean(measured, "plain", "clean")
    claim = f"the undefended network reaches {100 * REACHED:.0f} % on the official test set"
    return _decided(measured, claim, {"mean": clean}, clean >= REACHED, "level")


def cheap(system: str, measured: Measured) -> Verdict:
    """A training costs little of the clean accuracy."""
    clean = {name: mean(measured, name, "clean") for name in ("plain", system)}
    claim = f"{SYSTEMS[system]} costs at most {100 * COST:.0f} points of clean accuracy"
    numbers = {SYSTEMS[name]: value for name, value in clean.items()}
    return _decided(measured, claim, numbers, clean["plain"] - clean[system] <= COST, "level")


def halves(attack: str, measured: Measured) -> Verdict:
    """An attack halves the accuracy of the undefended network."""
    clean, left = mean(measured, "plain", "clean"), mean(measured, "plain", attack)
    claim = f"{ATTACKS[attack]} at {BUDGET} halves the undefended network's accuracy"
    return _decided(measured, claim, {"clean": clean, "attacked": left}, left <= 0.5 * clean, "level")


def wins_back(system: str, attack: str, measured: Measured) -> Verdict:
    """A training wins back half of what an attack takes from the undefended network."""
    clean, plain, left = (
        mean(measured, name, sweep) for name, sweep in (("plain", "clean"), ("plain", attack), (system, attack))
    )
    claim = f"{SYSTEMS[system]} wins back half of what {ATTACKS[attack]} at {BUDGET} takes"
    numbers = {"undefended, clean": clean, "undefended": plain, SYSTEMS[system]: left}
    return _decided(measured, claim, numbers, left - plain >= 0.5 * (clean - plain), "level")


def helps(attack: str, measured: Measured) -> Verdict:
    """In every seed both trainings leave more accuracy than none."""
    seeds = {name: values(measured, name, attack) for name in SYSTEMS}
    gains = {
        name: [own - plain for own, plain in zip(seeds[name], seeds["plain"], strict=False)] or [math.nan]
        for name in DEFENDED
    }
    numbers = {f"least gain by {SYSTEMS[name]}": min(gain) for name, gain in gains.items()}
    claim = f"in every seed both trainings leave more accuracy under {ATTACKS[attack]} at {BUDGET} than none"
    return _decided(measured, claim, numbers, all(value > 0 for value in numbers.values()), "ordering")


def harder(measured: Measured) -> Verdict:
    """Many steps take more than one, from every network."""
    left = {name: [mean(measured, name, attack) for attack in ATTACKS] for name in SYSTEMS}
    numbers = {SYSTEMS[name]: fgsm - pgd for name, (fgsm, pgd) in left.items()}
    claim = f"PGD at {BUDGET} leaves less accuracy than FGSM on every network"
    return _decided(measured, claim, numbers, all(value > 0 for value in numbers.values()), "ordering")


def beats(measured: Measured) -> Verdict:
    """PGD training is the better defence against many steps (Welch over the seeds)."""
    one, other = (values(measured, name, "pgd") for name in ("pgd", "fgsm"))
    numbers = {SYSTEMS[name]: mean(measured, name, "pgd") for name in ("pgd", "fgsm")}
    p = compared(one, other).means
    holds = numbers[SYSTEMS["pgd"]] > numbers[SYSTEMS["fgsm"]] and p < SURE
    claim = f"under PGD at {BUDGET} PGD-7 training leaves more accuracy than FGSM training"
    return _decided(measured, claim, {**numbers, "p": p}, holds, "ordering")


def overstates(measured: Measured) -> Verdict:
    """FGSM flatters a network that was trained on it: many steps take more of its accuracy."""
    gaps = {SYSTEMS[name]: mean(measured, name, "fgsm") - mean(measured, name, "pgd") for name in ("fgsm", "pgd")}
    claim = f"from FGSM to PGD at {BUDGET} FGSM training loses more accuracy than PGD-7 training"
    return _decided(measured, claim, gaps, gaps[SYSTEMS["fgsm"]] > gaps[SYSTEMS["pgd"]], "ordering")


def easier(attack: str, measured: Measured) -> Verdict:
    """Examples of the undefended twin mislead a defended network less than its own do."""
    numbers = {
        SYSTEMS[name]: mean(measured, name, f"twin-{attack}") - mean(measured, name, attack) for name in DEFENDED
    }
    claim = f"{ATTACKS[attack]} at {BUDGET} made on the undefended twin leaves more accuracy than made on the network"
    return _decided(measured, claim, numbers, all(value > 0 for value in numbers.values()), "ordering")


CRITERIA: tuple[Callable[[Measured], Verdict], ...] = (
    reaches,
    *(partial(cheap, system) for system in DEFENDED),
    *(partial(halves, attack) for attack in ATTACKS),
    *(partial(wins_back, system, attack) for system in DEFENDED for attack in ATTACKS),
    *(partial(helps, attack) for attack in ATTACKS),
    harder,
    beats,
    overstates,
    *(partial(easier, attack) for attack in ATTACKS),
)
