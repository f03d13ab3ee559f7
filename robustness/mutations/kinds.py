"""Mutation operators and their severity levels. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from robustness.errors import RobustnessError, nearest
from robustness.util import source_files

# The level that means all classes.
ALL = math.inf

MutationTarget = Literal["weights", "inputs", "outputs", "training"]


class MutationError(RobustnessError):
    """An unknown mutation operator, or an invalid level."""


@dataclass(frozen=True)
class MutationOperator:
    """
    One way to mutate a classifier: its weights, inputs or outputs, or the data that it is trained on.

    ``levels`` are in the order of severity, so their numbers may fall; ``minimum`` and ``maximum`` bound them.
    """

    name: str
    target: MutationTarget
    title: str
    template: str
    levels: tuple[float, ...]
    minimum: float
    maximum: float
    integer: bool = False

    def parse_level(self, text: str) -> float:
        """
        Parse one level.

        >>> KINDS["rounding"].parse_level("4"), KINDS["classes"].parse_level("all")
        (4.0, inf)
        """
        try:
            level = ALL if self.maximum == ALL and text == "all" else float(text)
        except ValueError:
            level = math.nan
        is_valid = self.minimum <= level <= self.maximum and (not self.integer or level in (ALL, round(level, 0)))
        if not is_valid:
            maximum = "all" if self.maximum == ALL else f"{self.maximum:g}"
            raise MutationError(
                f"a level of {self.name} must be a {'whole ' if self.integer else ''}number from {self.minimum:g} to "
                f"{maximum}, got {text!r}; it means: {self.template.format(level='LEVEL')}"
            )
        return level

    def most_severe_first(self, levels: tuple[float, ...]) -> tuple[float, ...]:
        """
        Sort levels by severity, the most severe first.

        >>> KINDS["data"].most_severe_first((0.2, 0.5, 0.1))
        (0.1, 0.2, 0.5)
        """
        return tuple(sorted(set(levels), reverse=self.levels[0] < self.levels[-1]))


_OPERATORS = (
    MutationOperator(
        "noise", "weights", "weight noise", "noise of {level} deviations", (0.3, 0.5, 0.7, 1.0, 1.4), 0, 100
    ),
    MutationOperator(
        "pruning", "weights", "pruning", "the smallest {level} of the weights zero", (0.5, 0.7, 0.8, 0.9, 0.95), 0, 1
    ),
    MutationOperator(
        "rounding", "weights", "rounding of weights", "weights of {level} bits", (8, 4, 3, 2), 2, 16, integer=True
    ),
    MutationOperator(
        "data", "training", "fewer data", "trained on {level} of the images", (0.5, 0.2, 0.1, 0.05), 0.001, 1
    ),
    MutationOperator(
        "labels", "training", "shifted labels", "{level} of the labels off by one", (0.05, 0.1, 0.2, 0.4), 0, 1
    ),
    MutationOperator(
        "classes", "outputs", "permuted classes", "{level} classes one place on", (2, 3, ALL), 1, ALL, integer=True
    ),
    MutationOperator(
        "normalisation", "inputs", "wrong normalisation", "{level} subtracted", (0.05, 0.1, 0.2, 0.4), 0, 1
    ),
    MutationOperator("layer", "weights", "last layer drawn anew", "{level} of the way", (0.25, 0.5, 0.75, 1.0), 0, 1),
)

# To add an operator: a line here, and its function in `operators` or, for training data, in `training_data`.
KINDS = {operator.name: operator for operator in _OPERATORS}


@dataclass(frozen=True)
class Mutation:
    """One mutation operator at one level; ``seed`` is the seed of its random draws."""

    kind: str
    level: float
    seed: int = 0

    @property
    def operator(self) -> MutationOperator:
        """The operator."""
        return KINDS[self.kind]

    @property
    def key_fields(self) -> dict[str, Any]:
        """Fields for the key of a mutated model's evidence; none for training data, whose weights differ anyway."""
        if self.operator.target == "training":
            return {}
        level = "all" if self.level == ALL else self.level
        code = source_files.content_hash(Path(__file__).with_name("operators.py"))
        return {"damage": {"kind": self.kind, "level": level, "seed": self.seed, "code": code}}

    def __str__(self) -> str:
        return self.operator.template.format(level="all" if self.level == ALL else f"{self.level:g}")


def parse_mutation(text: str) -> tuple[MutationOperator, tuple[float, ...]]:
    """
    Parse an operator and its levels, as ``noise`` or ``noise=0.5,1``; MutationError lists the operators.

    >>> parse_mutation("pruning=0.5,0.9")[1], parse_mutation("rounding")[1]
    ((0.5, 0.9), (8, 4, 3, 2))
    """
    name, has_levels, levels = text.partition("=")
    if name not in KINDS:
        raise MutationError(f"damage must be one of {', '.join(KINDS)}, got {name!r}{nearest(name, KINDS)}")
    operator = KINDS[name]
    return operator, tuple(
        operator.parse_level(level.strip()) for level in levels.split(",")
    ) if has_levels else operator.levels
