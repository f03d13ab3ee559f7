"""The claims of eyes-parseval, each with the criterion that decides it, written before any run was looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from reports.comparing import compare, paired_interval
from reports.eyes_parseval.protocol import TWINS, augmented
from reports.rows import Measured, mean
from reports.verdicts import Criterion, Kind

# With fewer, tests over folds say nothing.
FOLDS = 3
# p below which Welch's test over folds decides.
SIGNIFICANCE = 0.05
# How far below its twin's a defended network's clean accuracy may be: one that knows nothing loses nothing.
MAX_CLEAN_LOSS = 0.05
# How far below a plain network's a Parseval network's accuracy may be, and how much adversarial training may cost.
MARGIN = 0.02
# The ratios in dB between which accuracy is lost.
WEAK, STRONG = "50", "33"
PAIR = {"Parseval": "parseval", "WRN": "wrn"}
White = Callable[[str], str]


def losses(measured: Measured, system: str, sweep: str) -> list[float]:
    """Return what each fold loses of its accuracy from 50 to 33 dB."""
    accuracies = (measured.folds(system, sweep, strength=strength) for strength in (WEAK, STRONG))
    return [weak - strong for weak, strong in zip(*accuracies, strict=True)]


def published_sweep(system: str) -> str:
    """Return the sweep of a system's row in the published tables, which names the attacked network."""
    return "twin-snr" if system in TWINS else "fgsm-snr"


def own_sweep(system: str) -> str:
    """Return the sweep of examples that are made on the system itself."""
    return "fgsm-snr"


def criteria(m: Measured) -> Iterator[Criterion]:
    """Return all claims, in the order of the report; only crops of eyes and several folds can test one."""
    itself = "with examples made on the defended model itself"
    for sweep, where in ((published_sweep, "from 50 to 33 dB, as published"), (own_sweep, itself)):
        for kind, title in (("wrn", "residual network"), ("parseval", "Parseval")):
            comma = "," if sweep is own_sweep else ""
            yield _loses_less(m, kind, sweep, f"adversarial training loses less{comma} {where}: {title}")
    yield _no_worse(m, "fgsm-snr", "FGSM")
    yield _no_worse(m, "noise-snr", "uniform noise")
    yield _clean_order(m)
    yield _cheap(m)
    claim = "each variant of the CNN loses less than the plain one, with "
    yield _cnn_order(m, published_sweep, f"{claim}adversarial training least")
    yield _cnn_order(m, own_sweep, f"{claim}examples made on each variant itself")
    yield _stored_examples(m, "fgsm")
    yield _stored_examples(m, "noise")
    yield _clean_is_better(m)
    yield _no_worse(m, "fgsm-snr", "FGSM, both fully connected", ("dense-parseval", "dense"))


def _criterion(
    m: Measured, claim: str, values: dict[str, float], holds: bool, kind: Kind = "ordering", **more: object
) -> Criterion:
    able = m.source == "eyes" and len(m.folds("wrn", "clean")) >= FOLDS and bool(more.pop("testable", True))
    return Criterion(kind, claim, values, holds, able)


def _loses_less(m: Measured, kind: str, sweep: White, claim: str) -> Criterion:
    """The adversarially trained network loses less than its undefended twin, and is about as good on clean crops."""
    plain, trained = (losses(m, system, sweep(system)) for system in (kind, f"{kind}-adv"))
    values = {
        "lost with adversarial training": mean(trained), "without": mean(plain), "p": compare(trained, plain).means,
        "clean accuracy with": m.mean(f"{kind}-adv", "clean"), "clean without": m.mean(kind, "clean"),
    }  # fmt: skip
    accurate = values["clean accuracy with"] >= values["clean without"] - MAX_CLEAN_LOSS
    less = values["lost with adversarial training"] < values["without"]
    return _criterion(m, claim, values, accurate and less and values["p"] < SIGNIFICANCE)


