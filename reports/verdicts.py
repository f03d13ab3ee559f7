"""What came of a paper's claims: decided by criteria that were written before any run was looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from reports.writing import table

Outcome = Literal["reproduced", "not reproduced", "not testable here", "not measured yet"]


class Verdict(NamedTuple):
    """What a paper says, whether it came out so, and the numbers that say so."""

    claim: str
    outcome: Outcome
    numbers: str


def decided(claim: str, values: Mapping[str, float], holds: bool, *, testable: bool = True) -> Verdict:
    """
    Give a verdict; a number that is missing (NaN) reproduces nothing.

    >>> decided("b is larger", {"a": 0.25, "b": 0.5}, True)
    Verdict(claim='b is larger', outcome='reproduced', numbers='a 0.2500, b 0.5000')
    >>> decided("b is larger", {"a": 0.25, "b": math.nan}, True).outcome
    'not reproduced'
    """
    numbers = ", ".join(
        f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4f}" for name, value in values.items()
    )
    known = all(math.isfinite(value) for value in values.values())
    outcome: Outcome = "reproduced" if known and holds else "not reproduced"
    return Verdict(claim, outcome if testable else "not testable here", numbers)


def listed(verdicts: Iterable[Verdict]) -> str:
    """Write verdicts as a table."""
    return table(["claim", "", "numbers"], [[v.claim, f"**{v.outcome}**", v.numbers] for v in verdicts])
