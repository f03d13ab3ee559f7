"""Types in all parts of a report: outcomes, encodable text, finite numbers, JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

Outcome = Literal["passed", "failed", "error", "vacuous", "waived", "skipped", "not run"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
RED = ("failed", "error", "vacuous", "not run")
UNRUN = ("skipped", "not run")

GateFate = Literal["passed", "failed", "inconclusive", "error", "skipped", "not run"]
GATE_FATES: tuple[GateFate, ...] = get_args(GateFate)
UNDECIDED = 10
"""The exit code of a run in which only gates are inconclusive; pytest's own codes end at 5."""
SKIPPED = 11
"""The exit code of a run in which nothing failed, but requested claims or gates were skipped for want of data."""

Verdict = Literal["passed", "partial", "failed", "measured"]
DECISIONS: dict[str, str] = {"passed": "GO", "failed": "NO-GO"}
"""What each verdict means for a release; any other is `NOT_DECIDED`."""
NOT_DECIDED = "NOT DECIDED"


def encodable(text: Any) -> Any:
    r"""Return text that UTF-8 can encode; lone surrogates, as in undecodable file names, are escaped.

    >>> encodable("lost \udc80 byte"), encodable(3)
    ('lost \\udc80 byte', 3)
    """
    return text.encode(errors="backslashreplace").decode() if isinstance(text, str) else text


def finite(number: Any) -> Any:
    """
    Return a number, or None if JSON cannot represent it.

    >>> finite(0.5), finite(math.nan), finite(None)
    (0.5, None, None)
    """
    return None if isinstance(number, float) and not math.isfinite(number) else number


def iso_time(text: str) -> str:
    """Return a date and time unchanged; ValueError if it is invalid."""
    datetime.fromisoformat(text)
    return text


Text = Annotated[str, BeforeValidator(encodable)]
Time = Annotated[Text, AfterValidator(iso_time)]
Finite = Annotated[float | None, BeforeValidator(finite)]


class ReportPart(BaseModel):
    """
    A table of the report's JSON.

    Unknown keys of later versions are kept. An unset key is not written, so a report that is read and written again
    keeps its keys.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, populate_by_name=True)

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def plain(value: Any) -> Any:
    """
    Convert a value to JSON types; a number that is not finite becomes null, an unknown type its text.

    >>> plain({"seconds": np.float32(0.5), "threads": (1, np.int64(2)), 3: float("inf")})
    {'seconds': 0.5, 'threads': [1, 2], '3': None}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {encodable(str(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return encodable(str(value))
