"""A metric is one object: its measurement, chance level, influence per image and requirements."""

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
    """The metric does not exist, or the evidence does not allow it."""


@dataclass(frozen=True)
class Measurement:
    """
    A metric's value on some images, with an interval and the method it comes from.

    `n` is the denominator in images; `successes` is set if images are counted. A value of NaN (a dash in tables,
    a failed claim) has its reason in `note`. `metric` is the name with its class, as a card writes it. With the method
    "bounds" the value is NaN because a sweep stopped early, and the interval has the smallest and the largest value
    that the untried images leave possible.
    """

    value: float
    interval: Interval
    method: Literal["wilson", "delta", "normal", "delong", "influence", "bootstrap", "bounds"]
    n: int
    successes: int | None = None
    note: str = ""
    metric: str = ""


class ChanceLevel(NamedTuple):
    """
    The value that a claim must exceed, and its two parts.

    `constant` is the value of the best constant classifier, `guess` the expectation of uniform random guessing, over
    the guesses for which the metric is defined. `value` is the best of these two and of guessing by the labels' shares:
    the largest, or the smallest if lower is better.
    """

    value: float
    constant: float
    guess: float


UNKNOWN_CHANCE = ChanceLevel(math.nan, math.nan, math.nan)


class Counted(NamedTuple):
    """A share of images: those that count, (N,), among others, (N,), and the reason if there are no others."""

    hits: Flags
    among: Flags
    reason: str = "no images"


class Influence(NamedTuple):
    """
    A metric's value and each image's influence on it; a gate compares two models by it.

    `per_image`, (N,), has mean zero: the value without image i is about ``value - per_image[i] / N``. `largest` bounds
    the influence of any image. The `value` is NaN if there is nothing to divide by.
    """

    value: float
    per_image: Floats
    largest: float
    method: Literal["delta", "delong"] = "delta"


class RateEstimate(NamedTuple):
    """
    A rate of a confusion matrix, its denominator in images, and what its interval is computed from.

    That is the number of successes if images are counted, else the gradient by the cells' probabilities, (K, K).
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
    One metric: its measurement, its chance level, its influence per image for gates, and its requirements.

    `rate_metric` builds one from a function of the confusion matrix, `counted_metric` from a function that counts
    images; any other brings its own `measure`. The functions take the evidence, the row of the strength, and the index
    of a class, or None for the metric of all classes.
    """

    name: str
    """The name in cards and reports: letters, digits and ``_``."""
    description: str
    """What it is, in half a sentence."""
    measure: Measure
    """Returns the value with an interval of the confidence that is the last argument; raises MetricError if the
    evidence lacks something."""
    chance_level: Chance | None = None
    """Returns the chance level for the number of images per class, (K,). Without it every claim is vacuous."""
    influence: Influences | None = None
    """Returns how much each image moves the value. Without it a gate cannot hold the metric."""
    count: Count | None = None
    """Returns which images count among which, or None for an average. With it a gate counts what changes between two
    models."""
    rate: Rate | None = None
    """The function of a confusion matrix that it follows from, if any."""

    better: Literal["higher", "lower"] = "higher"
    limits: tuple[float, float] = (0.0, 1.0)
    """The smallest and the largest possible value."""
    takes_class: bool = False
    """Whether ``name[CLASS]`` is the metric of one class."""
    claimable: bool = True
    """Whether a card may claim it."""

    needs_clean_evidence: bool = False
    """Whether it compares with the images before the perturbation; it has no meaning for these themselves."""
    needs_source: bool = False
    """Whether it needs evidence of the model that the examples were made on."""
    needs_detector: bool = False
    """Whether it needs a decision with an attack probability."""
    needs_probabilities: bool = False
    """Whether it needs the probability of every class."""
    over_strengths: bool = False
    """Whether it describes the accuracies at several strengths."""
    monotone: bool = False
    """Whether its value depends on which images are right only, and one more right image never makes it worse. So its
    value with all untried images wrong, and with all of them right, are bounds."""
    baseline_scores: Literal["", "attack_probability", "probabilities"] = ""
    """The scores that a gate's baseline must store for it, besides predictions and discarded images."""

    requires_claims: tuple[str, ...] = ()
    """The metrics of the clean images that a card must claim beside it."""
    required_because: str = ""
    """The reason for which other metrics require a claim on this one."""
    requires_detection_claim: bool = False
    """Whether a decision that never discards has the best value: the card must claim another metric of the detector."""
    perfect_by_constant: bool = False
    """Whether the classifier that always predicts a class has this class's best value. The chance level is then a
    uniform guesser's, and a card must claim something else beside it."""
    complement_of: str = ""
    """The metric of the clean images whose claim, subtracted from 1, is the value of a decision that discards at
    random; a claim must beat that too."""

    @property
    def family(self) -> str | None:
        """The family of a claim on it, if it is not the perturbation's."""
        return "detection" if self.needs_detector or self.over_strengths else None


def known_chance(value: float, images: Counts, label: int | None) -> ChanceLevel:
    """Return a chance level that does not depend on the labels; `partial(known_chance, 0.5)` is a metric's."""
    return ChanceLevel(value, value, value)
