"""What the digits-noise paper printed, what follows from it, and where it contradicts itself."""

from __future__ import annotations

from functools import partial

import numpy as np

from reports import writing
from robustness.metrics.confusion import Matrix

load = partial(writing.printed, "digits_noise")

DIGIT = 0
"""The digit whose precision, recall and F1 the paper prints as if they were the system's."""


def confusion(epochs: int) -> Matrix:
    """
    Return table 1 (one epoch) or table 2 (ten); rows are the true digit.

    >>> print(confusion(10)[0].sum(), confusion(10)[:, 0].sum())
    1000 978
    """
    return np.array(load()["confusion"][str(epochs)], np.int64)


def groups() -> dict[int, dict[int, float]]:
    """
    Return the confusion groups as shares of a digit's images.

    >>> groups()[2]
    {3: 0.143, 5: 0.156}
    """
    return {
        int(true): {int(wrong): round(percent / 100, 6) for wrong, percent in drawn.items()}
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
    lost = zip(table["precision"]["values"], table["f1"]["values"], strict=True)
    return printed + [round(images * other_factor(f, p)) / images for p, f in list(lost)[len(printed) :]]


def other_factor(f1: float, factor: float) -> float:
    """
    Return the recall that F1 was made of, from its precision, or the precision from its recall.

    >>> round(other_factor(0.884153, 0.974699), 4)
    0.809
    """
    return f1 * factor / (2 * factor - f1)


def harmonic(precision: float, recall: float) -> float:
    """
    Return F1.

    >>> harmonic(0.988, 0.988)
    0.988
    """
    return 2 * precision * recall / (precision + recall)


def attractors(top: int = 4) -> list[tuple[int, float]]:
    """
    Rank the classes by what the groups say they draw, as a share of all wrong predictions of table 5 at V = 1.

    >>> [digit for digit, _ in attractors()]
    [5, 2, 3, 7]
    """
    listed = groups()
    drawn = {digit: sum(group.get(digit, 0.0) for group in listed.values()) / len(listed) for digit in listed}
    wrong = 1 - load()["accuracy"]["values"][-1]
    return sorted(((digit, share / wrong) for digit, share in drawn.items()), key=lambda pair: -pair[1])[:top]


def curves() -> dict[str, list[float]]:
    """Return tables 5 to 8 by the names that the same numbers have here."""
    table = load()
    return {
        "accuracy": table["accuracy"]["values"],
        f"precision[{DIGIT}]": table["precision"]["values"],
        f"recall[{DIGIT}]": recalls(),
        f"f1[{DIGIT}]": table["f1"]["values"],
    }


def after(epochs: int) -> dict[str, float]:
    """Return a column of table 3, by the names that the numbers have here; empty where there is none."""
    column = load()["epochs"].get(str(epochs), {})
    return {name if name == "accuracy" else f"{name}[{DIGIT}]": value for name, value in column.items()}


def contradictions() -> list[str]:
    """Say where the text disagrees with its own tables, with the numbers; one Markdown sentence or two each."""
    table = load()
    row, column = confusion(10)[DIGIT], confusion(10)[:, DIGIT]
    hits = row[DIGIT]
    five = table["epochs"]["5"]
    listed = sum(sum(drawn.values()) for drawn in groups().values()) / len(groups())
    accuracies = dict(zip(table["accuracy"]["V"], table["accuracy"]["values"], strict=True))
    first = min(v for v, accuracy in accuracies.items() if accuracy + listed <= 1)
    off = [d for d, (p, r, f, _) in table["other"]["classes"].items() if abs(harmonic(p, r) - f) > 0.002]
    return [
        f"**Precision, recall and F1 are digit {DIGIT}'s**, not the system's. Row {DIGIT} of table 2 holds {hits} of "
        f"{row.sum()}: a recall of {hits / row.sum():.3f}; its column sums to {column.sum()}: a precision of "
        f"{hits / column.sum():.4f}. Tables 3, 6, 7 and 8 print these two.",
        "**Rows are the true digit.** The text says that columns are the input images; but every row of tables 1 and 2 "
        f"sums to 1,000 images and the columns do not (those of table 2 sum to {confusion(10).sum(axis=0).min()} to "
        f"{confusion(10).sum(axis=0).max()}), and only with true digits in rows do table 3's numbers come out.",
        f"**F1 after five epochs** is printed as {five['f1']}, beside a precision and a recall of {five['precision']} "
        f"both, from which it follows as {harmonic(five['precision'], five['recall']):.3f}.",
        "**Table 7 ends at V = 0.3** in the text at hand. The recalls from 0.4 on (in italics in the table) follow "
        "from precision and F1 as R = F1·P / (2P − F1), and each comes out as a whole number of 1,000 images.",
        f"**At which V the groups were read is not said**, only “high noise”. They list {listed:.1%} of all images as "
        f"wrong, so accuracy was at most {1 - listed:.1%} there: by table 5 V was {first} or more. V = 1 is taken.",
        "**“10–30 % noise … about 80 %”** and “40–60 % … about 50–60 %”, says the text; table 5 says "
        f"{accuracies[0.1]} to {accuracies[0.3]} and {accuracies[0.4]} to {accuracies[0.6]}.",
        "**Which images were tested** is said three ways: a test set of 10,000, “images from the training set”, and "
        "1,000 a digit. MNIST's own test set has 892 fives, so the tables can only come from a balanced hold-out.",
        f"**Table 9** (another paper's) prints an F1 that its own precision and recall do not give for the digits "
        f"{', '.join(off)}; its “error rate” is 1 − F1.",
    ]
