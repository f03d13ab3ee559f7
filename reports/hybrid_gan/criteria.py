"""The claims of hybrid-gan, each with the criterion that decides it, written before any run was looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from reports.hybrid_gan.protocol import CLASSIFIERS, STREAMS, TARGETS, TITLES
from reports.verdicts import Kind, Verdict, decided, pending

DETECTED = 0.95
FOOLED = 0.2
LARGEST = 0.1
"""L∞ within which a generator must bring its undefended target below `FOOLED`."""
STREAM_GAP = 0.051
"""The largest difference between real and adversarial images in the published streams, rounded up."""
AS_GOOD = 0.05
"""How far below its twin's a network's clean accuracy may be: one that knows nothing loses nothing."""


@dataclass(frozen=True)
class Found:
    """The rows of a result, its streams, and what its networks are called."""

    source: str
    rows: Sequence[Mapping[str, Any]]
    streams: Sequence[Mapping[str, Any]]
    pairs: Sequence[Mapping[str, Any]] = ()
    scale: str = "full"
    networks: Mapping[str, str] = field(default_factory=lambda: TITLES)

    def decided(
        self, claim: str, values: Mapping[str, float], holds: bool, kind: Kind, *, testable: bool = True
    ) -> Verdict:
        """Return a verdict; only the paper's data can test a claim."""
        able = testable and self.source == "cifar10"
        return decided(claim, values, holds, kind=kind, scale=self.scale, testable=able)

    @property
    def targets(self) -> list[str]:
        """The undefended targets, in the order of the rows."""
        rows = [row["model"] for row in self.rows if row["images"] == "targets"]
        return [name.removeprefix(f"{self.source}-target-") for name in dict.fromkeys(rows)]

    def pair(self, network: str, sweep: str) -> Mapping[str, Any]:
        """Return how much less of its accuracy a network loses than its clean twin, with the interval."""
        unknown = {"difference": math.nan, "low": math.nan, "high": math.nan}
        return next((p for p in self.pairs if (p["network"], p["sweep"]) == (network, sweep)), unknown)

    def stream(self, model: str, share: float) -> Mapping[str, Any] | None:
        """Return the contaminated streams of a model at a share of adversarial images; None if there are none."""
        wanted = (f"{self.source}-{model}", share)
        return next((stream for stream in self.streams if (stream["model"], stream["share"]) == wanted), None)

    def value(
        self, model: str, images: str, metric: str = "accuracy", sweep: str = "clean", strength: str = "0",
        kind: str = "all",
    ) -> float:  # fmt: skip
        """Return a number; NaN where it was not measured."""
        cell = (f"{self.source}-{model}", images, sweep, strength, kind)
        for row in self.rows:
            if (row["model"], row["images"], row["sweep"], row["strength"], row["kind"]) == cell:
                found = row.get(metric)
                return math.nan if found is None else float(found)
        return math.nan

    def strengths(self, sweep: str, images: str) -> list[str]:
        """Return the strengths of a sweep over some images, in their order."""
        there = {row["strength"] for row in self.rows if (row["sweep"], row["images"]) == (sweep, images)}
        return sorted(there, key=float)

    def under(self, model: str, sweep: str) -> float:
        """Return the accuracy of a model on real images under a sweep, on average over the strengths."""
        every = [self.value(model, "real", sweep=sweep, strength=name) for name in self.strengths(sweep, "real")]
        return sum(every) / len(every) if every else math.nan

    def lost(self, model: str, sweep: str) -> float:
        """Return what of its clean accuracy a model loses under a sweep, on average over the strengths."""
        return self.value(model, "real") - self.under(model, sweep)


def detected(found: Found) -> Verdict:
    """Every detector tells at least 95 % of the hybrid test set right."""
    values = {name: found.value(f"detect-{name}", "hybrid") for name in CLASSIFIERS}
    claim = "each network tells real from adversarial images (95 %)"
    return found.decided(claim, values, min(values.values()) >= DETECTED, "level")


