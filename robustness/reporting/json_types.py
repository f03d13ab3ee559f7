"""JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robustness.reporting.report_types import encodable, finite


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
