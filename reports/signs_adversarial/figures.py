"""Accuracy over ε, a line for every training and attack, with bars over the seeds; SVG, always the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.curves import line
from reports.rows import Measured, unpacked
from reports.signs_adversarial.protocol import ATTACKS, SYSTEMS

STYLES = {"fgsm": "-", "pgd": "--"}


def name(result: Mapping[str, Any]) -> str:
    """
    Return the name of a result's figure.

    >>> name({"source": "gtsrb", "scale": "full"})
    'signs-adversarial-gtsrb-full-accuracy.svg'
    """
    return f"signs-adversarial-{result['source']}-{result['scale']}-accuracy.svg"


def draw(result: Mapping[str, Any], folder: Path) -> Path:
    """Draw examples made on each network itself on the left, and on its undefended twin on the right."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    measured = Measured(result["source"], unpacked(result), result["scale"])
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name(result)
    with rc_context({"svg.hashsalt": "signs-adversarial", "font.size": 9}):
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _lines(left, measured, "")
        _lines(right, measured, "twin-")
        left.set(title="examples made on the network itself", ylabel="accuracy", ylim=(0, 1.02))
        right.set(title="examples made on its undefended twin")
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file


def _lines(axes: Any, measured: Measured, twin: str) -> None:
    """Draw over equal distances: each ε is twice the one before, and 0 has no logarithm."""
    strengths = [strength for strength in measured.strengths("fgsm") if float(strength)]
    for attack, title in ATTACKS.items():
        for i, (system, label) in enumerate(SYSTEMS.items()):
            cells = [("clean", "0"), *((f"{twin}{attack}", strength) for strength in strengths)]
            points = [
                (float(place), measured.folds(system, sweep, "accuracy", strength, "test"))
                for place, (sweep, strength) in enumerate(cells)
            ]
            if any(values for _, values in points[1:]):
                line(axes, points, f"{label}, {title}", i, linestyle=STYLES[attack])
    ticks = [f"{255 * float(strength):.0f}" for strength in ("0", *strengths)]
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlabel("ε in units of 1/255")
    axes.grid(alpha=0.3)
