"""What the values of options are, and what is wrong with others."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from robustness.mutations import kinds


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a function that parses a whole number from `least` to `most`."""

    def number(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return number


def seeds(text: str) -> list[int]:
    """
    Parse distinct seeds.

    >>> seeds("0,1,2,1")
    [0, 1, 2]
    """
    seed = whole_number(0, 2**63)
    return list(dict.fromkeys(seed(part.strip()) for part in text.split(",")))


def days(text: str) -> float:
    """Parse a number of days."""
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of days, 0 or more, got {text!r}")
    return days


def device(text: str) -> str:
    """Check the name of a device."""
    kind, _, number = text.partition(":")
    if text in ("cpu", "cuda", "auto") or (kind == "cuda" and number.isdecimal()):
        return text
    raise argparse.ArgumentTypeError(f"must be cpu, cuda, cuda:N or auto, got {text!r}")


def shape(text: str) -> tuple[int, int, int]:
    """
    Parse the shape of images.

    >>> shape("3,224,224")
    (3, 224, 224)
    """
    size, parts = whole_number(1, 2**16), text.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"must be channels, height and width, such as 3,224,224, got {text!r}")
    channels, height, width = (size(part.strip()) for part in parts)
    return channels, height, width


def share(text: str) -> float:
    """Parse a margin of error."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0.001 <= share < 0.5:
        raise argparse.ArgumentTypeError(
            f"must be a fraction from 0.001 to 0.5, such as 0.02 for two points, got {text!r}"
        )
    return share


def damage(text: str) -> tuple[str, tuple[float, ...]]:
    """
    Parse a kind of damage and its levels.

    >>> damage("noise=0.5,1")
    ('noise', (0.5, 1.0))
    """
    try:
        kind, levels = kinds.parse_mutation(text)
    except kinds.MutationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return kind.name, levels
