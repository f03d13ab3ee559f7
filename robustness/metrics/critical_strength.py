"""The worst case over several attacks: the smallest strength at which any of them misleads an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robustness.metrics.evidence import OK, Evidence

RATIOS = ("snr", "snr-std")
"""Units in which a larger strength is weaker."""


@dataclass(frozen=True)
class WorstCase:
    """
    Every image's worst case over attacks in one norm.

    Attributes:
        strengths: All strengths of the attacks, in rising order.
        critical: The smallest of these strengths at which an attack misleads each image, (N,): 0 if the image is
            misclassified without a perturbation, infinite if no attack misleads it.
        missing: By strength, the cells without numbers at it or below: there the worst case is unknown.
    """

    strengths: tuple[float, ...]
    critical: NDArray[np.float64]
    missing: Mapping[float, tuple[str, ...]]

    def robust(self, strength: float) -> int:
        """Return the number of images that no attack misleads at this strength or below."""
        return int((self.critical > strength).sum())


def critical_strengths(evidence: Evidence, clean: Evidence) -> NDArray[np.float64]:
    """
    Return the smallest strength at which each image is misclassified, (N,); strengths without numbers do not count.

    An example at one strength lies in the balls of all larger ones, so an image that is misled at a strength counts as
    misled at the larger ones too.

    >>> import numpy as np
    >>> empty = np.zeros((2, 3), np.float32)
    >>> attack = Evidence(
    ...     np.array([0, 0, 0]), ("a", "b"), ("0.1", "0.2"), np.array([[0, 1, 0], [0, 0, 1]]), *4 * [empty], (OK, OK)
    ... )
    >>> clean = Evidence(np.array([0, 0, 0]), ("a", "b"), ("0",), np.array([[0, 0, 0]]), *4 * [empty[:1]], (OK,))
    >>> critical_strengths(attack, clean).tolist()
    [inf, 0.1, 0.2]
    """
    critical = np.full(len(evidence), np.inf)
    for each in (clean, evidence):
        for name, status, predictions in zip(each.strengths, each.status, each.predictions, strict=True):
            if status == OK:
                wrong = predictions != each.labels
                critical[wrong] = np.minimum(critical[wrong], float(name))
    return critical


def ladder(strengths: Sequence[str], unit: str = "default") -> list[str]:
    """
    Return strengths from the weakest to the strongest; of signal-to-noise ratios, the largest is the weakest.

    >>> ladder(("0.2", "0.1")), ladder(("10", "20"), "snr")
    (['0.1', '0.2'], ['20', '10'])
    """
    return sorted(strengths, key=lambda name: -float(name) if unit in RATIOS else abs(float(name)))


def strengths_resisted(evidence: Evidence, strengths: Sequence[str], *, clean: bool = False) -> NDArray[np.int16]:
    """
    Return how many of the strengths, in this order, each image resists before it is first misclassified, (N,).

    It is the rank of the image's critical strength on their ladder: 0 if the image is misclassified at the weakest
    strength (or without a perturbation, if `clean` counts), the number of strengths if it is never misled.

    >>> import numpy as np
    >>> empty = np.zeros((2, 3), np.float32)
    >>> attack = Evidence(
    ...     np.array([0, 0, 0]), ("a", "b"), ("0.1", "0.2"), np.array([[0, 1, 0], [0, 0, 1]]), *4 * [empty], (OK, OK)
    ... )
    >>> strengths_resisted(attack, ("0.1", "0.2")).tolist()
    [2, 0, 1]
    """
    correct = evidence.predictions[[evidence.index(name) for name in strengths]] == evidence.labels
    if clean and evidence.clean is not None:
        correct &= evidence.clean.predictions[0] == evidence.labels
    resisted: NDArray[np.int16] = np.logical_and.accumulate(correct, axis=0).sum(axis=0, dtype=np.int16)
    return resisted


def worst_case(attacks: Mapping[str, Evidence], clean: Evidence) -> WorstCase:
    """Return the worst case over the evidence of attacks, by name, on the same images."""
    critical = np.min([critical_strengths(evidence, clean) for evidence in attacks.values()], axis=0)
    strengths = sorted({float(name) for evidence in attacks.values() for name in evidence.strengths} - {0.0})
    failed = [
        (float(strength), f"{name} at {strength}")
        for name, evidence in attacks.items()
        for strength, status in zip(evidence.strengths, evidence.status, strict=True)
        if status != OK
    ]
    missing = {at: tuple(cell for strength, cell in failed if strength <= at) for at in strengths}
    return WorstCase(tuple(strengths), critical, {at: cells for at, cells in missing.items() if cells})
