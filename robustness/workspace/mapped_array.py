"""One int8 tensor in a safetensors file, written and read without holding all of it in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from robustness.classifiers.weights import digest, metadata
from robustness.errors import ModelError, StoreError

HEADER = 4096
"""Bytes reserved for the header, which is written last: it has the checksum of the numbers."""


def read(path: Path, name: str) -> np.ndarray:
    """Map the tensor of a file to memory; ModelError if the file is torn, foreign or changed."""
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            tensor = json.loads(stream.read(min(size, 2**26)))[name]
        shape = tuple(tensor["shape"])
        array = np.memmap(path, np.int8, "r", 8 + size + tensor["data_offsets"][0], shape)
    except Exception as error:  # a torn file can make the parser raise anything
        raise ModelError(f"{path}: not a whole weights file (torn or foreign)") from error
    if metadata(path).get("checksum") != digest([(name, "int8", shape, array.data)]):
        raise ModelError(f"{path}: its tensors do not fit its checksum (damaged, or edited after it was written)")
    return array


class Written:
    """A tensor whose rows are written to a new file in any order, from any thread."""

    def __init__(self, stream: IO[bytes], name: str, shape: tuple[int, ...]) -> None:
        self._stream, self._name, self._shape = stream, name, shape
        self._lock = threading.Lock()

    def put(self, start: int, rows: np.ndarray) -> None:
        """Write int8 rows, starting at row ``start``."""
        with self._lock:
            self._stream.seek(HEADER + start * int(np.prod(self._shape[1:])))
            self._stream.write(np.ascontiguousarray(rows, np.int8).data)

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Write the header with the metadata and a checksum of all rows."""
        self._stream.flush()
        size = int(np.prod(self._shape))
        rows = np.memmap(self._stream, np.int8, "r", HEADER, self._shape)
        metadata = {**metadata, "checksum": digest([(self._name, "int8", self._shape, rows.data)])}
        tensor = {"dtype": "I8", "shape": self._shape, "data_offsets": [0, size]}
        header = json.dumps({"__metadata__": metadata, self._name: tensor}).encode().ljust(HEADER - 8)
        if len(header) != HEADER - 8:
            raise StoreError(f"what it says of itself takes more than {HEADER} bytes")
        self._stream.seek(0)
        self._stream.write((HEADER - 8).to_bytes(8, "little") + header)
