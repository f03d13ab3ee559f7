"""Files of weights told apart without torch: an index that lists shards, a file that is a whole model."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path, PurePath

from robustness.errors import ModelError


def is_index(path: Path) -> bool:
    """Say whether a file only lists others, the shards that hold the tensors."""
    return path.name.endswith(".index.json")


def shards(path: Path) -> dict[Path, list[str]]:
    """Give the files that an index lists, with the names in each; ModelError unless all lie beside it."""
    try:
        placed = dict(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
        found: dict[Path, list[str]] = {}
        for name, file in placed.items():
            if PurePath(file).name != file:
                raise ValueError(f"{file!r} must be a file beside it")
            found.setdefault(path.parent / file, []).append(name)
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not an index of shards: {type(error).__name__}: {error}") from error


def whole_model(path: Path) -> str:
    """Say what to write for a file that is a model rather than the weights of one; nothing for others."""
    if path.suffix == ".onnx":
        return f'an ONNX file is a whole model; write factory = "onnx:{path.name}"'
    if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return f'a TorchScript file is a whole model; write factory = "torchscript:{path.name}"'
    return ""
