"""Differences between two nested values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def diff_nested(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """
    List every difference between two nested values, a line each.

    >>> diff_nested({"data": {"images": 600}, "seed": 0}, {"data": {"images": 200}, "seed": 0})
    ['data.images: 600 and 200']
    """
    was, now = dict(_leaves(one)), dict(_leaves(other))
    pairs = {place: (was.get(place, "nothing"), now.get(place, "nothing")) for place in (*was, *now)}
    return [f"{place}: {_short(a)} and {_short(b)}" for place, (a, b) in pairs.items() if a != b]


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}.{key}" if place else str(key))
    else:
        # Numbers that a file has kept are the same ones, but a tuple comes back as a list.
        yield place, list(value) if isinstance(value, tuple | list | np.ndarray) else value


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"
