"""Figures 6 to 9 of label-2n: accuracy and transferability over ε, the trainings' mean with bars to their extremes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reports.curves import line
from reports.label_2n.numbers import Measured
from reports.label_2n.tables import NAMES, systems

NUMBERS = {
    ("cifar10", "half_accuracy"): "Figure 6", ("gtsrb", "half_accuracy"): "Figure 7",
    ("cifar10", "transferability"): "Figure 8", ("gtsrb", "transferability"): "Figure 9",
}  # fmt: skip
WHAT = {"half_accuracy": "accuracy, half perturbed", "transferability": "transferability |Xb|/|Xa|"}
SELECTIVE = {"half_accuracy": "half_selective_accuracy", "transferability": "selective_transferability"}


def names(source: str, scale: str) -> dict[str, str]:
    """
    Return the file of each figure.

    >>> names("gtsrb", "short")["half_accuracy"]
    'label-2n-gtsrb-short-accuracy.svg'
    """
    return {metric: f"label-2n-{source}-{scale}-{metric.removeprefix('half_')}.svg" for metric in WHAT}


def draw(measured: Measured, scale: str, folder: Path) -> list[Path]:
    """Draw both figures of a data set, without a filter on the left and with it on the right; SVG, always the same."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with rc_context({"svg.hashsalt": "label-2n", "font.size": 9}):
        for metric, name in names(measured.source, scale).items():
            figure = Figure(figsize=(9, 3.6), layout="constrained")
            left, right = figure.subplots(1, 2, sharey=True)
            for axes, drawn, title in ((left, metric, "without filter"), (right, SELECTIVE[metric], "with filter")):
                _lines(axes, measured, drawn)
                axes.set(xlabel="ε", title=title, ylim=(0, 1.02))
                axes.grid(alpha=0.3)
            left.set_ylabel(WHAT[metric])
            figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)
            made.append(folder / name)
            figure.savefig(made[-1], format="svg", metadata={"Date": None})
    return made


def _lines(axes: Any, measured: Measured, metric: str) -> None:
    for i, system in enumerate(systems(measured)):
        cells = [("curve", strength) for strength in measured.strengths("curve")]
        folds = [(float(e), measured.folds(system, sweep, metric, e)) for sweep, e in cells]
        if metric.startswith("half_"):
            folds.insert(0, (0.0, measured.folds(system, "clean", metric.removeprefix("half_"))))
        line(axes, folds, NAMES[system], i)
