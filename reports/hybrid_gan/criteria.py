"""The claims of hybrid-gan, each with the criterion that decides it, written before any run was looked at."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from reports.hybrid_gan.protocol import CLASSIFIERS, STREAMS, TARGETS, TITLES, UNDEFENDED
from reports.rows import mean, unpacked
from reports.verdicts import Criterion

MIN_DETECTED = 0.95
# The accuracy below which a generator must bring its undefended target, and the L∞ within which it must.
MAX_LEFT, LARGEST = 0.2, 0.1
# The largest difference between real and adversarial images in the published streams, rounded up.
STREAM_GAP = 0.051
# How far below its twin's a network's clean accuracy may be: one that knows nothing loses nothing.
MAX_CLEAN_LOSS = 0.05


@dataclass(frozen=True)
class Numbers:
    """The rows of a result, its streams and pairs of twins, and the titles of its networks."""

    source: str
    rows: Sequence[Mapping[str, Any]]
    streams: Sequence[Mapping[str, Any]]
    pairs: Sequence[Mapping[str, Any]] = ()
    networks: Mapping[str, str] = field(default_factory=lambda: TITLES)

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Numbers:
        """Return the numbers of a result."""
        return cls(result["source"], unpacked(result), result["streams"], result["pairs"], result["networks"])

    @property
    def targets(self) -> list[str]:
        """The undefended targets, in the order of the rows."""
        models = [row["model"] for row in self.rows if row["images"] == "targets"]
        return [name.removeprefix(f"{self.source}-target-") for name in dict.fromkeys(models)]

    def pair(self, network: str, sweep: str) -> Mapping[str, Any]:
        """Return how much less of its accuracy a network loses than its clean twin, with the interval."""
        unknown = {"difference": math.nan, "low": math.nan, "high": math.nan}
        return next((p for p in self.pairs if (p["network"], p["sweep"]) == (network, sweep)), unknown)

    def stream(self, model: str, share: float) -> Mapping[str, Any] | None:
        """Return the contaminated streams of a model with a fraction of adversarial images; None if there are none."""
        key = (f"{self.source}-{model}", share)
        return next((stream for stream in self.streams if (stream["model"], stream["share"]) == key), None)

    def gap(self, model: str, share: float) -> float:
        """Return how much better real than adversarial images are classified in streams; NaN if there are none."""
        stream = self.stream(model, share)
        return stream["mean_real"] - stream["mean_adversarial"] if stream else math.nan

    def largest_gap(self, model: str) -> float:
        """Return the largest difference between real and adversarial images in the streams; NaN if there are none."""
        gaps = (abs(self.gap(model, share)) for share in STREAMS)
        return max((gap for gap in gaps if not math.isnan(gap)), default=math.nan)

    def interval(self, model: str, images: str, metric: str = "accuracy", **cell: str) -> str:
        """Write a number with its 95 % interval."""
        value, low, high = (self.value(model, images, name, **cell) for name in (metric, "low", "high"))
        return "–" if math.isnan(value) else f"{value:.4f} [{low:.3f}, {high:.3f}]"

    def value(
        self, model: str, images: str, metric: str = "accuracy", sweep: str = "clean", strength: str = "0",
        kind: str = "all",
    ) -> float:  # fmt: skip
        """Return a number; NaN if it was not measured."""
        cell = (f"{self.source}-{model}", images, sweep, strength, kind)
        for row in self.rows:
            if (row["model"], row["images"], row["sweep"], row["strength"], row["kind"]) == cell:
                return math.nan if row.get(metric) is None else float(row[metric])
        return math.nan

    def strengths(self, sweep: str, images: str) -> list[str]:
        """Return the strengths of a sweep over some images, in rising order."""
        strengths = {row["strength"] for row in self.rows if (row["sweep"], row["images"]) == (sweep, images)}
        return sorted(strengths, key=float)

    def under(self, model: str, sweep: str) -> float:
        """Return the accuracy of a model on real images under a sweep, on average over the strengths."""
        strengths = self.strengths(sweep, "real")
        return mean([self.value(model, "real", sweep=sweep, strength=strength) for strength in strengths])

    def lost(self, model: str, sweep: str) -> float:
        """Return how much of its clean accuracy a model loses under a sweep, on average over the strengths."""
        return self.value(model, "real") - self.under(model, sweep)


def criteria(n: Numbers, absent: Collection[str] = ()) -> Iterator[Criterion]:
    """
    Return every claim; the last three are beyond the paper, and only the paper's data can test one.

    ``absent`` are the parts of a result that are not measured yet: the claims that need them wait.
    """
    detectors = [f"detect-{name}" for name in CLASSIFIERS]
    claims = {0: [UNDEFENDED], 1: detectors}
    for number, criterion in enumerate(_criteria(n)):
        missing = [part for part in claims.get(number, CLASSIFIERS) if part in absent]
        yield criterion._replace(testable=criterion.testable and n.source == "cifar10", missing=missing)


def _criteria(n: Numbers) -> Iterator[Criterion]:
    # The generator of each target brings it below 20 % within L∞ 0.1.
    within = [name for name in n.strengths("own", "targets") if float(name) <= LARGEST + 1e-9]
    left = {
        name: min((n.value(f"target-{name}", "targets", sweep="own", strength=k) for k in within), default=math.nan)
        for name in n.targets
    }
    claim = "generators mislead the undefended targets (below 20 % at L∞ 0.1)"
    fooled = max(left.values(), default=math.nan) < MAX_LEFT
    yield Criterion("level", claim, left, fooled, set(n.targets) == set(TARGETS))
    values = {name: n.value(f"detect-{name}", "hybrid") for name in CLASSIFIERS}
    claim = "each network tells real from adversarial images (95 %)"
    yield Criterion("level", claim, values, min(values.values()) >= MIN_DETECTED)
    # Of networks that were pre-trained, which none here is.
    values = {name: n.value(f"classify-{name}", "hybrid") for name in CLASSIFIERS}
    yield Criterion("level", "pre-trained networks tell ten classes (93.8 to 95.9 %)", values, False, testable=False)
    cells = product(CLASSIFIERS, STREAMS)
    gaps = {f"{name}, {share:.0%}": n.gap(f"classify-{name}", share) for name, share in cells}
    claim = "in contaminated streams adversarial images are told nearly as well as real ones"
    yield Criterion("level", claim, gaps, all(abs(gap) <= STREAM_GAP for gap in gaps.values()))
    values = {name: n.value(f"classify-{name}", "hybrid", kind="real") for name in CLASSIFIERS}
    best = max(values, key=lambda name: values[name])
    claim = "ResNet-50 is best on real images (not so in its own tables)"
    yield Criterion("ordering", claim, values, best == "resnet50")
    yield _loses_less(n, "own", "the generator that the set was made with")
    yield _loses_less(n, "another", "a generator with another seed")
    yield _loses_less(n, "fgsm", "FGSM on itself")
    yield _loses_less(n, "anew", "a generator that is fitted to the trained network itself")


def _loses_less(n: Numbers, sweep: str, under: str) -> Criterion:
    """
    Each network that was trained on the hybrid set loses less than its twin that saw real images alone.

    The 95 % interval of the difference, over the images, lies above 0, and clean accuracy is near the twin's.
    """
    pairs = {name: n.pair(name, sweep) for name in CLASSIFIERS}
    accurate = [
        n.value(f"classify-{name}", "real") >= n.value(f"clean-{name}", "real") - MAX_CLEAN_LOSS for name in CLASSIFIERS
    ]
    bounds = ("", "difference"), (" from", "low"), (" to", "high")
    values = {f"{name}{word}": pair[key] for name, pair in pairs.items() for word, key in bounds}
    claim = f"trained on the hybrid set, each loses less of its clean accuracy under {under}"
    return Criterion("ordering", claim, values, all(accurate) and all(pair["low"] > 0 for pair in pairs.values()))
