"""Record the outcomes of a sweep, in arrays that several threads fill; the result of one chunk, and its cache."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import safetensors.numpy

from robustness.classifiers.call_factory import describe_error
from robustness.data.images import Images
from robustness.errors import StoreError
from robustness.metrics.evidence import DECIDED, OK, RAISED, Evidence
from robustness.util.rng import CHUNK

FORMAT = "pytest-robustness/chunk/1"
UNREACHED = "unreached ratios"

# The text for each kind of counted image. A text in a status is part of the evidence's digest.
COUNT_MESSAGES = {
    UNREACHED: "the ratio cannot be reached within [0, 1] for",
    "non-finite gradients": "non-finite gradients for",
    "non-finite perturbations": "the generator gives no numbers for",
    "zero gradients": "no gradient (neither cross-entropy's nor the margin's) for",
    "zero gradients, stuck": "without a gradient, and still right, were",
    "zero gradients, searched": "a search without gradients found nothing for",
    "untried": "resistant at a larger strength, so not attacked at this one, were",
    "abstentions": "the smoothed classifier abstains on",
    "resized patches": "no patch was fitted at this side; another one was resized for",
    "images outside [0, 1]": "pixels outside [0, 1] in",
    "margin gradients": "the margin's gradient replaced a zero gradient of cross-entropy for",
}

# A strength fails if a count exceeds this fraction of the images; other counts are only noted.
MAX_FRACTIONS = {
    UNREACHED: 0.01,
    "zero gradients": 0.5,
    "zero gradients, stuck": 0.01,
    "zero gradients, searched": 0.05,
    "non-finite gradients": 0.0,
    "non-finite perturbations": 0.0,
}


@dataclass(frozen=True, eq=False)
class ChunkResult:
    """The result of one chunk of a sweep: arrays, and metadata (see `recorder`)."""

    chunk: int
    arrays: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any]

    @property
    def batch_size(self) -> int:
        """The batch size that it was swept with."""
        return int(self.metadata["batch_size"])

    @property
    def failed(self) -> bool:
        """Whether user code raised in it."""
        return bool(self.metadata.get("raised"))

    def to_bytes(self, sweep: Mapping[str, Any]) -> bytes:
        """Serialise as safetensors with a checksum; ``sweep`` identifies the sweep that it belongs to."""
        text = json.dumps({"chunk": self.chunk, "told": self.metadata, "about": sweep}, sort_keys=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        header = {"format": FORMAT, "told": text, "checksum": _checksum(arrays, text)}
        return bytes(safetensors.numpy.save(arrays, metadata=header))

    @classmethod
    def from_bytes(cls, content: bytes) -> tuple[ChunkResult, dict[str, Any]]:
        """Read the output of `to_bytes`: the result, and the identity of its sweep; StoreError if it is invalid."""
        try:
            size = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + size])["__metadata__"]
            arrays: dict[str, Any] = safetensors.numpy.load(content)
            valid = header["format"] == FORMAT and header["checksum"] == _checksum(arrays, header["told"])
            fields = json.loads(header["told"])
            result = cls(fields["chunk"], arrays, fields["told"])
        except Exception as error:  # a truncated file may raise anything in the parsers
            raise StoreError("not a finished chunk (truncated or foreign)") from error
        if not valid:
            raise StoreError("its checksum does not match its content (changed or damaged)")
        return result, fields["about"]


def _checksum(arrays: Mapping[str, np.ndarray], text: str) -> str:
    digest = hashlib.sha256(f"{text}\n".encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class ChunkCache(Protocol):
    """The finished chunks of one sweep, for the run that continues it."""

    def get(self, chunk: int) -> ChunkResult | None:
        """Return the result of a chunk, or None if there is no valid one."""

    def put(self, result: ChunkResult) -> None:
        """Store the result of a chunk."""

    def batch_size(self, requested: int) -> int:
        """Return the batch size to continue with: smaller than requested if memory ran out before."""


class OutcomeRecorder:
    """
    The outcomes of all images at all strengths; each strength is "ok" or has a status that says why not.

    Outcomes are exported and restored chunk by chunk; ``first`` is the number of the first chunk, if the images are
    part of a larger set.
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
        self._flagged: dict[tuple[int, int], Counter[str]] = {}
        """By the first image of a batch or of a restored chunk, and by strength: counts that may fail the strength."""
        self._raised: dict[int, tuple[int, str]] = {}
        self._lock = threading.Lock()

    def record(
        self,
        strengths: list[int],
        rows: slice,
        predictions: np.ndarray,
        finite: np.ndarray,
        floats: Mapping[str, np.ndarray],
    ) -> None:
        """Record one batch, (strengths, n); images whose logits are not ``finite`` get no decision."""
        self.predictions[strengths, rows] = np.where(finite, predictions, -1)
        for name, values in floats.items():
            if name != "snr" and not finite.all():
                values = np.where(finite.reshape(finite.shape + (1,) * (values.ndim - 2)), values, np.nan)
            self.floats[name][strengths, rows] = values
        with self._lock:
            self._non_finite[rows.start // CHUNK, strengths] += (~finite).sum(1)

    def add_counts(self, strength: int, start: int, counts: Mapping[str, int]) -> None:
        """Add counts of flagged images in the batch that begins at ``start``."""
        with self._lock:
            self._counts[start // CHUNK, strength].update(counts)
            self._flag(start, strength, counts)

    def _flag(self, start: int, strength: int, counts: Mapping[str, int]) -> None:
        if flagged := Counter({name: n for name, n in counts.items() if n and name in MAX_FRACTIONS}):
            self._flagged[start, strength] = flagged

    def record_error(self, strength: int, start: int, error: BaseException) -> None:
        """Record an exception; of several batches, the first in the order of the data counts."""
        with self._lock:
            if not self.already_failed(strength, start):
                self._raised[strength] = (start, describe_error(error))

    def chunk_result(self, chunk: int, metadata: Mapping[str, Any]) -> ChunkResult | None:
        """Return the result of a finished chunk; None if an earlier failure may have skipped strengths of it."""
        rows = self._rows(chunk)
        with self._lock:
            raised = {strength: error for strength, error in self._raised.items() if error[0] < rows.stop}
            if any(start < rows.start for start, _ in raised.values()):
                return None
            counts = [dict(self._counts[chunk, strength]) for strength in range(len(self.strengths))]
        fields = {
            **metadata,
            "non_finite": self._non_finite[chunk].tolist(),
            "counts": counts,
            "raised": {str(strength): [start - rows.start, why] for strength, (start, why) in raised.items()},
        }
        arrays = {"predictions": self.predictions, **self.floats}
        return ChunkResult(self.first + chunk, {name: array[:, rows] for name, array in arrays.items()}, fields)

    def restore(self, result: ChunkResult) -> None:
        """Record the result of a chunk that was swept before, or elsewhere."""
        chunk = result.chunk - self.first
        rows = self._rows(chunk)
        for name, array in {"predictions": self.predictions, **self.floats}.items():
            array[:, rows] = result.arrays[name]
        with self._lock:
            self._non_finite[chunk] = result.metadata["non_finite"]
            for strength, counts in enumerate(result.metadata["counts"]):
                self._counts[chunk, strength] = Counter(counts)
                self._flag(rows.start, strength, counts)
            for strength, (start, message) in result.metadata["raised"].items():
                if not self.already_failed(int(strength), rows.start + start):
                    self._raised[int(strength)] = (rows.start + start, message)

    def _rows(self, chunk: int) -> slice:
        return slice(chunk * CHUNK, min((chunk + 1) * CHUNK, len(self.images)))

    def already_failed(self, strength: int, start: int) -> bool:
        """Return whether an earlier batch has failed at this strength, so that this one cannot change its status."""
        return strength in self._raised and self._raised[strength][0] < start

    @property
    def failed(self) -> bool:
        """Whether user code raised at any strength."""
        return bool(self._raised)

    def _status(self, strength: int) -> str:
        total = len(self.images)
        if strength in self._raised:
            return RAISED + self._raised[strength][1]
        if non_finite := int(self._non_finite[:, strength].sum()):
            return f"non-finite logits for {non_finite} of {total} images ({non_finite / total:.1%})"
        for name, fraction in MAX_FRACTIONS.items():
            if self._total_counts(strength)[name] > fraction * total:
                return self._count_message(strength, name)
        return OK

    def prefix(self, tried: int, provenance: Mapping[str, Any] | None = None) -> Evidence:
        """
        Return evidence of the first ``tried`` images; images behind them that were swept too are left out.

        A strength has the status "decided after …" if whatever happens to untried images without a fault cannot change
        its status "ok"; any other has a status that keeps its claims undecided.
        """
        total = len(self.images)
        with self._lock:
            flagged = [Counter[str]() for _ in self.strengths]
            for (start, strength), counts in self._flagged.items():
                if start < tried:
                    flagged[strength].update(counts)
        predictions = np.full_like(self.predictions, -1)
        predictions[:, :tried] = self.predictions[:, :tried]
        floats: dict[str, Any] = {name: np.full_like(array, np.nan) for name, array in self.floats.items()}
        for name, array in floats.items():
            array[:, :tried] = self.floats[name][:, :tried]
        status = [
            f"{DECIDED}{tried} of {total} images"
            if (predictions[row, :tried] >= 0).all()
            and all(not n or n + total - tried <= MAX_FRACTIONS[name] * total for name, n in flagged[row].items())
            else f"images with a fault among the first {tried}"
            for row in range(len(self.strengths))
        ]
        return Evidence(
            labels=self.images.labels.astype(np.int32),
            classes=self.images.classes,
            strengths=self.strengths,
            status=tuple(status),
            predictions=predictions,
            drawn=self.drawn,
            provenance={**(provenance or {}), "tried": tried, "notes": {}},
            **floats,
        )

    def _total_counts(self, strength: int) -> Counter[str]:
        total: Counter[str] = Counter()
        for (_, index), counts in sorted(self._counts.items()):
            total.update(counts if index == strength else {})
        return total

    def _count_message(self, strength: int, name: str) -> str:
        count, total = self._total_counts(strength)[name], len(self.images)
        return f"{COUNT_MESSAGES.get(name, f'{name}:')} {count} of {total} images ({count / total:.1%})"

    def evidence(self, provenance: Mapping[str, Any]) -> Evidence:
        """Return the recorded evidence; a strength at which user code raised has no numbers."""
        for strength in self._raised:
            self.predictions[strength] = -1
            for array in self.floats.values():
                array[strength] = np.nan
        notes = {
            strength: "; ".join(self._count_message(i, name) for name in sorted(counts) if counts[name])
            for i, strength in enumerate(self.strengths)
            if (counts := self._total_counts(i)).total()
        }
        floats: dict[str, Any] = self.floats
        return Evidence(
            labels=self.images.labels.astype(np.int32),
            classes=self.images.classes,
            strengths=self.strengths,
            status=tuple(self._status(strength) for strength in range(len(self.strengths))),
            predictions=self.predictions,
            drawn=self.drawn,
            provenance={**provenance, "notes": notes},
            **floats,
        )
