"""Contaminated streams: what a classifier gets right of streams that hold a few adversarial images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from reports.hybrid_gan.protocol import STREAMS
from robustness.metrics.intervals import wilson
from robustness.util.rng import Purpose, generator

SIZE, DRAWS = 1000, 200


def drawn(
    right: np.ndarray, kinds: np.ndarray, size: int = SIZE, draws: int = DRAWS, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """
    Draw streams of ``size`` images with a share of adversarial ones, and count what is right of either kind.

    ``right`` says of each test image whether it is predicted right, ``kinds`` 1 where it is adversarial. Images of one
    stream differ from each other. The Wilson interval is that of one stream: what a single one, as in the paper, can
    say; beside it the least and the largest of all.
    """
    places = [np.flatnonzero(kinds == kind) for kind in (0, 1)]
    for number, share in enumerate(STREAMS):
        counts = size - round(share * size), round(share * size)
        random = generator(seed, Purpose.SPLIT, 2 + number)
        found = {"share": share, "draws": draws}
        for kind, (place, count) in enumerate(zip(places, counts, strict=True)):
            some = min(count, len(place))
            rates = [float(right[random.permutation(place)[:some]].mean()) for _ in range(draws)]
            mean = float(np.mean(rates))
            low, high = wilson(round(mean * some), some)
            found |= {
                f"{name}_{'adversarial' if kind else 'real'}": value
                for name, value in (
                    ("n", some), ("mean", round(mean, 6)), ("low", round(low, 6)), ("high", round(high, 6)),
                    ("least", round(min(rates), 6)), ("largest", round(max(rates), 6)),
                )
            }  # fmt: skip
        yield found
