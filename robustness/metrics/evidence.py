"""Evidence: a classifier's decision on every image at every strength, and its provenance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import safetensors.numpy

from robustness.errors import StoreError

FORMAT = "pytest-robustness/evidence/1"
SEMANTICS = 7
"""Raised whenever the same sweep would decide otherwise; part of the key of all evidence."""

OK = "ok"
RAISED = "raised "
"""Prefix of a cell's status if code failed; such evidence is valid in its own run only."""
DECIDED = "decided after "
"""Prefix of a cell's status if the sweep stopped once its claims were decided; untried images have the class -1."""

OUTCOMES = ("predictions", "confidence", "true_probability", "loss", "snr")


@dataclass(frozen=True, eq=False)
class Evidence:
    """
    The decisions of one classifier under one perturbation at S strengths on N images of K classes.

    Attributes:
        labels: The class index of each image, (N,).
        classes: The names of the K classes.
        strengths: The names of the S strengths.
        predictions: The decided class, (S, N).
        confidence: The probability of the decided class, (S, N).
        true_probability: The probability of the true class, (S, N).
        loss: Cross-entropy in nats, (S, N).
        snr: Signal-to-noise ratio of the perturbed image in dB, (S, N); infinite if the image did not change.
        status: "ok" per strength, or why it has no numbers.
        provenance: The origin of the evidence: seed, device, versions, times.
        probabilities: The probability of every class, (S, N, K), or None.
        drawn: The strength of each image, (S, N), if strengths were drawn.
        attack_probability: A detector's probability that an image is perturbed, (S, N), or None.
        clean: The same model's evidence without a perturbation, for metrics that compare; no part of the evidence.
        source: Evidence of the model that the examples were made on, at the same strengths; no part of it either.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    strengths: tuple[str, ...]
    predictions: np.ndarray
    confidence: np.ndarray
    true_probability: np.ndarray
    loss: np.ndarray
    snr: np.ndarray
    status: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    probabilities: np.ndarray | None = None
    drawn: np.ndarray | None = None
    attack_probability: np.ndarray | None = None
    clean: Evidence | None = None
    source: Evidence | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def index(self, strength: str) -> int:
        """Return the row of a strength, by its name."""
        if strength not in self.strengths:
            raise KeyError(f"`strength` must be one of {', '.join(self.strengths)}, got {strength}")
        return self.strengths.index(strength)

    @property
    def machine(self) -> str:
        """Its device type, with the precision if that is not float32."""
        device, dtype = self.provenance.get("device", ""), self.provenance.get("dtype", "float32")
        return str(device) if dtype == "float32" else f"{device} in {dtype}"

    @property
    def failed(self) -> bool:
        """Whether code failed at some strength."""
        return any(status.startswith(RAISED) for status in self.status)

    @property
    def stopped(self) -> bool:
        """Whether the sweep stopped early, so that only its claims can be judged."""
        return any(status.startswith(DECIDED) for status in self.status)

    @property
    def digest(self) -> str:
        """Sha256 of all outcomes: equal evidence, bit for bit, has equal digests, however long it took."""
        digest = hashlib.sha256(json.dumps([self.classes, self.strengths, self.status]).encode())
        for name, array in sorted(self._arrays().items()):
            digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("labels", *OUTCOMES, "probabilities", "drawn", "attack_probability")
        return {name: array for name in names if (array := getattr(self, name)) is not None}

    def with_clean(self, clean: Evidence, strengths: tuple[str, ...]) -> Evidence:
        """Return evidence of exactly these strengths, strength 0 taken from the entry that all sweeps share."""
        if not np.array_equal(self.labels, clean.labels):
            raise ValueError("`clean` must be evidence on the same images, got other labels")
        rows = [(clean, 0) if s == "0" and s not in self.strengths else (self, self.index(s)) for s in strengths]
        outcomes: dict[str, Any] = {name: np.stack([getattr(e, name)[i] for e, i in rows]) for name in OUTCOMES}
        drawn = None
        if self.drawn is not None:
            drawn = np.stack([np.zeros(len(e), np.float32) if e.drawn is None else e.drawn[i] for e, i in rows])
        both = self.probabilities is not None and clean.probabilities is not None
        probabilities = np.stack([e.probabilities[i] for e, i in rows if e.probabilities is not None]) if both else None
        attack = [e.attack_probability[i] for e, i in rows if e.attack_probability is not None]
        return replace(
            self,
            strengths=strengths,
            status=tuple(e.status[i] for e, i in rows),
            drawn=drawn,
            probabilities=probabilities,
            attack_probability=np.stack(attack) if len(attack) == len(rows) else None,
            **outcomes,
        )

    def to_bytes(self) -> bytes:
        """Write as safetensors: arrays, and a header with provenance and a checksum of both."""
        provenance = json.dumps(dict(self.provenance), sort_keys=True)
        head = {
            "format": FORMAT,
            "provenance": provenance,
            "classes": json.dumps(self.classes),
            "strengths": json.dumps(self.strengths),
            "status": json.dumps(self.status),
            "checksum": _checksum(self.digest, provenance),
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}
        return bytes(safetensors.numpy.save(arrays, metadata=head))

    @classmethod
    def from_bytes(cls, content: bytes) -> Evidence:
        """
        Read what `to_bytes` wrote; StoreError with the reason for anything else.

        >>> Evidence.from_bytes(b"not evidence at all")
        Traceback (most recent call last):
            ...
        robustness.errors.StoreError: not an evidence file (truncated or foreign)
        """
        try:
            size = int.from_bytes(content[:8], "little")
            head = json.loads(content[8 : 8 + size])["__metadata__"]
            arrays: dict[str, Any] = safetensors.numpy.load(content)
            if head["format"] != FORMAT:
                raise StoreError(f"evidence of another format ({head['format']})")
            evidence = cls(
                classes=tuple(json.loads(head["classes"])),
                strengths=tuple(json.loads(head["strengths"])),
                status=tuple(json.loads(head["status"])),
                provenance=json.loads(head["provenance"]),
                **arrays,
            )
            right = head["checksum"] == _checksum(evidence.digest, head["provenance"])
        except StoreError:
            raise
        except Exception as error:  # whatever a torn file makes the parsers say, it is one thing to the reader
            raise StoreError("not an evidence file (truncated or foreign)") from error
        if not right:
            raise StoreError("its checksum does not match its content (changed or damaged)")
        return evidence


def _checksum(digest: str, provenance: str) -> str:
    return hashlib.sha256(f"{digest}\n{provenance}".encode()).hexdigest()
