"""The claims of hybrid-gan, each with the criterion that decides it, written before any run was looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.hybrid_gan.protocol import CLASSIFIERS, NETWORKS
from reports.verdicts import Verdict, decided

DETECTED = 0.95
FOOLED = 0.2
LARGEST = 0.1
"""L∞ within which a generator must bring its undefended target below `FOOLED`."""
STREAM_GAP = 0.07
"""The largest difference between real and adversarial images in the published streams, rounded up."""


@dataclass(frozen=True)
class Found:
    """The rows of a result, and its streams."""

    source: str
    rows: Sequence[Mapping[str, Any]]
    streams: Sequence[Mapping[str, Any]]

    def value(
        self, model: str, images: str, metric: str = "accuracy", sweep: str = "clean", strength: str = "0",
        kind: str = "all",
    ) -> float:  # fmt: skip
        """Give a number; NaN where it was not measured."""
        cell = (f"{self.source}-{model}", images, sweep, strength, kind)
        for row in self.rows:
            if (row["model"], row["images"], row["sweep"], row["strength"], row["kind"]) == cell:
                found = row.get(metric)
                return math.nan if found is None else float(found)
        return math.nan

    def strengths(self, sweep: str, images: str) -> list[str]:
        """Give the strengths of a sweep over some images, in their order."""
        there = {row["strength"] for row in self.rows if (row["sweep"], row["images"]) == (sweep, images)}
        return sorted(there, key=float)

    def lost(self, model: str, sweep: str) -> float:
        """Give what of its clean accuracy a model loses under a sweep, on average over the strengths."""
        clean = self.value(model, "real")
        under = [self.value(model, "real", sweep=sweep, strength=name) for name in self.strengths(sweep, "real")]
        return clean - sum(under) / len(under) if under else math.nan


def detected(found: Found) -> Verdict:
    """Every detector tells at least 95 % of the hybrid test set right."""
    values = {name: found.value(f"detect-{name}", "hybrid") for name in CLASSIFIERS}
    return decided("each network tells real from adversarial images (95 %)", values, min(values.values()) >= DETECTED)


def fooled(found: Found) -> Verdict:
    """The generator of each target brings it below 20 % within L∞ 0.1."""
    within = [name for name in found.strengths("own", "targets") if float(name) <= LARGEST + 1e-9]
    values = {
        name: min((found.value(f"target-{name}", "targets", sweep="own", strength=k) for k in within), default=math.nan)
        for name in NETWORKS
    }
    claim = "generators mislead the undefended targets (below 20 % at L∞ 0.1)"
    return decided(claim, values, max(values.values()) < FOOLED)


def loses_less(sweep: str, what: str) -> Callable[[Found], Verdict]:
    """Each network that was trained on the hybrid set loses less than its twin that saw real images alone."""

    def decide(found: Found) -> Verdict:
        values = {
            f"{name}, {kind}": found.lost(f"{kind}-{name}", sweep)
            for name in CLASSIFIERS
            for kind in ("classify", "clean")
        }
        holds = all(values[f"{name}, classify"] < values[f"{name}, clean"] for name in CLASSIFIERS)
        named = {key.replace("classify", "hybrid"): value for key, value in values.items()}
        return decided(f"training on the hybrid set protects against {what}", named, holds)

    return decide


def streams_alike(found: Found) -> Verdict:
    """In every contaminated stream the two kinds differ by at most 0.07, as in the published ones."""
    gaps = {
        f"{name}, {stream['share']:.0%}": stream["mean_real"] - stream["mean_adversarial"]
        for name in CLASSIFIERS
        for stream in found.streams
        if stream["model"] == f"{found.source}-classify-{name}"
    }
    claim = "in contaminated streams adversarial images are told nearly as well as real ones"
    return decided(claim, gaps or {"streams": math.nan}, all(abs(gap) <= STREAM_GAP for gap in gaps.values()))


def resnet_best(found: Found) -> Verdict:
    """ResNet-50 has the best accuracy on the real images of the hybrid test set, with ten classes."""
    values = {name: found.value(f"classify-{name}", "hybrid", kind="real") for name in CLASSIFIERS}
    best = max(values, key=lambda name: values[name])
    return decided("ResNet-50 is best on real images (not so in its own tables)", values, best == "resnet50")


CLAIMS: tuple[Callable[[Found], Verdict], ...] = (
    fooled,
    detected,
    streams_alike,
    resnet_best,
    loses_less("own", "the generator that the set was made with"),
    loses_less("another", "a generator with another seed"),
    loses_less("fgsm", "FGSM on itself"),
    loses_less("anew", "a generator that is fitted to the trained network itself"),
)
"""The last three are beyond the paper."""
