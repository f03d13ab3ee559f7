"""The result of one chunk of a sweep, as bytes with a checksum; and what a sweep asks of a cache of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import safetensors.numpy

from robustness.errors import StoreError

FORMAT = "pytest-robustness/chunk/1"


@dataclass(frozen=True, eq=False)
class ChunkResult:
    """What came of one chunk of a sweep: arrays, and what else must be told of it (see `recorder`)."""

    chunk: int
    arrays: Mapping[str, np.ndarray]
    told: Mapping[str, Any]

    @property
    def batch_size(self) -> int:
        """In batches of how many images it was swept."""
        return int(self.told["batch_size"])

    @property
    def failed(self) -> bool:
        """Whether code failed in it."""
        return bool(self.told.get("raised"))

    def to_bytes(self, about: Mapping[str, Any]) -> bytes:
        """Write as safetensors with a checksum; ``about`` says what it is a part of."""
        told = json.dumps({"chunk": self.chunk, "told": self.told, "about": about}, sort_keys=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        head = {"format": FORMAT, "told": told, "checksum": _checksum(arrays, told)}
        return bytes(safetensors.numpy.save(arrays, metadata=head))

    @classmethod
    def from_bytes(cls, content: bytes) -> tuple[ChunkResult, dict[str, Any]]:
        """Read what `to_bytes` wrote, and what it is a part of; StoreError where it is anything else."""
        try:
            size = int.from_bytes(content[:8], "little")
            head = json.loads(content[8 : 8 + size])["__metadata__"]
            arrays: dict[str, Any] = safetensors.numpy.load(content)
            right = head["format"] == FORMAT and head["checksum"] == _checksum(arrays, head["told"])
            found = json.loads(head["told"])
            part = cls(found["chunk"], arrays, found["told"])
        except Exception as error:  # whatever a torn file makes the parsers say, it is one thing to the reader
            raise StoreError("not a finished chunk (torn or foreign)") from error
        if not right:
            raise StoreError("its checksum does not fit its content (changed or damaged)")
        return part, found["about"]


def _checksum(arrays: Mapping[str, np.ndarray], told: str) -> str:
    digest = hashlib.sha256(f"{told}\n".encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class ChunkCache(Protocol):
    """The finished chunks of one sweep, for whoever goes on with it."""

    def get(self, chunk: int) -> ChunkResult | None:
        """Return the result of a chunk, None if there is none that can be believed."""

    def put(self, result: ChunkResult) -> None:
        """Keep the result of a chunk."""

    def batch_size(self, asked: int) -> int:
        """Return the size of batches to go on with: smaller than asked for if memory ran out before."""
