"""What the page of eyes-parseval begins with: what came out, and published numbers beside measured ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reports.eyes_parseval.criteria import drops, published
from reports.eyes_parseval.protocol import DENSE, NATURAL, SYSTEMS
from reports.eyes_parseval.published import NAMES, printed
from reports.rows import Measured
from reports.verdicts import Verdict, counted
from reports.writing import ANOTHER_PROCESSOR, seeds, table


def short(result: Mapping[str, Any], numbers: Measured, judged: Sequence[Verdict]) -> str:
    """Return the lines that the page begins with."""
    about, plan = result["provenance"], result["plan"]
    crops = sum(data["n"] for data in about["data"].values())
    missing = [NAMES[system] for system in DENSE if not numbers.folds(system, "clean", "accuracy")]
    missing += [] if any(numbers.strengths(kind) for kind in NATURAL) else ["natural changes"]
    lines = [
        f"Scale **{result['scale']}**: {result['folds']} of {result['folds_of_the_protocol']} folds, {plan['epochs']} "
        f"epochs, {seeds(result)}; {about['device']}, {about['cores']} cores; {crops:,} crops tested in all.",
        f"**Data: {result['about']}.** Two states are easier than four, so the size of an accuracy compares with "
        "nothing published; only orders do.",
        f"Claims: {counted(judged)}.",
        *(f"{outcome[0].upper()}{outcome[1:]}: {'; '.join(claims)}." for outcome, claims in _by_outcome(judged)),
        *([f"Not measured yet: {', '.join(missing)}."] if missing else []),
        ANOTHER_PROCESSOR,
    ]
    return "## what came out\n\n" + "\n".join(f"- {line}" for line in lines) + "\n\n" + _beside(numbers)


def _by_outcome(judged: Sequence[Verdict]) -> list[tuple[str, list[str]]]:
    return [
        (outcome, [verdict.claim for verdict in judged if verdict.outcome == outcome])
        for outcome in ("reproduced", "not reproduced")
        if any(verdict.outcome == outcome for verdict in judged)
    ]


def _beside(numbers: Measured) -> str:
    rows = []
    for system in SYSTEMS:
        there = printed()["table_8"][system]
        clean = numbers.mean(system, "clean", "accuracy")
        under = numbers.mean(system, published(system), "accuracy", "33")
        lost = drops(numbers, system, published(system))
        own = [clean, under, sum(lost) / len(lost) if lost else math.nan]
        both = zip((there[0], there[4], there[1] - there[4]), own, strict=True)
        cells = [cell for pair in both for cell in ("–" if math.isnan(value) else f"{value:.3f}" for value in pair)]
        rows.append([NAMES[system], *cells])
    heads = [
        "model",
        "clean, published",
        "here",
        "33 dB, published",
        "here",
        "lost from 50 to 33 dB, published",
        "here",
    ]
    return table(heads, rows)
