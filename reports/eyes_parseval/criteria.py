"""The claims of eyes-parseval, each with the criterion that decides it, written before any run was looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from reports.comparing import compared, paired
from reports.eyes_parseval.protocol import TWINS, augmented
from reports.rows import Measured, mean
from reports.verdicts import Kind, Verdict, decided, pending

FOLDS = 3
"""With fewer, tests over folds say nothing."""
SURE = 0.05
"""p below which Welch's test over folds decides."""
AS_GOOD = 0.05
"""How far below its twin's a defended network's clean accuracy may be: one that knows nothing loses nothing."""
MARGIN = 0.02
"""How far below a plain network's a Parseval network's accuracy may be."""
NEAR, FAR = "50", "33"
"""The ratios in dB between which accuracy is lost."""


def drops(measured: Measured, system: str, sweep: str) -> list[float]:
    """Return what each fold loses of its accuracy from 50 to 33 dB."""
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


def _decided(
    measured: Measured,
    claim: str,
    found: dict[str, float],
    holds: bool,
    *,
    kind: Kind = "ordering",
    testable: bool = True,
) -> Verdict:
    """Return a verdict; only crops of eyes and several folds can test a claim."""
    enough = len(measured.folds("wrn", "clean", "accuracy")) >= FOLDS
    able = testable and enough and measured.source == "eyes"
    return decided(claim, found, holds, kind=kind, scale=measured.scale, testable=able)


def white_box(system: str) -> str:
    """Return the sweep of examples that are made on the system itself."""
    return "fgsm-snr"


def loses_less(kind: str, made_on: Callable[[str], str], claim: str) -> Callable[[Measured], Verdict]:
    """The adversarially trained network loses less than its undefended twin, and is about as good on clean crops."""

    def decide(measured: Measured) -> Verdict:
        plain, trained = (drops(measured, system, made_on(system)) for system in (kind, f"{kind}-adv"))
        p = compared(trained, plain).means
        found = {"lost with adversarial training": mean(trained), "without": mean(plain), "p": p}
        found["clean accuracy with"] = measured.mean(f"{kind}-adv", "clean", "accuracy")
        found["clean without"] = measured.mean(kind, "clean", "accuracy")
        near = found["clean accuracy with"] >= found["clean without"] - AS_GOOD
        holds = near and found["lost with adversarial training"] < found["without"] and p < SURE
        return _decided(measured, claim, found, holds)

    return decide


def no_worse(sweep: str, what: str, systems: Sequence[str] = ("parseval", "wrn")) -> Callable[[Measured], Verdict]:
    """
    Over all ratios the accuracy of the first of two systems is at most 0.02 below the other's.

    By the 95 % interval of the difference over folds, of which both have the same crops: shown where it lies above
    -0.02, shown not to be where it lies below 0; between them these crops cannot tell.
    """

    def decide(measured: Measured) -> Verdict:
        def over(system: str) -> list[float]:
            ratios = [measured.folds(system, sweep, "accuracy", ratio) for ratio in measured.strengths(sweep)]
            return [mean(of_fold) for of_fold in zip(*ratios, strict=True)]

        parseval, plain = map(over, systems)
        low, high = paired(parseval, plain)
        found = {"Parseval": mean(parseval), "plain": mean(plain), "difference from": low, "to": high}
        found["p"] = compared(parseval, plain).means
        told = not (low < -MARGIN and high >= 0)  # NaN tells: of it nothing is reproduced
        claim = f"a Parseval network is no worse than a plain one under {what}"
        verdict = _decided(measured, claim, found, low >= -MARGIN, testable=told)
        return pending(verdict, [system for system in systems if not measured.folds(system, "clean", "accuracy")])

    return decide


def clean_order(measured: Measured) -> Verdict:
    """Without adversarial training, Parseval's clean accuracy is above the plain network's (Welch)."""
    folds = {name: measured.folds(system, "clean", "accuracy") for name, system in PAIR.items()}
    found = {name: mean(values) for name, values in folds.items()}
    p = compared(*folds.values()).means
    holds = found["Parseval"] > found["WRN"] and p < SURE
    return _decided(measured, "a Parseval network is more accurate on clean crops", {**found, "p": p}, holds)


PAIR = {"Parseval": "parseval", "WRN": "wrn"}


