"""The result of one chunk of a sweep, serialised with a checksum; and the protocol of a cache of results."""

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
