"""The claims of eyes-parseval, each with the criterion that decides it, written before any run was looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from reports.comparing import compared
from reports.eyes_parseval.protocol import TWINS, augmented
from reports.rows import Measured
from reports.verdicts import Verdict, decided

FOLDS = 3
"""With fewer, tests over folds say nothing."""
NEAR, FAR = "50", "33"
"""The ratios in dB between which accuracy is lost."""


def drops(measured: Measured, system: str, sweep: str) -> list[float]:
    """Give what each fold loses of its accuracy from 50 to 33 dB."""
    pairs = zip(
        measured.folds(system, sweep, "accuracy", NEAR), measured.folds(system, sweep, "accuracy", FAR), strict=True
    )
    return [near - far for near, far in pairs]


def published(system: str) -> str:
    """
    Name the sweep of a system's row in the published tables: who was attacked by whom.

    >>> published("wrn"), published("wrn-adv")
    ('fgsm-snr', 'twin-snr')
    """
    return "twin-snr" if system in TWINS else "fgsm-snr"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def least_lost(kind: str, of_all: Callable[[str], str], claim: str) -> Callable[[Measured], Verdict]:
    """The adversarially trained network loses less than its undefended twin over the folds (Welch, p < 0.05)."""

    def decide(measured: Measured) -> Verdict:
        plain = drops(measured, kind, of_all(kind))
        trained = drops(measured, f"{kind}-adv", of_all(f"{kind}-adv"))
        p = compared(trained, plain).means
        found = {"lost with adversarial training": _mean(trained), "without": _mean(plain), "p": p}
        holds = found["lost with adversarial training"] < found["without"] and p < 0.05
        return decided(claim, found, holds, testable=len(plain) >= FOLDS)

    return decide


def white_box(system: str) -> str:
    """Give the sweep of examples that are made on the system itself."""
    return "fgsm-snr"


def no_worse(sweep: str, what: str) -> Callable[[Measured], Verdict]:
    """Over all ratios Parseval's mean accuracy is at most 0.01 below the plain network's."""

    def decide(measured: Measured) -> Verdict:
        def over(system: str) -> list[float]:
            ratios = [measured.folds(system, sweep, "accuracy", ratio) for ratio in measured.strengths(sweep)]
            return [_mean(of_fold) for of_fold in zip(*ratios, strict=True)]

        parseval, plain = over("parseval"), over("wrn")
        found = {"Parseval": _mean(parseval), "WRN": _mean(plain), "p": compared(parseval, plain).means}
        holds = found["Parseval"] >= found["WRN"] - 0.01
        claim = f"a Parseval network is no worse than a plain one under {what}"
        return decided(claim, found, holds, testable=len(plain) >= FOLDS)

    return decide


def clean_order(measured: Measured) -> Verdict:
    """Without adversarial training, Parseval's mean clean accuracy is above the plain network's."""
    found = {name: measured.mean(system, "clean", "accuracy") for name, system in PAIR.items()}
    return decided("a Parseval network is more accurate on clean crops", found, found["Parseval"] > found["WRN"])


PAIR = {"Parseval": "parseval", "WRN": "wrn"}


def cheap(measured: Measured) -> Verdict:
    """Adversarial training costs each of the two networks at most 0.02 of its clean accuracy."""
    found = {
        name: measured.mean(system, "clean", "accuracy") - measured.mean(f"{system}-adv", "clean", "accuracy")
        for name, system in PAIR.items()
    }
    return decided("adversarial training hardly costs clean accuracy", found, all(v <= 0.02 for v in found.values()))


def cnn_order(measured: Measured) -> Verdict:
    """Under the plain CNN's examples every variant loses less than the plain CNN, with adversarial training least."""
    names = ("cnn", "cnn-wd", "cnn-wd-adv", "cnn-orth")
    found = {name: _mean(drops(measured, name, published(name))) for name in names}
    least = min(found, key=lambda name: found[name])
    return decided("each variant of the CNN loses less than the plain one, with adversarial training least", found,
                   max(found, key=lambda name: found[name]) == "cnn" and least == "cnn-wd-adv")  # fmt: skip


def stored_examples(kind: str) -> Callable[[Measured], Verdict]:
    """Approach 1: with examples of the size of the whole training set clean accuracy is above the plain network's."""

    def decide(measured: Measured) -> Verdict:
        # Of the folds that approach 1 has alone.
        count = len(measured.folds(augmented(kind, 0.03, 1.0), "clean", "accuracy"))
        without = _mean(measured.folds("wrn", "clean", "accuracy")[:count])
        with_ = {
            f"ε {epsilon:g}": measured.mean(augmented(kind, epsilon, 1.0), "clean", "accuracy")
            for epsilon in (0.003, 0.03)
        }
        holds = all(value > without for value in with_.values())
        return decided(f"stored {kind} examples raise clean accuracy", {"without": without, **with_}, holds)

    return decide


CLAIMS: tuple[Callable[[Measured], Verdict], ...] = (
    least_lost("wrn", published, "adversarial training loses least from 50 to 33 dB, as published: residual network"),
    least_lost("parseval", published, "adversarial training loses least from 50 to 33 dB, as published: Parseval"),
    least_lost("wrn", white_box, "and with examples made on the defended model itself: residual network"),
    least_lost("parseval", white_box, "and with examples made on the defended model itself: Parseval"),
    no_worse("fgsm-snr", "FGSM"),
    no_worse("noise-snr", "uniform noise"),
    clean_order,
    cheap,
    cnn_order,
    stored_examples("fgsm"),
    stored_examples("noise"),
)
"""In the order of the report; the third and fourth are beyond it."""
