"""What a sweep writes down: arrays that several threads fill, and why a strength has no numbers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from robustness.datasets.images import Images
from robustness.evidence import OK, RAISED, Evidence

UNREACHED_SHARE = 0.01
"""Above this share of images at which a strength cannot be had, its cell errors."""


class Outcomes:
    """The outcomes of all images at all strengths; a cell, one strength on all images, is ok or says why not."""

    def __init__(
        self, images: Images, strengths: tuple[str, ...], *, drawn: np.ndarray | None, probabilities: bool
    ) -> None:
        shape, classes = (len(strengths), len(images)), images.classes
        self.images, self.strengths, self.drawn = images, strengths, drawn
        self.predictions = np.full(shape, -1, np.int32)
        self.floats = {
            name: np.full(shape, np.nan, np.float32) for name in ("confidence", "true_probability", "loss", "snr")
        }
        if probabilities:
            self.floats["probabilities"] = np.full((*shape, len(classes)), np.nan, np.float32)
        self._non_finite = [0] * len(strengths)
        self._unreached = [0] * len(strengths)
        self._raised: dict[int, tuple[int, str]] = {}
        self._lock = threading.Lock()

    def record(
        self, cell: int, rows: slice, predictions: np.ndarray, finite: np.ndarray, floats: Mapping[str, np.ndarray]
    ) -> None:
        """Write what one batch gave; images whose logits are not ``finite`` keep no decision."""
        self.predictions[cell, rows] = np.where(finite, predictions, -1)
        for name, values in floats.items():
            self.floats[name][cell, rows] = values
            if name != "snr" and not finite.all():
                self.floats[name][cell, rows][~finite] = np.nan
        with self._lock:
            self._non_finite[cell] += len(finite) - int(finite.sum())

    def unreached(self, cell: int, count: int) -> None:
        """Count images at which the ratio could not be had."""
        with self._lock:
            self._unreached[cell] += count

    def fail(self, cell: int, start: int, error: Exception) -> None:
        """Note what code raised. Of several batches the first in the data's order counts, however threads ran."""
        with self._lock:
            if not self.settled(cell, start):
                self._raised[cell] = (start, _described(error))

    def settled(self, cell: int, start: int) -> bool:
        """Say whether an earlier batch has failed in this cell, so that this one cannot change its status."""
        return cell in self._raised and self._raised[cell][0] < start

    @property
    def failed(self) -> bool:
        """Whether code raised in any cell."""
        return bool(self._raised)

    def _status(self, cell: int) -> str:
        total = len(self.images)
        if cell in self._raised:
            return RAISED + self._raised[cell][1]
        if bad := self._non_finite[cell]:
            return f"non-finite logits for {bad} of {total} images ({bad / total:.1%})"
        missed = self._unreached[cell]
        if missed > UNREACHED_SHARE * total:
            return f"the ratio cannot be reached within [0, 1] for {missed} of {total} images ({missed / total:.1%})"
        return OK

    def evidence(self, provenance: Mapping[str, Any]) -> Evidence:
        """Give what was recorded; a cell whose code failed keeps no numbers."""
        for cell in self._raised:
            self.predictions[cell] = -1
            for array in self.floats.values():
                array[cell] = np.nan
        notes = {
            strength: f"ratio not reached for {missed} of {len(self.images)} images"
            for strength, missed in zip(self.strengths, self._unreached, strict=True)
            if missed
        }
        return Evidence(
            labels=self.images.labels.astype(np.int32),
            classes=self.images.classes,
            strengths=self.strengths,
            status=tuple(self._status(cell) for cell in range(len(self.strengths))),
            predictions=self.predictions,
            drawn=self.drawn,
            provenance={**provenance, "notes": notes},
            **self.floats,
        )


def _described(error: Exception) -> str:
    message = str(error).strip()
    return f"{type(error).__name__}: {message.splitlines()[0] if message else 'no message'}"[:300]
