"""What the digits-noise paper prints, what follows from it, and where it contradicts itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from reports import writing

PRINTED = writing.printed("digits_noise")
AMPLITUDES: list[float] = PRINTED["amplitudes"]
# Tables 5 to 8 by the names of the metrics, and the columns of table 3 by epochs.
CURVES: dict[str, list[float]] = PRINTED["curves"]
EPOCHS: dict[int, dict[str, float]] = {int(epochs): column for epochs, column in PRINTED["epochs"].items()}
# Tables 1 and 2 by epochs; rows are the true digit.
CONFUSION = {int(epochs): np.array(rows, np.int64) for epochs, rows in PRINTED["confusion"].items()}
GROUPS: dict[int, dict[int, float]] = {
    int(true): {int(other): share for other, share in drawn.items()} for true, drawn in PRINTED["groups"].items()
}
# Pairs of a digit and a wrong class.
PAIRS = {(true, wrong) for true, drawn in GROUPS.items() for wrong in drawn}
# Table 9, another paper's.
OTHER = PRINTED["other"]["classes"]
# The digit whose precision, recall and F1 the paper prints as if they were the system's.
DIGIT = 0


def harmonic(precision: float, recall: float) -> float:
    """Return F1."""
    return 2 * precision * recall / (precision + recall)


def attractors(top: int = 4) -> list[tuple[int, float]]:
    """
    Rank the classes by their share of the incorrect predictions of table 5 at V = 1, which the groups imply.

    >>> [digit for digit, _ in attractors()]
    [5, 2, 3, 7]
    """
    drawn = {digit: sum(group.get(digit, 0.0) for group in GROUPS.values()) / len(GROUPS) for digit in GROUPS}
    errors = 1 - CURVES["accuracy"][-1]
    return sorted(((digit, share / errors) for digit, share in drawn.items()), key=lambda pair: -pair[1])[:top]


def contradictions() -> dict[str, Any]:
    """Return the numbers by which the text disagrees with its own tables."""
    ten, five = CONFUSION[10], EPOCHS[5]
    listed = sum(sum(drawn.values()) for drawn in GROUPS.values()) / len(GROUPS)
    accuracies = dict(zip(AMPLITUDES, CURVES["accuracy"], strict=True))
    return {
        "digit": DIGIT, "hits": ten[DIGIT, DIGIT], "row": ten[DIGIT].sum(), "column": ten[:, DIGIT].sum(),
        "columns": ten.sum(axis=0), "five": five, "five_f1": harmonic(five["precision[0]"], five["recall[0]"]),
        "listed": listed, "first": min(v for v, accuracy in accuracies.items() if accuracy + listed <= 1),
        "accuracies": accuracies,
        "off": ", ".join(digit for digit, (p, r, f1, _) in OTHER.items() if abs(harmonic(p, r) - f1) > 0.002),
    }  # fmt: skip
