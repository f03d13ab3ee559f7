"""What the templates of label-2n show: metrics of the tables, and the paper's statements beside measured values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reports import writing
from reports.comparing import compare
from reports.label_2n.criteria import DEFENCES, STRONG, printed, transferred
from reports.label_2n.numbers import Measured
from reports.label_2n.protocol import NAMES, TITLES, systems
from reports.rows import mean
from reports.writing import number
from robustness.metrics import strength_curves

# Metrics of the tables: without an attack, in the white box, and of the filter at its threshold.
CLEAN = ("accuracy", "selective_accuracy", "coverage")
WHITE = (*CLEAN, "undetected_error_rate")
KEPT, AREA = "coverage", "detection_auc"
SHAPES = {
    paper + suffix: prefix + shape
    for paper, shape in zip(("sensitivity", "deviation", "range"), strength_curves.SHAPES, strict=True)
    for suffix, prefix in (("", ""), (", filtered", strength_curves.SELECTIVE))
}
MEANS = [("mixed", ("accuracy", "selective_accuracy")), ("curve", ("half_accuracy", "half_selective_accuracy"))]
TRANSFER = ("transferability", "selective_transferability")
ATTACKS = {
    "fgsm": "FGSM on the system itself",
    "pgd": "many steps of PGD on the system itself",
    "adaptive-1": "one step that also evades the detector",
    "adaptive": "many steps that also evade the detector",
    "stg": "few features changed (STG): ε is their number",
}


def accuracies(m: Measured, system: str) -> list[float]:
    """Return the accuracy after filtering of each training, half of the images perturbed."""
    return m.folds(system, "mixed", "selective_accuracy")


def transferabilities(m: Measured, system: str) -> list[float]:
    """Return the filtered transferability of each training, the mean over ε."""
    return m.over_curve(system, "selective_transferability")


def undetected(m: Measured) -> list[str]:
    """Return how many images are undetected and wrong under the strongest adaptive attack, the best system first."""
    last = max(m.strengths("adaptive"), key=float, default="")
    values = {NAMES[s]: m.mean(s, "adaptive", "undetected_error_rate", last, "few") for s in systems(m.rows)}
    known = {name: value for name, value in values.items() if math.isfinite(value)}
    return [f"{name} {value:.2f}" for name, value in sorted(known.items(), key=lambda item: item[1])]


def kinds(models: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the records of trainings by kind of model."""
    records: dict[str, list[Mapping[str, Any]]] = {}
    for name, record in models.items():
        records.setdefault(name.split("-", 2)[-1] if name.count("-") > 1 else "substitute", []).append(record)
    return records


# What the paper says beside what was measured


def glance(measured: Sequence[Measured]) -> Iterator[list[str]]:
    """Return a row per statement of the paper: what it says, and the measured value of each data set."""
    for statement, (paper, show) in STATEMENTS.items():
        yield [statement, paper, *map(show, measured)]


def _top(value: Callable[[Measured, str], float], *, lowest: bool = False) -> Callable[[Measured], str]:
    """Show the defence with the highest value, and 2N's if it is another one."""

    def show(m: Measured) -> str:
        values = {name: value(m, system) for system, name in DEFENCES.items()}
        if not all(map(math.isfinite, values.values())):
            return "–"
        first = (min if lowest else max)(values, key=lambda name: values[name])
        return f"{first} {values[first]:.4f}" + ("" if first == "2N" else f"; 2N {values['2N']:.4f}")

    return show


def _mixed(m: Measured, system: str) -> float:
    return mean(accuracies(m, system))


def _ratio(m: Measured) -> str:
    rival = printed(m.source)["transferability_rival"]
    two_n, second = transferred(m, "2n"), transferred(m, rival)
    return f"{DEFENCES[rival]} {number(second)}, 2N {number(two_n)}" + (f": {second / two_n:.1f}" if two_n > 0 else "")


def _printed(key: str) -> str:
    """Write a printed number of each data set that has it."""
    numbers = writing.printed("label_2n").items()
    return ", ".join(f"{table[key]} ({TITLES[source]})" for source, table in numbers if key in table)


# The statements that are left of the text: what it says, and what shows the measured value.
STATEMENTS: Mapping[str, tuple[str, Callable[[Measured], str]]] = {
    "best mean accuracy": ("2N (GTSRB), NULL (CIFAR-10)", _top(_mixed)),
    "NULL's mean accuracy above 2N's": (
        _printed("accuracy_null_above_2n"), lambda m: number(_mixed(m, "null") - _mixed(m, "2n"))
    ),
    "Welch's p of NULL's and 2N's accuracy": (
        _printed("welch_accuracy_null"), lambda m: number(compare(*(accuracies(m, s) for s in ("null", "2n"))).means)
    ),
    f"best accuracy for ε above {STRONG:g}": (
        "2N", _top(lambda m, s: mean(m.curve(s, "half_selective_accuracy", above=STRONG)))
    ),
    "range of 2N's accuracy over ε": (
        "nearly constant", lambda m: number(m.mean("2n", "shape", "selective_accuracy_range"))
    ),
    "lowest sensitivity of the accuracy": (
        "2N", _top(lambda m, s: m.mean(s, "shape", "selective_max_accuracy_slope"), lowest=True)
    ),
    "largest transferability to 2N over ε": (
        "almost zero", lambda m: number(max(m.curve("2n", "selective_transferability"), default=None))
    ),
    "mean transferability, that of the second best over 2N's": (_printed("transferability_ratio"), _ratio),
}  # fmt: skip
