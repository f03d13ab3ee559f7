"""The kinds of damage, their levels from slight to fatal, and what each level means; known without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from robustness.errors import RobustnessError, nearest
from robustness.util import source_files

ALL = math.inf
"""A level of as many as there are."""

Done = Literal["weights", "inputs", "outputs", "training"]


class MutationError(RobustnessError):
    """A damage that there is not, or a level that cannot be."""


@dataclass(frozen=True)
class MutationOperator:
    """
    One way to damage a classifier: ``done`` to its weights, inputs or outputs, or to the data that it is trained on.

    ``levels`` rise from slight to fatal, in whatever direction the number goes; ``least`` and ``most`` bound them.
    """

    name: str
    done: Done
    title: str
    says: str
    levels: tuple[float, ...]
    least: float
    most: float
    whole: bool = False

    def level(self, text: str) -> float:
        """
        Read one level.

        >>> KINDS["rounding"].level("4"), KINDS["classes"].level("all")
        (4.0, inf)
        """
        try:
            level = ALL if self.most == ALL and text == "all" else float(text)
        except ValueError:
            level = math.nan
        fits = self.least <= level <= self.most and (not self.whole or level in (ALL, round(level, 0)))
        if not fits:
            most = "all" if self.most == ALL else f"{self.most:g}"
            raise MutationError(
                f"a level of {self.name} must be a {'whole ' if self.whole else ''}number from {self.least:g} to "
                f"{most}, got {text!r}; it means: {self.says.format(level='LEVEL')}"
            )
        return level

    def worst_first(self, levels: tuple[float, ...]) -> tuple[float, ...]:
        """
        Put levels in order, the worst first.

        >>> KINDS["data"].worst_first((0.2, 0.5, 0.1))
        (0.1, 0.2, 0.5)
        """
        return tuple(sorted(set(levels), reverse=self.levels[0] < self.levels[-1]))


_ALL = (
    MutationOperator(
        "noise", "weights", "weight noise", "noise of {level} deviations", (0.3, 0.5, 0.7, 1.0, 1.4), 0, 100
    ),
    MutationOperator(
        "pruning", "weights", "pruning", "the smallest {level} of the weights zero", (0.5, 0.7, 0.8, 0.9, 0.95), 0, 1
    ),
    MutationOperator(
        "rounding", "weights", "rounding of weights", "weights of {level} bits", (8, 4, 3, 2), 2, 16, whole=True
    ),
    MutationOperator(
        "data", "training", "fewer data", "trained on {level} of the images", (0.5, 0.2, 0.1, 0.05), 0.001, 1
    ),
    MutationOperator(
        "labels", "training", "shifted labels", "{level} of the labels off by one", (0.05, 0.1, 0.2, 0.4), 0, 1
    ),
    MutationOperator(
        "classes", "outputs", "permuted classes", "{level} classes one place on", (2, 3, ALL), 1, ALL, whole=True
    ),
    MutationOperator(
        "normalisation", "inputs", "wrong normalisation", "{level} subtracted", (0.05, 0.1, 0.2, 0.4), 0, 1
    ),
    MutationOperator("layer", "weights", "last layer drawn anew", "{level} of the way", (0.25, 0.5, 0.75, 1.0), 0, 1),
)

KINDS = {kind.name: kind for kind in _ALL}
"""To add a kind: a line here, and what it does in `applying` or, of a training's data, in `training`."""


@dataclass(frozen=True)
class Mutation:
    """One kind of damage at one level; ``seed`` is of what is drawn for it."""

    kind: str
    level: float
    seed: int = 0

    @property
    def of(self) -> MutationOperator:
        """What kind it is."""
        return KINDS[self.kind]

    @property
    def described(self) -> dict[str, Any]:
        """What evidence of a model so damaged depends on, beside the model; of a training its weights tell it."""
        if self.of.done == "training":
            return {}
        level = "all" if self.level == ALL else self.level
        code = source_files.content_hash(Path(__file__).with_name("operators.py"))
        return {"damage": {"kind": self.kind, "level": level, "seed": self.seed, "code": code}}

    def __str__(self) -> str:
        return self.of.says.format(level="all" if self.level == ALL else f"{self.level:g}")


def read(text: str) -> tuple[MutationOperator, tuple[float, ...]]:
    """
    Read a kind of damage and its levels, as ``noise`` or ``noise=0.5,1``; DamageError says what there is.

    >>> read("pruning=0.5,0.9")[1], read("rounding")[1]
    ((0.5, 0.9), (8, 4, 3, 2))
    """
    name, given, levels = text.partition("=")
    if name not in KINDS:
        raise MutationError(f"damage must be one of {', '.join(KINDS)}, got {name!r}{nearest(name, KINDS)}")
    kind = KINDS[name]
    return kind, tuple(kind.level(each.strip()) for each in levels.split(",")) if given else kind.levels
