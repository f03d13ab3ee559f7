"""
The outcome of a paper's claims, by criteria that its package states, and by one rule.

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
OWN = {"reproduced": "holds", "not reproduced": "does not hold"}


class Verdict(NamedTuple):
    """A claim of a paper, its outcome, the numbers that show it, and the kind of its criterion."""

    claim: str
    outcome: Outcome
    numbers: str
    kind: Kind


def decided(
    claim: str, values: Mapping[str, float], holds: bool, *, kind: Kind, scale: str, testable: bool = True
) -> Verdict:
    """
    Return the verdict on a claim.

    Args:
        claim: The claim in words.
        values: The measured numbers that decide it. A missing number (NaN) reproduces nothing.
        holds: Whether the numbers meet the criterion.
        kind: Whether the criterion asks for a level or an ordering.
        scale: Scale of the run.
        testable: False if the run lacks something else that the criterion needs, such as data or folds.

    Example:
        >>> decided("b is larger", {"a": 0.25, "b": 0.5}, True, kind="ordering", scale="short")
        Verdict(claim='b is larger', outcome='reproduced', numbers='a 0.2500, b 0.5000', kind='ordering')
        >>> decided("b is 0.5", {"b": 0.5}, True, kind="level", scale="short").outcome
        'not testable here'
        >>> decided("b is 0.5", {"b": math.nan}, True, kind="level", scale="full").outcome
        'not reproduced'
    """
    numbers = ", ".join(
        f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4f}" for name, value in values.items()
    )
    known = all(math.isfinite(value) for value in values.values())
    outcome: Outcome = "reproduced" if known and holds else "not reproduced"
    able = testable and kind in JUDGED.get(scale, ())
    return Verdict(claim, outcome if able else "not testable here", numbers, kind)


def pending(verdict: Verdict, missing: Collection[str]) -> Verdict:
    """Return a verdict whose numbers are ``missing`` in part as not measured yet; one that is not testable stays so."""
    if not missing:
        return verdict
    outcome: Outcome = "not measured yet" if verdict.outcome != "not testable here" else verdict.outcome
    return verdict._replace(outcome=outcome, numbers=f"{', '.join(missing)} not measured yet")


def counted(verdicts: Iterable[Verdict]) -> str:
    """
    Count the outcomes in words.

    >>> counted([Verdict("a", "reproduced", "", "level"), Verdict("b", "reproduced", "", "level")])
    '2 reproduced'
    """
    counts = Counter(verdict.outcome for verdict in verdicts)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def listed(verdicts: Iterable[Verdict], *, own: bool = False) -> str:
    """Write the rule and the verdicts as a table; ``own`` if the criteria are the project's, not the document's."""
    words: Mapping[str, str] = OWN if own else {}
    rows = [[v.claim, v.kind, f"**{words.get(v.outcome, v.outcome)}**", v.numbers] for v in verdicts]
    return f"{RULE}\n\n" + table(["claim", "criterion", "", "numbers"], rows)
