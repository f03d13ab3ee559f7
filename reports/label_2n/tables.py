"""The tables of label-2n as Markdown: in the paper's form, then what the paper did not do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from reports.comparing import compared
from reports.label_2n import published
from reports.label_2n.criteria import DEFENCES, FOLDS, STRONG, steps
from reports.label_2n.numbers import HALF, Measured
from reports.writing import number, spread, summary, table
from robustness.metrics.strength_curves import SELECTIVE, SHAPES

NAMES = {
    "plain+bin": "undefended",
    "adv+bin": "ADV",
    "null": "NULL",
    "null-stg": "NULL, sparse",
    "2n": "2N",
    "cdaec+bin": "CDAEC",
    "distill+bin": "DISTILL",
}
"""Systems as they are called in tables; all but NULL and 2N have the detector BIN beside them."""
TITLES = {"gtsrb": "GTSRB", "cifar10": "CIFAR-10", "digits": "digits"}
KEPT = ("0.02", "0.05", "0.1", "0.3", "0.5")
"""ε at which the share of images that pass is shown."""


def main(measured: Measured) -> Iterator[str]:
    """Return the paper's tables of accuracy and transferability, by its numbers."""
    yield _clean(measured)
    yield from filtered(measured)


def filtered(measured: Measured) -> Iterator[str]:
    """Return the tables that depend on the filter's threshold and detector."""
    yield _shapes(measured)
    yield _means(measured)
    yield _transfer(measured)


def more(measured: Measured) -> Iterator[str]:
    """Return the tests over the folds, what the filter keeps, and the ratios that the theory asks for."""
    yield _differences(measured, 6, "accuracy after filtering, half of the images perturbed", "mixed")
    yield _differences(measured, 7, "filtered transferability, mean over ε", "curve")
    yield kept(measured)
    yield _ratios(measured)


def systems(measured: Measured) -> list[str]:
    """Return the systems that were measured, in the order of the tables."""
    there = {row["system"] for row in measured.rows}
    return [system for system in NAMES if system in there]


def _spread(values: Sequence[float]) -> str:
    return spread(summary(values)) if values else "–"


def _by_system(measured: Measured, heads: Sequence[str], cells: dict[str, list[list[float]]]) -> str:
    return table(["", *heads], [[NAMES[system], *map(_spread, cells[system])] for system in systems(measured)])


def _clean(measured: Measured) -> str:
    metrics = ("accuracy", "selective_accuracy", "coverage")
    cells = {
        s: [measured.folds(s, "clean", m, images=where) for where in ("fold", "official") for m in metrics]
        for s in systems(measured)
    }
    heads = [f"{m}, {where}" for where in ("fold", "official test") for m in ("accuracy", "filtered", "kept")]
    return "## Clean images\n\nOf each fold's held-out part, and of the official test set.\n\n" + _by_system(
        measured, heads, cells
    )


def _shapes(measured: Measured) -> str:
    shapes = [selective + shape for shape in SHAPES for selective in ("", SELECTIVE)]
    cells = {s: [measured.folds(s, "shape", shape) for shape in shapes] for s in systems(measured)}
    heads = [named + after for named in ("sensitivity", "deviation", "range") for after in ("", ", filtered")]
    return (
        "## Table 3: how sensitive accuracy is to ε\n\nLargest |Δaccuracy/Δε| between neighbours, standard deviation "
        "and range over ε from 0 to 0.5; examples made on the substitute, half of the images perturbed. So a system "
        "that discards every attacked image has its clean accuracy here; what is kept of them stands below.\n\n"
    ) + _by_system(measured, heads, cells)


def _means(measured: Measured) -> str:
    cells = {
        s: [
            *(measured.folds(s, "mixed", m) for m in ("accuracy", "selective_accuracy")),
            *(measured.over_curve(s, m, above=STRONG) for m in ("half_accuracy", "half_selective_accuracy")),
            measured.folds(s, "mixed", "selective_accuracy", images="official"),
        ]
        for s in systems(measured)
    }
    heads = ["overall", "overall, filtered", f"ε > {STRONG:g}", f"ε > {STRONG:g}, filtered", "official test, filtered"]
    return (
        "## Table 4: mean accuracy\n\nOverall: half of the images perturbed, ε ~ U(0, 0.5). "
        f"ε > {STRONG:g}: half perturbed too, stronger than anything seen in training.\n\n"
    ) + _by_system(measured, heads, cells)


