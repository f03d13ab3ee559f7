"""Accuracy over signal-to-noise ratios, and micro-averaged ROC curves over a logarithmic axis; SVG, always the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reports.curves import line
from reports.eyes_parseval.criteria import published
from reports.eyes_parseval.measure import POINTS
from reports.eyes_parseval.protocol import SYSTEMS
from reports.rows import Measured, unpacked
from reports.strips import draw as draw_strips

TITLES = {
    "snr": "accuracy over the signal-to-noise ratio",
    "roc": "ROC curves at 33 dB",
    "strips": "FGSM on four systems: above, the perturbation, magnified; below, the image and what it is taken for",
}


def names(source: str, scale: str) -> dict[str, str]:
    """
    Return the file of each figure by what it shows.

    >>> list(names("eyes", "short").values())[:2]
    ['eyes-parseval-eyes-short-snr.svg', 'eyes-parseval-eyes-short-roc.svg']
    """
    return {title: f"eyes-parseval-{source}-{scale}-{kind}.svg" for kind, title in TITLES.items()}


def draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw the figures of a result; curves as published on the left, of each system attacked itself on the right."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with rc_context({"svg.hashsalt": "eyes-parseval", "font.size": 9}):
        *curves, strips = names(result["source"], result["scale"]).values()
        for lines, name in zip((_ratios, _curves), curves, strict=True):
            figure = Figure(figsize=(10, 3.8), layout="constrained")
            left, right = figure.subplots(1, 2, sharey=True)
            lines(left, result, published)
            lines(right, result, lambda _: "fgsm-snr")
            left.set_title("examples made on whom the report made them")
            right.set_title("examples made on the system itself")
            for axes in (left, right):
                axes.grid(alpha=0.3)
            figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)
            made.append(folder / name)
            figure.savefig(made[-1], format="svg", metadata={"Date": None})
    return [*made, draw_strips(result["strips"], folder / strips, "{} dB")]


def _ratios(axes: Any, result: Mapping[str, Any], sweep: Callable[[str], str]) -> None:
    measured = Measured(result["source"], unpacked(result))
    for i, system in enumerate(SYSTEMS):
        folds = [
            (float(ratio), measured.folds(system, sweep(system), "accuracy", ratio))
            for ratio in measured.strengths(sweep(system))
        ]
        line(axes, folds, system, i)
    axes.set(xlabel="SNR in dB", ylabel="accuracy")


def _curves(axes: Any, result: Mapping[str, Any], sweep: Callable[[str], str]) -> None:
    for i, system in enumerate(SYSTEMS):
        rates = [
            curve["rates"] for curve in result["curves"]
            if (curve["system"], curve["sweep"]) == (system, sweep(system)) and curve["strength"] == "33"
        ]  # fmt: skip
        if rates:
            axes.plot(POINTS, np.mean(rates, axis=0), label=system, color=f"C{i}", linewidth=1.2)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", xscale="log")
