"""What every part of a report is made of: words for outcomes, text that can be written, numbers that are finite."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

Outcome = Literal["passed", "failed", "error", "vacuous", "waived", "skipped", "not run"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
RED = ("failed", "error", "vacuous", "not run")
UNRUN = ("skipped", "not run")

GateFate = Literal["passed", "failed", "inconclusive", "error", "skipped", "not run"]
GATE_FATES: tuple[GateFate, ...] = get_args(GateFate)
UNDECIDED = 10
"""The exit code of a run that is red only because gates decide nothing; pytest's own end at 5."""

Verdict = Literal["passed", "partial", "failed", "measured"]


def encodable(text: Any) -> Any:
    r"""
    Return text that can be written as UTF-8; half a surrogate pair, as in an undecodable file name, is escaped.

    >>> encodable("lost \udc80 byte"), encodable(3)
    ('lost \\udc80 byte', 3)
    """
    return text.encode(errors="backslashreplace").decode() if isinstance(text, str) else text


def finite(number: Any) -> Any:
    """
    Return a number, or None for one that JSON has not.

    >>> finite(0.5), finite(math.nan), finite(None)
    (0.5, None, None)
    """
    return None if isinstance(number, float) and not math.isfinite(number) else number


def iso_time(text: str) -> str:
    """Return a date and time as it is written; ValueError where it is none."""
    datetime.fromisoformat(text)
    return text


Text = Annotated[str, BeforeValidator(encodable)]
Time = Annotated[Text, AfterValidator(iso_time)]
Finite = Annotated[float | None, BeforeValidator(finite)]


class ReportPart(BaseModel):
    """
    A table of the report's JSON.

    Keys that a later version adds are kept. A key that was not set is not written, so that a report that is read and
    written again has the keys that it had.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, populate_by_name=True)

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON's types alone."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
