"""What is left of label-2n's claims when the attacker sees the defence, and whether the attack was strong enough."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Literal, NamedTuple

from reports.label_2n.numbers import Measured
from reports.label_2n.tables import NAMES, systems

ATTACKS = ("fgsm", "pgd", "adaptive-1", "adaptive")
Outcome = Literal["survives", "falls", "not measured", "not shown"]


class Survival(NamedTuple):
    """A claim under an attack on the system itself, whether it survives there, and the numbers that say so."""

    claim: str
    attack: str
    outcome: Outcome
    """``not shown``: the attack that it would survive is known to find less than there is."""
    numbers: str


def survivals(measured: Measured) -> Iterator[Survival]:
    """Return each claim under each attack."""
    weak = {attack for system, attack, _ in _weaker(measured) if system == "2n"}
    for attack in ATTACKS:
        for decide in (_constant, _misleads_nobody, _best):
            found = decide(measured, attack)
            doubted = found.outcome == "survives" and attack in weak
            yield found._replace(outcome="not shown") if doubted else found


def _constant(measured: Measured, attack: str) -> Survival:
    """Half of the images attacked: accuracy after filtering varies by at most 0.1, as in the black box."""
    names = measured.strengths(attack)
    clean = measured.mean("2n", "clean", "selective_accuracy", "0", "few")
    accuracy = [clean, *(measured.mean("2n", attack, "half_selective_accuracy", name, "few") for name in names)]
    spread = max(accuracy) - min(accuracy)
    survives = _known(names, *accuracy, spread <= 0.1)
    return Survival("2N's accuracy with filtering is nearly constant over ε", attack, survives, f"range {spread:.4f}")


def _misleads_nobody(measured: Measured, attack: str) -> Survival:
    """At every ε at most 0.02 more images are undetected and wrong than without an attack."""
    names = measured.strengths(attack)
    clean = _clean_wrong(measured, "2n")
    found = {name: measured.mean("2n", attack, "undetected_error_rate", name, "few") for name in names}
    survives = _known(names, clean, *found.values(), all(value <= clean + 0.02 for value in found.values()))
    said = ", ".join([f"clean {clean:.4f}", *(f"ε {name} {value:.4f}" for name, value in found.items())])
    return Survival("almost no attacked image misleads 2N undetected", attack, survives, said)


def _best(measured: Measured, attack: str) -> Survival:
    """At the largest ε of the attack 2N has the fewest images undetected and wrong, at least 0.02 below all others."""
    names = measured.strengths(attack)
    last = names[-1] if names else ""
    found = {s: measured.mean(s, attack, "undetected_error_rate", last, "few") for s in systems(measured)}
    rest = min((value for system, value in found.items() if system != "2n"), default=math.nan)
    own = found.get("2n", math.nan)
    said = ", ".join(f"{NAMES[system]} {value:.4f}" for system, value in found.items())
    survives = _known(names, *found.values(), round(rest - own, 6) >= 0.02)
    return Survival(f"2N is misled least of all systems (ε {last})", attack, survives, said)


def _clean_wrong(measured: Measured, system: str) -> float:
    kept = measured.mean(system, "clean", "coverage", "0", "few")
    return kept * (1 - measured.mean(system, "clean", "selective_accuracy", "0", "few"))


def _known(names: list[str], *values: float | bool) -> Outcome:
    """Say what the last value decides, unless one is missing or nothing was measured."""
    *numbers, holds = values
    if not names or not all(map(math.isfinite, numbers)):
        return "not measured"
    return "survives" if holds else "falls"


def too_weak(measured: Measured) -> list[str]:
    """
    Say where the adaptive attack found less than is known to be there: it must search better.

    On the same images it must not do worse than the plain attack, and that of many steps not worse than itself at a
    smaller ε, whose examples lie in the larger ball too.
    """
    return [f"{NAMES[system]}: {said}" for system, _, said in _weaker(measured)]


def _weaker(measured: Measured) -> Iterator[tuple[str, str, str]]:
    """Return system and attack wherever it finds less than another one did, with both numbers."""
    names = measured.strengths("adaptive")
    pairs = [(("adaptive-1", name), ("fgsm", name)) for name in measured.strengths("adaptive-1")]
    pairs += [(("adaptive", name), ("pgd", name)) for name in names]
    pairs += [(("adaptive", larger), ("adaptive", smaller)) for smaller, larger in pairwise(names)]
    for system, (strong, weak) in product(systems(measured), pairs):
        wrong = [measured.folds(system, sweep, "undetected_error_rate", at, "few") for sweep, at in (strong, weak)]
        for one, other in zip(*wrong, strict=True):
            if one < other:
                yield system, strong[0], f"{strong[0]} at ε {strong[1]} {one:.4f}, {weak[0]} at {weak[1]} {other:.4f}"
