"""The page of signs-adversarial, made from its result file alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reports.verdicts import Verdict, decided, listed
from reports.writing import number, table

MODULE = "reports.signs_adversarial"
LIMIT = 8 / 255
"""The usual budget in L∞."""
Result = Mapping[str, Any]


def accuracy(result: Result, role: str, sweep: str, strength: str = "0") -> float:
    """Give an accuracy; NaN where it was not measured."""
    for row in result["rows"]:
        if (row["role"], row["sweep"], row["strength"]) == (role, sweep, strength) and row["accuracy"] is not None:
            return float(row["accuracy"])
    return math.nan


def strengths(result: Result, sweep: str) -> list[str]:
    """Give the strengths of a sweep, in their order."""
    return sorted({row["strength"] for row in result["rows"] if row["sweep"] == sweep} - {"0"}, key=float)


def verdicts(result: Result) -> list[Verdict]:
    """
    Judge the project's criteria: the document prints no number.

    A number that is missing holds nothing.
    """
    before, after = (accuracy(result, role, "clean") for role in ("before", "after"))
    scale = result["scale"]
    found = [
        decided(
            "the network reaches 95 % on the official test set",
            {"before": before},
            before >= 0.95,
            kind="level",
            scale=scale,
        ),
        decided(
            "adversarial training costs at most 3 points there",
            {"before": before, "after": after},
            before - after <= 0.03,
            kind="level",
            scale=scale,
        ),
    ]
    for sweep in ("fgsm", "pgd"):
        names = [name for name in strengths(result, sweep) if float(name) <= LIMIT + 1e-3]
        last = names[-1] if names else ""
        plain, trained = (accuracy(result, role, sweep, last) for role in ("before", "after"))
        numbers = {"without attack": before, "before": plain, "after": trained}
        for claim, holds in (
            (f"{sweep} at ε {last} halves the accuracy", plain <= 0.5 * before),
            (f"adversarial training wins back half of that ({sweep})", _back(before, plain, trained)),
        ):
            found.append(decided(claim, numbers, holds, kind="level", scale=scale))
    return found


def _back(clean: float, plain: float, trained: float) -> bool:
    return trained - plain >= 0.5 * (clean - plain)


def body(result: Result) -> str:
    """Give everything below the heading of the page."""
    return "\n\n".join([_what(result), _claims(result), _accuracies(result), _origin(result)]) + "\n"


def _what(result: Result) -> str:
    told = result["provenance"]
    return (
        f"## What was measured\n\nScale **{result['scale']}**: tested on {told['data']['n']:,} images "
        f"({told['data']['name']}), trained on {told['trained_on']['n']:,}, seed 0, {told['device']}. In brackets the "
        "95 % interval, by Wilson's formula."
    )


def _claims(result: Result) -> str:
    return "## The project's criteria\n\nThe document prints no number.\n\n" + listed(verdicts(result), own=True)


def _accuracies(result: Result) -> str:
    rows = [["none", "0", *(_shown(result, role, "clean", "0") for role in ("before", "after"))]]
    for sweep in dict.fromkeys(row["sweep"] for row in result["rows"]):
        if sweep != "clean":
            rows += [
                [sweep, name, *(_shown(result, role, sweep, name) for role in ("before", "after"))]
                for name in strengths(result, sweep)
            ]
    heads = ["attack, white box", "ε", "before adversarial training", "after"]
    return "## Accuracy before and after adversarial training\n\n" + table(heads, rows)


def _shown(result: Result, role: str, sweep: str, strength: str) -> str:
    for row in result["rows"]:
        if (row["role"], row["sweep"], row["strength"]) == (role, sweep, strength):
            if row["accuracy"] is None:
                return f"– ({row['status']})"
            low, high = row["interval"]
            return f"{number(row['accuracy'])} [{number(low)}, {number(high)}], n = {row['n']:,}"
    return "–"


def _origin(result: Result) -> str:
    told = result["provenance"]
    versions = ", ".join(f"{name} {value}" for name, value in told["versions"].items())
    rows = [
        [
            name,
            about["epochs"] or "–",
            number(about["held_out_accuracy"]),
            number(about["seconds"], 0),
            about["weights"][:12],
        ]
        for name, about in result["models"].items()
    ]
    doubts = sorted({doubt for about in result["evidence"].values() for doubt in about["doubts"]})
    said = f" **Doubts:** {'; '.join(doubts)}." if doubts else ""
    return (
        f"## Where this comes from\n\nMade {told['made']} by `python -m {MODULE}` on {told['device']}, {told['cores']} "
        f"cores; {versions}. The result file holds key and digest of all evidence.{said}\n\n"
    ) + table(["model", "epochs", "accuracy on held-out tracks", "seconds", "weights"], rows)