def _transfer(measured: Measured) -> str:
    metrics = ("transferability", "selective_transferability")
    cells = {s: [measured.over_curve(s, metric) for metric in metrics] for s in systems(measured)}
    return (
        "## Table 5: transferability\n\n|Xb|/|Xa|, mean over ε from 0.02 to 0.5; filtered, an image that is discarded "
        "misleads nobody.\n\n" + _by_system(measured, ["transferability", "filtered"], cells)
    )


def _values(measured: Measured, system: str, sweep: str) -> list[float]:
    if sweep == "mixed":
        return measured.folds(system, sweep, "selective_accuracy")
    return measured.over_curve(system, "selective_transferability")


def _differences(measured: Measured, number_: int, of: str, sweep: str) -> str:
    rows, own = [], _values(measured, "2n", sweep)
    for system in systems(measured):
        if system != "2n":
            other = _values(measured, system, sweep)
            found = compared(own, other)
            printed = published.load().get(measured.source, {}) if sweep == "mixed" else {}
            p = printed.get(f"welch_accuracy_{system}")
            mean = sum(own) / len(own) - sum(other) / len(other) if own and other else math.nan
            rows.append([NAMES[system], *map(_number, (mean, found.variances, found.means)), number(p)])
    count = len(own)
    few = f" **With {count} trainings these tests have little power.**" if count < FOLDS else ""
    heads = ["2N against", "2N's mean is higher by", "F-test, p", "Welch, p", "Welch, p published"]
    return f"## Table {number_}: tests of {of}\n\nTwo-sided, n = {count} trainings of each.{few}\n\n" + table(
        heads, rows
    )


def _number(value: float) -> str:
    return number(None if math.isnan(value) else value)


def kept(measured: Measured) -> str:
    """Return what the filter keeps at its threshold, which is 0.5 where a row names no other."""
    cells = {
        s: [
            [float(HALF) if math.isnan(limit) else limit for limit in measured.folds(s, "clean", "limit")],
            measured.folds(s, "clean", "coverage"),
            *(measured.folds(s, "curve", "coverage", strength) for strength in KEPT),
            *(measured.folds(s, "curve", "detection_auc", strength) for strength in ("0.02", "0.1")),
        ]
        for s in systems(measured)
    }
    heads = ["threshold", "kept, clean", *(f"kept, ε {e}" for e in KEPT), "AUC, ε 0.02", "AUC, ε 0.1"]
    return (
        "## What the filter keeps and tells\n\nAccuracy after filtering means nothing where nothing is kept. Share of "
        "clean and of perturbed images that pass, examples made on the substitute; area under the detector's ROC curve."
        "\n\n"
    ) + _by_system(measured, heads, cells)


def _ratios(measured: Measured) -> str:
    rows = [
        [
            name,
            step.strength,
            *map(_number, (step.fallen, step.required, step.ratio)),
            "yes" if step.reached else "no",
            f"{step.change:+.4f}",
        ]
        for system, name in DEFENCES.items()
        for step in steps(measured, system)
    ]
    heads = ["", "to ε", "r_Z", "required r_X", "measured", "reached", "change of the accuracy"]
    return (
        "## what the detector must reach\n\nSection 4.4: from one ε to the next the accuracy on perturbed images falls "
        "to r_Z of itself; the accuracy after filtering stays if what passes of them falls to r_X. The formula takes "
        "what passes to be as often right as all perturbed images. A dash: nothing passed before.\n\n"
    ) + table(heads, rows)


WHITE = {
    "fgsm": "FGSM on the system itself",
    "pgd": "many steps of PGD on the system itself",
    "adaptive-1": "one step that also evades the detector",
    "adaptive": "many steps that also evade the detector",
    "stg": "few features changed (STG): ε is their number",
}


def white(measured: Measured, sweep: str, said: str) -> str:
    """Return the table of one attack on the systems themselves."""
    metrics = ("accuracy", "selective_accuracy", "coverage", "undetected_error_rate")
    rows = []
    for system in systems(measured):
        for strength in measured.strengths(sweep):
            values = [measured.folds(system, sweep, metric, strength, images="few") for metric in metrics]
            if any(values):
                rows.append([NAMES[system], strength, *map(_spread, values)])
    return f"## White box: {said}\n\n" + table(
        ["", "ε", "accuracy", "accuracy, filtered", "kept", "undetected and wrong"], rows
    )
