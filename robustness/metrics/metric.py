"""What a metric is: one object that measures, has a chance level, and says what it requires."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustness.errors import RobustnessError
from robustness.metrics.confusion import Matrix
from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import Interval

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class MetricError(RobustnessError, ValueError):
    """A metric that does not exist, or that the evidence does not allow: the reason and the repair."""


@dataclass(frozen=True)
class Measurement:
    """
    A metric's value on some images, with an interval and the method it comes from.

    `n` is the denominator in images; `successes` is there where images are counted. A value of NaN (a dash in tables,
    a failed claim) has its reason in `note`. `metric` is the name as it was asked for, with its class.
    """

    value: float
    interval: Interval
    method: Literal["wilson", "delta", "normal", "delong", "influence"]
    n: int
    successes: int | None = None
    note: str = ""
    metric: str = ""


class ChanceLevel(NamedTuple):
    """
    The number that a claim has to beat, and two that it comes from.

    `constant` is the best of the classifiers that give every image the same class, `guess` the expectation of one that
    guesses uniformly at random, over the guesses for which the metric is defined. `value` is the best of them and of
    one that guesses each class as often as the labels have it: the largest, if less is better the smallest.
    """

    value: float
    constant: float
    guess: float


UNKNOWN_CHANCE = ChanceLevel(math.nan, math.nan, math.nan)


class Counted(NamedTuple):
    """Which images count, (N,), among which, (N,), and why there may be none of the latter."""

    hits: Flags
    among: Flags
    reason: str = "no images"


class Influence(NamedTuple):
    """
    A metric's value and how much each image moves it: what a gate compares two models by.

    `per_image`, (N,), has mean zero; `largest` is how much one image could move the value at most. A `value` of NaN
    says that there is nothing to divide by.
    """

    value: float
    per_image: Floats
    largest: float
    method: Literal["delta", "delong"] = "delta"


class RateEstimate(NamedTuple):
    """
    A rate of a confusion matrix, its denominator in images, and what its interval needs.

    That is the count of successes where images are counted, else the gradient by the cells' probabilities.
    """

    value: float
    n: int
    successes: int | None = None
    gradient: Floats | None = None
    note: str = ""


Measure = Callable[[Evidence, int, int | None, float], Measurement]
Count = Callable[[Evidence, int, int | None], Counted | None]
Influences = Callable[[Evidence, int, int | None], Influence]
Chance = Callable[[Counts, int | None], ChanceLevel]
Rate = Callable[[Matrix, int | None], RateEstimate]


@dataclass(frozen=True, eq=False, kw_only=True)
class Metric:
    """
    Everything about one metric.

    `rate_metric` makes one from a function of the confusion matrix, `counted_metric` one that counts images; others
    bring `measure`. Functions take the evidence, the row of the strength, and the class's index or None.
    """

    name: str
    """How cards and reports call it: letters, digits and ``_``."""
    description: str
    measure: Measure
    """Measures it, with an interval of the confidence that comes last; MetricError where the evidence lacks a thing."""
    chance_level: Chance | None = None
    """What a classifier that knows nothing gets, by the images per class, (K,); without it no claim is ever held."""
    influence: Influences | None = None
    """How much each image moves it; without it a gate cannot hold it."""
    count: Count | None = None
    """Which images it counts, if it does: a gate then counts the changes between two models. None for a class's or an
    average's that is not counted."""
    rate: Rate | None = None
    """How it follows from a confusion matrix, if it does."""

    better: Literal["higher", "lower"] = "higher"
    limits: tuple[float, float] = (0.0, 1.0)
    """The least and the largest value that it can have."""
    takes_class: bool = False
    """Whether ``name[CLASS]`` is the metric of one class."""
    claimable: bool = True
    """Whether a card may claim it."""

    needs_clean_evidence: bool = False
    """Whether it compares with the images before the perturbation; it has no meaning on these."""
    needs_source: bool = False
    """Whether it needs evidence of the model that the examples were made on."""
    needs_detector: bool = False
    """Whether it needs a decision with an attack probability."""
    needs_probabilities: bool = False
    """Whether it needs the probability of every class."""
    over_strengths: bool = False
    """Whether it is of the accuracies at several strengths."""
    baseline_scores: Literal["", "attack_probability", "probabilities"] = ""
    """The scores of evidence that a gate's baseline stores for it, beside classes and what is discarded."""

    requires_claims: tuple[str, ...] = ()
    """The metrics of the clean images that a claim on it counts only together with."""
    required_because: str = ""
    """Why claims that require this one count only beside it: who would keep them else."""
    requires_detection_claim: bool = False
    """Whether a decision that never discards has the best value: another claim of the detector must stand beside it."""
    perfect_by_constant: bool = False
    """Whether one class's is best for the classifier that always takes this class: its chance level is that of a
    guesser who does not favour the class, and the card must claim something else beside it."""
    complement_of: str = ""
    """A metric of the clean images of which a decision that discards by chance gets what is left to 1."""

    @property
    def family(self) -> str | None:
        """The family of a claim on it, where that is not its perturbation's."""
        return "detection" if self.needs_detector or self.over_strengths else None


def known_chance(value: float, images: Counts, label: int | None) -> ChanceLevel:
    """Return a chance level that does not depend on the labels; `partial(known_chance, 0.5)` is a metric's."""
    return ChanceLevel(value, value, value)
