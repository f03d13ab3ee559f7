"""Values as JSON has them, and text from elsewhere made harmless where it is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """
    Return a value in JSON's types alone; a number that is not finite becomes null, anything unknown its text.

    >>> plain({"seconds": np.float32(0.5), "threads": (1, np.int64(2)), 3: math.inf})
    {'seconds': 0.5, 'threads': [1, 2], '3': None}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    # Half a surrogate pair, as in a file's undecodable name, could not be written as UTF-8.
    return str(value).encode(errors="backslashreplace").decode()


def settled(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a measurement's plain numbers; `note` says why one that should be there is null.

    >>> settled({"value": math.nan, "note": "no images"})
    {'value': None, 'note': 'no images'}
    >>> settled({"value": 2.0, "low": math.nan, "high": math.nan, "note": ""})
    {'value': 2.0, 'low': None, 'high': None, 'note': 'no interval'}
    """
    given = {key: value.item() if isinstance(value, np.generic) else value for key, value in numbers.items()}
    value, low, note = given.get("value"), given.get("low"), str(given.get("note") or "")
    if isinstance(value, float) and not math.isfinite(value):
        note = note or ("not a number" if math.isnan(value) else "infinite")
    elif isinstance(low, float) and not math.isfinite(low):
        note = f"{note}; no interval" if note else "no interval"
    return {key: plain(value) for key, value in given.items()} | ({"note": plain(note)} if given else {})
