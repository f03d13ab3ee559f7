"""What a sweep writes down: arrays that several threads fill, and why a strength has no numbers."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from robustness.classifiers.call_factory import describe_error
from robustness.data.images import Images
from robustness.metrics.evidence import OK, RAISED, Evidence
from robustness.sweep.chunk_result import ChunkResult
from robustness.util.rng import CHUNK

UNREACHED = "unreached ratios"

SENTENCES = {
    UNREACHED: "the ratio cannot be reached within [0, 1] for",
    "non-finite gradients": "non-finite gradients for",
    "non-finite perturbations": "the generator gives no numbers for",
    "zero gradients": "no gradient (neither cross-entropy's nor the margin's) for",
    "zero gradients, stuck": "without a gradient, and still right, were",
    "zero gradients, searched": "a search without gradients found nothing for",
    "images outside [0, 1]": "pixels lie outside [0, 1] of",
    "margin gradients": "the margin's gradient was taken, for cross-entropy's is zero, for",
}
"""What is counted, and how it is said."""

SHARES = {
    UNREACHED: 0.01,
    "zero gradients": 0.5,
    "zero gradients, stuck": 0.01,
    "zero gradients, searched": 0.05,
    "non-finite gradients": 0.0,
    "non-finite perturbations": 0.0,
}
"""Above these shares of the images a cell errors; what stands in none is only noted. A search settles who is stuck."""


class OutcomeRecorder:
    """
    The outcomes of all images at all strengths; a cell, one strength on all images, is ok or says why not.

    They are told, and taken over, chunk by chunk; ``first`` is the number of the first one, where the images are
    some chunks of more.
    """

    def __init__(
        self,
        images: Images,
        strengths: tuple[str, ...],
        *,
        drawn: np.ndarray | None,
        probabilities: bool,
        attack_probability: bool = False,
        first: int = 0,
    ) -> None:
        shape, classes = (len(strengths), len(images)), images.classes
        self.images, self.strengths, self.drawn, self.first = images, strengths, drawn, first
        self.predictions = np.full(shape, -1, np.int32)
        self.floats: dict[str, np.ndarray] = {
            name: np.full(shape, np.nan, np.float32) for name in ("confidence", "true_probability", "loss", "snr")
        }
        if probabilities:
            self.floats["probabilities"] = np.full((*shape, len(classes)), np.nan, np.float32)
        if attack_probability:
            self.floats["attack_probability"] = np.full(shape, np.nan, np.float32)
        self._non_finite = np.zeros((-(-len(images) // CHUNK), len(strengths)), int)
        self._counts: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
        self._raised: dict[int, tuple[int, str]] = {}
        self._lock = threading.Lock()

    def record(
        self,
        cells: list[int],
        rows: slice,
        predictions: np.ndarray,
        finite: np.ndarray,
        floats: Mapping[str, np.ndarray],
    ) -> None:
        """Write what one batch gave, (cells, n); images whose logits are not ``finite`` keep no decision."""
        self.predictions[cells, rows] = np.where(finite, predictions, -1)
        for name, values in floats.items():
            if name != "snr" and not finite.all():
                values = np.where(finite.reshape(finite.shape + (1,) * (values.ndim - 2)), values, np.nan)
            self.floats[name][cells, rows] = values
        with self._lock:
            self._non_finite[rows.start // CHUNK, cells] += (~finite).sum(1)

    def count(self, cell: int, start: int, counts: Mapping[str, int]) -> None:
        """Count images of which something must be said, of the batch that begins at ``start``."""
        with self._lock:
            self._counts[start // CHUNK, cell].update(counts)

    def fail(self, cell: int, start: int, error: BaseException) -> None:
        """Note what code raised. Of several batches the first in the data's order counts, however threads ran."""
        with self._lock:
            if not self.settled(cell, start):
                self._raised[cell] = (start, describe_error(error))

    def part(self, chunk: int, told: Mapping[str, Any]) -> ChunkResult | None:
        """Give what came of a finished chunk; None where a failure before it may have kept cells of it from running."""
        rows = self._rows(chunk)
        with self._lock:
            raised = {cell: at for cell, at in self._raised.items() if at[0] < rows.stop}
            if any(start < rows.start for start, _ in raised.values()):
                return None
            counts = [dict(self._counts[chunk, cell]) for cell in range(len(self.strengths))]
        about = {
            **told,
            "non_finite": self._non_finite[chunk].tolist(),
            "counts": counts,
            "raised": {str(cell): [start - rows.start, why] for cell, (start, why) in raised.items()},
        }
        arrays = {"predictions": self.predictions, **self.floats}
        return ChunkResult(self.first + chunk, {name: array[:, rows] for name, array in arrays.items()}, about)

    def take(self, part: ChunkResult) -> None:
        """Write what came of a chunk that was swept before, or elsewhere."""
        chunk = part.chunk - self.first
        rows = self._rows(chunk)
        for name, array in {"predictions": self.predictions, **self.floats}.items():
            array[:, rows] = part.arrays[name]
        with self._lock:
            self._non_finite[chunk] = part.told["non_finite"]
            for cell, counts in enumerate(part.told["counts"]):
                self._counts[chunk, cell] = Counter(counts)
            for cell, (start, why) in part.told["raised"].items():
                if not self.settled(int(cell), rows.start + start):
                    self._raised[int(cell)] = (rows.start + start, why)

    def _rows(self, chunk: int) -> slice:
        return slice(chunk * CHUNK, min((chunk + 1) * CHUNK, len(self.images)))

    def settled(self, cell: int, start: int) -> bool:
        """Return whether an earlier batch has failed in this cell, so that this one cannot change its status."""
        return cell in self._raised and self._raised[cell][0] < start

    @property
    def failed(self) -> bool:
        """Whether code raised in any cell."""
        return bool(self._raised)

    def _status(self, cell: int) -> str:
        total = len(self.images)
        if cell in self._raised:
            return RAISED + self._raised[cell][1]
        if bad := int(self._non_finite[:, cell].sum()):
            return f"non-finite logits for {bad} of {total} images ({bad / total:.1%})"
        for what, share in SHARES.items():
            if self._all(cell)[what] > share * total:
                return self._counted(cell, what)
        return OK

    def _all(self, cell: int) -> Counter[str]:
        found: Counter[str] = Counter()
        for (_, of), counts in sorted(self._counts.items()):
            found.update(counts if of == cell else {})
        return found

    def _counted(self, cell: int, what: str) -> str:
        count, total = self._all(cell)[what], len(self.images)
        return f"{SENTENCES.get(what, f'{what}:')} {count} of {total} images ({count / total:.1%})"

    def evidence(self, provenance: Mapping[str, Any]) -> Evidence:
        """Return what was recorded; a cell whose code failed keeps no numbers."""
        for cell in self._raised:
            self.predictions[cell] = -1
            for array in self.floats.values():
                array[cell] = np.nan
        notes = {
            strength: "; ".join(self._counted(cell, what) for what in sorted(counts) if counts[what])
            for cell, strength in enumerate(self.strengths)
            if (counts := self._all(cell)).total()
        }
        floats: dict[str, Any] = self.floats
        return Evidence(
            labels=self.images.labels.astype(np.int32),
            classes=self.images.classes,
            strengths=self.strengths,
            status=tuple(self._status(cell) for cell in range(len(self.strengths))),
            predictions=self.predictions,
            drawn=self.drawn,
            provenance={**provenance, "notes": notes},
            **floats,
        )
