"""What the digits-noise paper prints, what follows from it, and where it contradicts itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from reports import writing
from robustness.metrics.confusion import Matrix

load = partial(writing.printed, "digits_noise")
# The digit whose precision, recall and F1 the paper prints as if they were the system's.
DIGIT = 0


def confusion(epochs: int) -> Matrix:
    """
    Return table 1 (one epoch) or table 2 (ten); rows are the true digit.

    >>> print(confusion(10)[0].sum(), confusion(10)[:, 0].sum())
    1000 978
    """
    return np.array(load()["confusion"][str(epochs)], np.int64)


def groups() -> dict[int, dict[int, float]]:
    """
    Return the confusion groups as fractions of a digit's images.

    >>> groups()[2]
    {3: 0.143, 5: 0.156}
    """
    return {
        int(true): {int(other): round(percent / 100, 6) for other, percent in drawn.items()}
        for true, drawn in load()["groups"].items()
    }


def recalls() -> list[float]:
    """
    Return table 7; the rows that are lost from the text follow from precision and F1.

    Each is a count of 1,000 images: the quotient is rounded to the count, from which it is less than 0.01 off.

    >>> recalls()[3:6]
    [0.919, 0.809, 0.669]
    """
    table = load()
    printed: list[float] = table["recall"]["values"]
    images = table["images_per_digit"]
    lost = list(zip(table["precision"]["values"], table["f1"]["values"], strict=True))[len(printed) :]
    return printed + [round(images * f1 * p / (2 * p - f1)) / images for p, f1 in lost]


def harmonic(precision: float, recall: float) -> float:
    """
    Return F1.

    >>> harmonic(0.988, 0.988)
    0.988
    """
    return 2 * precision * recall / (precision + recall)


def attractors(top: int = 4) -> list[tuple[int, float]]:
    """
    Rank the classes by their share of the incorrect predictions of table 5 at V = 1, which the groups imply.

    >>> [digit for digit, _ in attractors()]
    [5, 2, 3, 7]
    """
    listed = groups()
    drawn = {digit: sum(group.get(digit, 0.0) for group in listed.values()) / len(listed) for digit in listed}
    errors = 1 - load()["accuracy"]["values"][-1]
    return sorted(((digit, share / errors) for digit, share in drawn.items()), key=lambda pair: -pair[1])[:top]


def curves() -> dict[str, list[float]]:
    """Return tables 5 to 8 by the names of the metrics."""
    table = load()
    names = {"accuracy": "accuracy", "precision": f"precision[{DIGIT}]", "recall": f"recall[{DIGIT}]"}
    printed = {name: table[key]["values"] for key, name in names.items()} | {f"f1[{DIGIT}]": table["f1"]["values"]}
    return printed | {f"recall[{DIGIT}]": recalls()}


def after(epochs: int) -> dict[str, float]:
    """Return a column of table 3, by the names of the metrics; empty if the paper has none."""
    column = load()["epochs"].get(str(epochs), {})
    return {name if name == "accuracy" else f"{name}[{DIGIT}]": value for name, value in column.items()}


def contradictions() -> dict[str, Any]:
    """Return the numbers by which the text disagrees with its own tables."""
    table = load()
    ten, five, hits = confusion(10), table["epochs"]["5"], confusion(10)[DIGIT, DIGIT]
    listed = sum(sum(drawn.values()) for drawn in groups().values()) / len(groups())
    accuracies = dict(zip(table["accuracy"]["V"], table["accuracy"]["values"], strict=True))
    other = table["other"]["classes"].items()
    return {
        "digit": DIGIT, "hits": hits, "row": ten[DIGIT].sum(), "column": ten[:, DIGIT].sum(),
        "columns": ten.sum(axis=0), "five": five, "five_f1": harmonic(five["precision"], five["recall"]),
        "listed": listed, "first": min(v for v, accuracy in accuracies.items() if accuracy + listed <= 1),
        "accuracies": accuracies,
        "off": ", ".join(digit for digit, (p, r, f1, _) in other if abs(harmonic(p, r) - f1) > 0.002),
    }  # fmt: skip
