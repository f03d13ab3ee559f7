"""Objects that other installed packages add by entry points, loaded by name on first use."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection
from functools import cache
from importlib.metadata import EntryPoint
from typing import TypeVar

T = TypeVar("T")


class EntryPointError(Exception):
    """An entry point that cannot be used, with its distribution, the reason and the repair."""


@cache
def _entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Return a group's entry points; once per process, because it reads the metadata of every distribution."""
    return tuple(importlib.metadata.entry_points(group=group))


def names(group: str) -> tuple[str, ...]:
    """Return the names of a group's entry points, without loading any."""
    return tuple(dict.fromkeys(point.name for point in _entry_points(group)))


def distributions(group: str, name: str) -> str:
    """Return the distributions that have an entry point of this name, for messages."""
    return " and ".join(_distribution(point) for point in _entry_points(group) if point.name == name)


def load(group: str, name: str, kind: type[T], built_in: Collection[str] = ()) -> T:
    """
    Load the object of an entry point.

    Args:
        group: The entry point's group, as "robustness.metrics".
        name: One of `names(group)`.
        kind: The object's class.
        built_in: Names that entry points must not use.

    Returns:
        The object.

    Raises:
        EntryPointError: If the name is built in, if two distributions use it, if the object cannot be imported, or if
            it has another class.
    """
    points = [point for point in _entry_points(group) if point.name == name]
    who, what = distributions(group, name), f"{name!r} of the entry points {group!r}"
    if name in built_in:
        raise EntryPointError(f"{what} is built in, and {who} adds another; rename that one, or uninstall {who}")
    if len(points) > 1:
        raise EntryPointError(f"{what} is added by {who}; uninstall all but one")
    try:
        loaded = points[0].load()
    except Exception as error:  # whatever another package raises while it is imported
        raise EntryPointError(
            f"{what} could not be loaded from {points[0].value} of {who}: {type(error).__name__}: {error}; "
            f"repair or uninstall {who}"
        ) from error
    if not isinstance(loaded, kind):
        raise EntryPointError(
            f"{what} must be a {kind.__name__}, got a {type(loaded).__name__} from {points[0].value} of {who}; "
            f"name an object in it, or uninstall {who}"
        )
    return loaded


def _distribution(point: EntryPoint) -> str:
    return "an unknown distribution" if point.dist is None else f"{point.dist.name} {point.dist.version}"