def _no_worse(m: Measured, sweep: str, under: str, systems: tuple[str, str] = ("parseval", "wrn")) -> Criterion:
    """
    Over all ratios the accuracy of the first of two systems is at most 0.02 below the other's.

    By the 95 % interval of the difference over folds, which both share: shown if it lies above -0.02, refuted if it
    lies below 0; otherwise these crops cannot tell.
    """

    def over_ratios(system: str) -> list[float]:
        ratios = [m.folds(system, sweep, strength=ratio) for ratio in m.strengths(sweep)]
        return [mean(fold) for fold in zip(*ratios, strict=True)]

    parseval, plain = map(over_ratios, systems)
    low, high = paired_interval(parseval, plain)
    values = {"Parseval": mean(parseval), "plain": mean(plain), "difference from": low, "to": high}
    values["p"] = compare(parseval, plain).means
    decided = not (low < -MARGIN and high >= 0)  # NaN decides: it reproduces nothing
    claim = f"a Parseval network is no worse than a plain one under {under}"
    criterion = _criterion(m, claim, values, low >= -MARGIN, testable=decided)
    return criterion._replace(missing=[system for system in systems if not m.folds(system, "clean")])


def _clean_order(m: Measured) -> Criterion:
    """Without adversarial training, Parseval's clean accuracy is above the plain network's (Welch)."""
    folds = {name: m.folds(system, "clean") for name, system in PAIR.items()}
    values = {name: mean(accuracies) for name, accuracies in folds.items()}
    p = compare(*folds.values()).means
    higher = values["Parseval"] > values["WRN"] and p < SIGNIFICANCE
    return _criterion(m, "a Parseval network is more accurate on clean crops", {**values, "p": p}, higher)


def _cheap(m: Measured) -> Criterion:
    """Adversarial training costs each of the two networks at most 0.02 of its clean accuracy."""
    values = {name: m.mean(system, "clean") - m.mean(f"{system}-adv", "clean") for name, system in PAIR.items()}
    holds = all(value <= MARGIN for value in values.values())
    return _criterion(m, "adversarial training hardly costs clean accuracy", values, holds, "level")


def _cnn_order(m: Measured, sweep: White, claim: str) -> Criterion:
    """Every variant loses less than the plain CNN (Welch), with adversarial training least."""
    lost = {system: losses(m, system, sweep(system)) for system in ("cnn", "cnn-wd", "cnn-wd-adv", "cnn-orth")}
    values = {system: mean(folds) for system, folds in lost.items()}
    ps = [compare(folds, lost["cnn"]).means for system, folds in lost.items() if system != "cnn"]
    extremes = min(values, key=lambda name: values[name]), max(values, key=lambda name: values[name])
    holds = extremes == ("cnn-wd-adv", "cnn") and all(p < SIGNIFICANCE for p in ps)
    return _criterion(m, claim, {**values, "largest p": max(ps)}, holds)


def _stored_examples(m: Measured, kind: str) -> Criterion:
    """Approach 1: with examples of the size of the whole training set clean accuracy is above the plain network's."""
    # On the folds of approach 1 alone.
    count = len(m.folds(augmented(kind, 0.03, 1.0), "clean"))
    values = {"without": mean(m.folds("wrn", "clean")[:count])}
    values |= {f"ε {epsilon:g}": m.mean(augmented(kind, epsilon, 1.0), "clean") for epsilon in (0.003, 0.03)}
    holds = all(value > values["without"] for name, value in values.items() if name != "without")
    claim = f"stored {kind} examples raise clean accuracy"
    return _criterion(m, claim, {**values, "folds": count}, holds, testable=count >= FOLDS)


def _clean_is_better(m: Measured) -> Criterion:
    """
    The README's one finding: clean crops are classified better than attacked ones, with stored examples too.

    For every network the accuracy under FGSM on itself is nowhere above that on clean crops, and at the strongest of
    each sweep below it. Means over the folds.
    """
    lost, strongest = [], []
    for system in dict.fromkeys(row["system"] for row in m.rows):
        for sweep in ("fgsm", "fgsm-snr"):
            names = [name for name in m.strengths(sweep) if m.folds(system, sweep, strength=name)]
            drops = [m.mean(system, "clean") - m.mean(system, sweep, strength=name) for name in names]
            lost += drops
            # Small ratios are strong, small ε weak.
            strongest += drops[:1] if sweep == "fgsm-snr" else drops[-1:]
    values: dict[str, float] = {"cells": len(lost), "better when attacked": sum(value < 0 for value in lost)}
    values |= {"least loss": min(lost, default=math.nan), "at the strongest": min(strongest, default=math.nan)}
    holds = values["least loss"] >= 0 and values["at the strongest"] > 0
    return _criterion(m, "clean is always better than attacked, with stored examples too", values, holds)
