"""Hashes of nested values: equal values have equal hashes, whatever the order of their keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """
    Encode a value as JSON, so that equal values have equal bytes.

    >>> canonical_json({"b": 1, "a": [0.1]})
    b'{"a":[0.1],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256_json(value: Mapping[str, Any]) -> str:
    """
    Return the sha256 of a value, which is its key in the store and the gate.

    >>> sha256_json({"b": 1, "a": [0.1]}) == sha256_json({"a": [0.1], "b": 1})
    True
    """
    return hashlib.sha256(canonical_json(value)).hexdigest()