def classified(found: Found) -> Verdict:
    """Ten classes of the hybrid test set at 93.8 to 95.9 %: of networks that were pre-trained, which none here is."""
    values = {name: found.value(f"classify-{name}", "hybrid") for name in CLASSIFIERS}
    claim = "pre-trained networks tell ten classes (93.8 to 95.9 %)"
    return found.decided(claim, values, False, "level", testable=False)


def fooled(found: Found) -> Verdict:
    """The generator of each target brings it below 20 % within L∞ 0.1."""
    within = [name for name in found.strengths("own", "targets") if float(name) <= LARGEST + 1e-9]
    values = {
        name: min((found.value(f"target-{name}", "targets", sweep="own", strength=k) for k in within), default=math.nan)
        for name in found.targets
    }
    claim = "generators mislead the undefended targets (below 20 % at L∞ 0.1)"
    holds = max(values.values(), default=math.nan) < FOOLED
    return found.decided(claim, values, holds, "level", testable=set(found.targets) == set(TARGETS))


def loses_less(sweep: str, what: str) -> Callable[[Found], Verdict]:
    """
    Each network that was trained on the hybrid set loses less than its twin that saw real images alone.

    The 95 % interval of the difference, over the images, lies above 0, and clean accuracy is near the twin's.
    """

    def decide(found: Found) -> Verdict:
        pairs = {name: found.pair(name, sweep) for name in CLASSIFIERS}
        clean = {
            name: [found.value(f"{kind}-{name}", "real") for kind in ("classify", "clean")] for name in CLASSIFIERS
        }
        holds = all(pairs[name]["low"] > 0 and hybrid >= twin - AS_GOOD for name, (hybrid, twin) in clean.items())
        bounds = ("", "difference"), (" from", "low"), (" to", "high")
        values = {f"{name}{word}": pair[key] for name, pair in pairs.items() for word, key in bounds}
        claim = f"trained on the hybrid set, each loses less of its clean accuracy under {what}"
        return found.decided(claim, values, holds, "ordering")

    return decide


def streams_alike(found: Found) -> Verdict:
    """In every contaminated stream the two kinds differ by at most 0.051, as in the published ones."""
    gaps = {}
    for name, share in product(CLASSIFIERS, STREAMS):
        stream = found.stream(f"classify-{name}", share)
        gaps[f"{name}, {share:.0%}"] = stream["mean_real"] - stream["mean_adversarial"] if stream else math.nan
    claim = "in contaminated streams adversarial images are told nearly as well as real ones"
    return found.decided(claim, gaps, all(abs(gap) <= STREAM_GAP for gap in gaps.values()), "level")


def resnet_best(found: Found) -> Verdict:
    """ResNet-50 has the best accuracy on the real images of the hybrid test set, with ten classes."""
    values = {name: found.value(f"classify-{name}", "hybrid", kind="real") for name in CLASSIFIERS}
    best = max(values, key=lambda name: values[name])
    claim = "ResNet-50 is best on real images (not so in its own tables)"
    return found.decided(claim, values, best == "resnet50", "ordering")


DETECTORS = tuple(f"detect-{name}" for name in CLASSIFIERS)
CLAIMS: Mapping[Callable[[Found], Verdict], tuple[str, ...]] = {
    fooled: ("targets",),
    detected: DETECTORS,
    classified: CLASSIFIERS,
    streams_alike: CLASSIFIERS,
    resnet_best: CLASSIFIERS,
    loses_less("own", "the generator that the set was made with"): CLASSIFIERS,
    loses_less("another", "a generator with another seed"): CLASSIFIERS,
    loses_less("fgsm", "FGSM on itself"): CLASSIFIERS,
    loses_less("anew", "a generator that is fitted to the trained network itself"): CLASSIFIERS,
}
"""Each claim with the parts of a result that it needs; the last three are beyond the paper."""


def verdicts(found: Found, missing: Collection[str] = ()) -> list[Verdict]:
    """Decide every claim whose parts are there; what is not measured yet is neither reproduced nor not reproduced."""
    return [pending(decide(found), [part for part in needed if part in missing]) for decide, needed in CLAIMS.items()]
