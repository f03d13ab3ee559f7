"""
The outcome of a paper's claims, by criteria that its package states and by one rule.

Every criterion is of a kind. A *level* asks for a size: a number that the paper prints, or a bound on one curve. An
*ordering* asks which of two measured numbers is larger, or whether a curve rises or falls. Networks that are smaller,
or trained for a shorter time, than the paper's have other levels, so a reduced scale judges orderings alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple

from reports.writing import table

Kind = Literal["level", "ordering"]
Outcome = Literal["reproduced", "not reproduced", "not testable here", "not measured yet"]
# Kinds of criteria that a scale can judge. All other scales judge none: they check that the code runs.
JUDGED: Mapping[str, Collection[str]] = {"full": ("level", "ordering"), "medium": ("ordering",), "short": ("ordering",)}
RULE = (
    "A *level* asks for a size, an *ordering* which number is larger or "
    "whether a curve rises or falls. At a scale below the paper's a level is not testable, an ordering is judged."
)
# Words for criteria that are the project's, because the document states none.
PROJECT_WORDS = {"reproduced": "holds", "not reproduced": "does not hold"}
DECIDED = ("reproduced", "not reproduced")


class Criterion(NamedTuple):
    """
    A claim and the measured numbers that decide it.

    Attributes:
        kind: Whether it asks for a level or an ordering.
        claim: The claim in words.
        values: The numbers that decide it. A missing number (NaN) reproduces nothing.
        holds: Whether the numbers meet the criterion.
        testable: False if the run lacks something else that the criterion needs, such as data or folds.
        missing: What is not measured yet.
    """

    kind: Kind
    claim: str
    values: Mapping[str, float]
    holds: bool
    testable: bool = True
    missing: Collection[str] = ()


class Verdict(NamedTuple):
    """A claim of a paper, its outcome, the numbers that show it, and the kind of its criterion."""

    claim: str
    outcome: Outcome
    numbers: str
    kind: Kind


def judge(criterion: Criterion, scale: str) -> Verdict:
    """
    Return the verdict on a claim at a scale.

    >>> judge(Criterion("ordering", "b is larger", {"a": 0.25, "b": 0.5}, True), "short")
    Verdict(claim='b is larger', outcome='reproduced', numbers='a 0.2500, b 0.5000', kind='ordering')
    >>> judge(Criterion("level", "b is 0.5", {"b": 0.5}, True), "short").outcome
    'not testable here'
    >>> judge(Criterion("level", "b is 0.5", {"b": math.nan}, True), "full").outcome
    'not reproduced'
    """
    kind, claim, values, holds, testable, missing = criterion
    if missing:
        numbers = f"{', '.join(missing)} not measured yet"
    else:
        shown = {name: value if isinstance(value, int) else f"{value:.4f}" for name, value in values.items()}
        numbers = ", ".join(f"{name} {value}" for name, value in shown.items())
    outcome: Outcome
    if not testable or kind not in JUDGED.get(scale, ()):
        outcome = "not testable here"
    elif missing:
        outcome = "not measured yet"
    else:
        outcome = "reproduced" if holds and all(map(math.isfinite, values.values())) else "not reproduced"
    return Verdict(claim, outcome, numbers, kind)


def count_outcomes(verdicts: Iterable[Verdict], *, words: Mapping[str, str] | None = None) -> str:
    """Count the outcomes in words; ``words`` replaces some of them."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    return ", ".join(f"{count} {(words or {}).get(outcome, outcome)}" for outcome, count in counts.items())


def by_outcome(verdicts: Iterable[Verdict]) -> dict[str, list[str]]:
    """Return the claims that are reproduced and those that are not."""
    claims: dict[str, list[str]] = {outcome: [] for outcome in DECIDED}
    for verdict in verdicts:
        claims.get(verdict.outcome, []).append(verdict.claim)
    return {outcome: those for outcome, those in claims.items() if those}


def verdict_table(verdicts: Iterable[Verdict], *, words: Mapping[str, str] | None = None) -> str:
    """Write the rule and the verdicts as a table."""
    rows = [[v.claim, v.kind, f"**{(words or {}).get(v.outcome, v.outcome)}**", v.numbers] for v in verdicts]
    return f"{RULE}\n\n" + table(["claim", "criterion", "", "numbers"], rows)
