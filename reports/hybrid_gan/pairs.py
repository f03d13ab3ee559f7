"""A network that was trained on the hybrid set beside its twin that saw real images alone, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from reports.hybrid_gan.protocol import CLASSIFIERS
from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import mean_interval

Losses = Mapping[tuple[str, str], np.ndarray]
"""By model (``HEAD-NETWORK``) and sweep."""


def losses(evidence: Evidence) -> np.ndarray:
    """Return what each image costs of accuracy, (N,): 1 or 0 without perturbation less the mean over the strengths."""
    assert evidence.clean is not None
    clean = evidence.clean.predictions[0] == evidence.labels
    found: np.ndarray = clean - (evidence.predictions == evidence.labels).mean(axis=0)
    return found


def pairs(every: Losses) -> Iterator[dict[str, Any]]:
    """Give for each network and sweep how much less it loses than its twin, with the 95 % interval over the images."""
    for sweep in dict.fromkeys(sweep for _, sweep in every):
        for network in CLASSIFIERS:
            both = [every.get((f"{kind}-{network}", sweep)) for kind in ("clean", "classify")]
            if both[0] is not None and both[1] is not None:
                less = both[0] - both[1]
                low, high = mean_interval(less)
                numbers = {"difference": less.mean(), "low": low, "high": high}
                yield {"network": network, "sweep": sweep, "n": len(less)} | {
                    name: round(float(value), 6) for name, value in numbers.items()
                }