def cheap(measured: Measured) -> Verdict:
    """Adversarial training costs each of the two networks at most 0.02 of its clean accuracy."""
    found = {
        name: measured.mean(system, "clean", "accuracy") - measured.mean(f"{system}-adv", "clean", "accuracy")
        for name, system in PAIR.items()
    }
    holds = all(value <= MARGIN for value in found.values())
    return _decided(measured, "adversarial training hardly costs clean accuracy", found, holds, kind="level")


def cnn_order(made_on: Callable[[str], str], claim: str) -> Callable[[Measured], Verdict]:
    """Every variant loses less than the plain CNN (Welch), with adversarial training least."""

    def decide(measured: Measured) -> Verdict:
        lost = {name: drops(measured, name, made_on(name)) for name in ("cnn", "cnn-wd", "cnn-wd-adv", "cnn-orth")}
        found = {name: mean(values) for name, values in lost.items()}
        ps = [compared(lost[name], lost["cnn"]).means for name in lost if name != "cnn"]
        order = min(found, key=lambda name: found[name]), max(found, key=lambda name: found[name])
        holds = order == ("cnn-wd-adv", "cnn") and all(p < SURE for p in ps)
        return _decided(measured, claim, {**found, "largest p": max(ps)}, holds)

    return decide


def stored_examples(kind: str) -> Callable[[Measured], Verdict]:
    """Approach 1: with examples of the size of the whole training set clean accuracy is above the plain network's."""

    def decide(measured: Measured) -> Verdict:
        # Of the folds that approach 1 has alone.
        count = len(measured.folds(augmented(kind, 0.03, 1.0), "clean", "accuracy"))
        without = mean(measured.folds("wrn", "clean", "accuracy")[:count])
        with_ = {
            f"ε {epsilon:g}": measured.mean(augmented(kind, epsilon, 1.0), "clean", "accuracy")
            for epsilon in (0.003, 0.03)
        }
        found = {"without": without, **with_, "folds": count}
        return _decided(measured, f"stored {kind} examples raise clean accuracy", found,
                        all(value > without for value in with_.values()), testable=count >= FOLDS)  # fmt: skip

    return decide


def clean_is_better(measured: Measured) -> Verdict:
    """
    The README's one finding: clean crops are told better than attacked ones, by networks with stored examples too.

    For every network the accuracy under FGSM on itself is nowhere above that on clean crops, and at the strongest of
    each sweep below it. Means over the folds.
    """
    less, strongest = [], []
    for system in dict.fromkeys(row["system"] for row in measured.rows):
        clean = measured.mean(system, "clean", "accuracy")
        for sweep in ("fgsm", "fgsm-snr"):
            names = [name for name in measured.strengths(sweep) if measured.folds(system, sweep, "accuracy", name)]
            lost = [clean - measured.mean(system, sweep, "accuracy", name) for name in names]
            less += lost
            # Small ratios are strong, small ε weak.
            strongest += lost[:1] if sweep == "fgsm-snr" else lost[-1:]
    found: dict[str, float] = {"cells": len(less), "better when attacked": sum(value < 0 for value in less)}
    found |= {"least loss": min(less, default=math.nan), "at the strongest": min(strongest, default=math.nan)}
    holds = found["least loss"] >= 0 and found["at the strongest"] > 0
    return _decided(measured, "clean is always better than attacked, with stored examples too", found, holds)


CLAIMS: tuple[Callable[[Measured], Verdict], ...] = (
    loses_less("wrn", published, "adversarial training loses less from 50 to 33 dB, as published: residual network"),
    loses_less("parseval", published, "adversarial training loses less from 50 to 33 dB, as published: Parseval"),
    loses_less(
        "wrn",
        white_box,
        "adversarial training loses less, with examples made on the defended model itself: residual network",
    ),
    loses_less(
        "parseval",
        white_box,
        "adversarial training loses less, with examples made on the defended model itself: Parseval",
    ),
    no_worse("fgsm-snr", "FGSM"),
    no_worse("noise-snr", "uniform noise"),
    clean_order,
    cheap,
    cnn_order(published, "each variant of the CNN loses less than the plain one, with adversarial training least"),
    cnn_order(
        white_box, "each variant of the CNN loses less than the plain one, with examples made on each variant itself"
    ),
    stored_examples("fgsm"),
    stored_examples("noise"),
    clean_is_better,
    no_worse("fgsm-snr", "FGSM, both fully connected", ("dense-parseval", "dense")),
)
"""In the order of the report; those with examples made on the system itself are beyond it."""
