"""Files of weights told apart without torch: an index that lists shards, a file that is a whole model."""

from __future__ import annotations

import json
import pickletools
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


def called(path: Path) -> str:
    """
    Give the first thing that a bare pickle would call, told without loading it; nothing for other files.

    Only its opcodes are read: the names that the last two strings before a STACK_GLOBAL give, or a GLOBAL's own.
    """
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            if opcode.name == "GLOBAL":
                return str(argument).replace(" ", ".")
            if opcode.name == "STACK_GLOBAL" and len(strings) > 1:
                return ".".join(strings[-2:])
            if isinstance(argument, str):
                strings.append(argument)
    except Exception:  # whatever the file holds: it is no pickle, and then it calls nothing
        return ""
    return ""
