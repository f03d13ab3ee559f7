"""The digits-noise paper's figures: curves beside the published ones, noisy digits, confusion at three amplitudes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports import strips
from reports.curves import line
from reports.digits_noise import published
from reports.digits_noise.numbers import INITIAL_WEIGHTS, NAMES

FIGURES = {
    "digits-noise-curves.svg": "Accuracy, precision and recall of digit 0 over V: published, and measured as mean over "
    "seeds with bars to the least and the largest",
    "digits-noise-pictures.svg": "Digits under the paper's noise (its figures 3 and 7 to 10), shown clipped to [0, 1], "
    "and what a network with Keras' initial weights, seed 0, takes them for",
    "digits-noise-confusion.svg": "Share of each digit's images per prediction without noise, at V = 0.5 and at V = 1 "
    "(the paper's figures 11 to 14): mean over seeds, Keras' initial weights",
}


def draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw all figures of a result; the same bytes each time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    curves, pictures, confusion = (folder / name for name in FIGURES)
    with rc_context({"svg.hashsalt": "digits-noise", "font.size": 9}):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        for axes, metric in zip(
            figure.subplots(1, 3, sharey=True), ("accuracy", "precision[0]", "recall[0]"), strict=True
        ):
            _curve(axes, result, metric)
        figure.axes[0].legend(frameon=False)
        figure.savefig(curves, format="svg", metadata={"Date": None})
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        matrices = result["tables"]["initial"]["keras"]["confusion"]
        for axes, (v, matrix) in zip(figure.subplots(1, len(matrices)), matrices.items(), strict=True):
            _confusion(axes, matrix, f"V = {v}")
        figure.savefig(confusion, format="svg", metadata={"Date": None})
    strips.draw(result["pictures"], pictures, "V = {}")
    return [curves, pictures, confusion]


def _curve(axes: Any, result: Mapping[str, Any], metric: str) -> None:
    axes.plot(result["V"], published.curves()[metric], "k--", label="published", linewidth=1)
    for i, initial in enumerate(INITIAL_WEIGHTS):
        points = result["tables"]["initial"][initial]["noise"][metric]
        values = [[math.nan if value is None else value for value in point["values"]] for point in points]
        line(axes, zip(result["V"], values, strict=True), f"{NAMES[initial]} initial weights", i)
    axes.set(xlabel="V", title=metric, ylim=(0, 1.02))
    axes.grid(alpha=0.3)


def _confusion(axes: Any, matrix: list[list[float]], title: str) -> None:
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    for true, row in enumerate(matrix):
        for said, share in enumerate(row):
            if share >= 0.05:
                axes.text(
                    said, true, f"{share:.0%}"[:-1], ha="center", va="center", fontsize=6,
                    color="white" if share > 0.5 else "black",
                )  # fmt: skip
    axes.set(title=title, xlabel="prediction", xticks=range(len(matrix)), yticks=range(len(matrix)))
    axes.set_ylabel("digit")
