"""What is left of label-2n's claims if the attacker sees the defence, and whether the attack was strong enough."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise, product
from typing import Literal, NamedTuple

from reports.label_2n.numbers import Measured
from reports.label_2n.protocol import NAMES, systems

ATTACKS = ("fgsm", "pgd", "adaptive-1", "adaptive")
Outcome = Literal["survives", "falls", "not measured", "not shown"]


class Survival(NamedTuple):
    """
    A claim under an attack on the system itself.

    The outcome is "not shown" if the claim survives an attack that finds fewer errors than are known to exist.
    """

    claim: str
    attack: str
    outcome: Outcome
    numbers: str


def survivals(m: Measured) -> Iterator[Survival]:
    """Return each claim under each attack."""
    weak = {attack for system, attack, _ in weaker(m) if system == "2n"}
    for attack in ATTACKS:
        for decide in (_constant, _misleads_nobody, _best):
            survival = decide(m, attack)
            doubted = survival.outcome == "survives" and attack in weak
            yield survival._replace(outcome="not shown") if doubted else survival


def _constant(m: Measured, attack: str) -> Survival:
    """Half of the images attacked: accuracy after filtering varies by at most 0.1, as in the black box."""
    clean = m.mean("2n", "clean", "selective_accuracy", "0", "few")
    accuracy = [clean, *(m.mean("2n", attack, "half_selective_accuracy", e, "few") for e in m.strengths(attack))]
    spread = max(accuracy) - min(accuracy)
    outcome = _outcome(m, attack, accuracy, spread <= 0.1)
    return Survival("2N's accuracy with filtering is nearly constant over ε", attack, outcome, f"range {spread:.4f}")


def _misleads_nobody(m: Measured, attack: str) -> Survival:
    """At every ε at most 0.02 more images are undetected and wrong than without an attack."""
    passing, accuracy = (m.mean("2n", "clean", metric, "0", "few") for metric in ("coverage", "selective_accuracy"))
    wrong = {"clean": passing * (1 - accuracy)}
    wrong |= {f"ε {e}": m.mean("2n", attack, "undetected_error_rate", e, "few") for e in m.strengths(attack)}
    outcome = _outcome(m, attack, wrong.values(), all(value <= wrong["clean"] + 0.02 for value in wrong.values()))
    return Survival("almost no attacked image misleads 2N undetected", attack, outcome, _listed(wrong))


def _best(m: Measured, attack: str) -> Survival:
    """At the largest ε of the attack 2N has the fewest images undetected and wrong, at least 0.02 below all others."""
    last = max(m.strengths(attack), key=float, default="")
    wrong = {NAMES[s]: m.mean(s, attack, "undetected_error_rate", last, "few") for s in systems(m.rows)}
    rest = min((value for name, value in wrong.items() if name != "2N"), default=math.nan)
    outcome = _outcome(m, attack, wrong.values(), round(rest - wrong.get("2N", math.nan), 6) >= 0.02)
    return Survival(f"2N is misled least of all systems (ε {last})", attack, outcome, _listed(wrong))


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def _outcome(m: Measured, attack: str, values: Iterable[float], holds: bool) -> Outcome:
    """Return the outcome, "not measured" if a number is missing."""
    if not m.strengths(attack) or not all(map(math.isfinite, values)):
        return "not measured"
    return "survives" if holds else "falls"


def too_weak(m: Measured) -> list[str]:
    """
    Return where the adaptive attack finds fewer errors than are known to exist: it must search better.

    On the same images it must not do worse than the plain attack, and that of many steps not worse than itself at a
    smaller ε, whose examples lie in the larger ball too.
    """
    return [f"{NAMES[system]}: {numbers}" for system, _, numbers in weaker(m)]


def weaker(m: Measured) -> Iterator[tuple[str, str, str]]:
    """Return system, attack and both numbers wherever an attack finds fewer errors than another one."""
    strengths = m.strengths("adaptive")
    pairs = [(("adaptive-1", e), ("fgsm", e)) for e in m.strengths("adaptive-1")]
    pairs += [(("adaptive", e), ("pgd", e)) for e in strengths]
    pairs += [(("adaptive", larger), ("adaptive", smaller)) for smaller, larger in pairwise(strengths)]
    for system, (strong, weak) in product(systems(m.rows), pairs):
        wrong = [m.folds(system, sweep, "undetected_error_rate", e, "few") for sweep, e in (strong, weak)]
        for first, second in zip(*wrong, strict=True):
            if first < second:
                numbers = f"{strong[0]} at ε {strong[1]} {first:.4f}, {weak[0]} at {weak[1]} {second:.4f}"
                yield system, strong[0], numbers
