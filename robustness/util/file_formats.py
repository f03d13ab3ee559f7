"""Recognise files without torch: an index of shards, a whole model, and files of another format than named."""

from __future__ import annotations

import mmap
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePath

from robustness.errors import ModelError, shown
from robustness.util import paths

HEAD = 512
"""Bytes that identify a file's format."""
PAGE = "it is {}, as a server sends for a sign-in or an error; download the file itself"
POINTER = "it is a {} pointer, not the file itself; fetch it with: {}"
TEXTS = {
    b"version https://git-lfs.github.com/spec/": POINTER.format("Git LFS", "git lfs pull"),
    b"/annex/objects/": POINTER.format("git-annex", "git annex get"),
    b"<!doctype html": PAGE.format("an HTML page"),
    b"<html": PAGE.format("an HTML page"),
    b"<head": PAGE.format("an HTML page"),
    b"<?xml": PAGE.format("an XML document"),
    b"{": PAGE.format("JSON text"),
}
MISTAKEN = TEXTS | {
    b"\x1f\x8b": "it is compressed by gzip; decompress it: gunzip",
    b"BZh": "it is compressed by bzip2; decompress it: bunzip2",
    b"7z\xbc\xaf\x27\x1c": "it is a 7z archive; unpack it",
    b"Rar!": "it is a RAR archive; unpack it",
    b"\x89HDF": "it is an HDF5 file, as Keras and MATLAB write; convert it",
    b"%PDF": "it is a PDF document",
}
"""Wrong files by their first bytes; texts may be in capital letters, after a byte order mark or spaces."""


def is_index(path: Path) -> bool:
    """Return whether a file only lists others, the shards that hold the tensors."""
    return path.name.endswith(".index.json")


def shards(path: Path) -> dict[Path, list[str]]:
    """Return the files that an index lists, with the names in each; ModelError unless all lie beside it."""
    try:
        placed = dict(paths.parse_json(paths.read_bytes(path))["weight_map"])
        names: dict[Path, list[str]] = {}
        for name, file in placed.items():
            if PurePath(file).name != file or paths.too_long(file):
                raise ValueError(f"{shown(file)} must be a file beside it")
            names.setdefault(path.parent / file, []).append(name)
        return names
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not an index of shards: {type(error).__name__}: {error}") from error


def mistaken(content: bytes | memoryview) -> str:
    """
    Return what a file is by its first bytes if that contradicts its name; "" if it may be right.

    >>> mistaken(b"version https://git-lfs.github.com/spec/v1")
    'it is a Git LFS pointer, not the file itself; fetch it with: git lfs pull'
    """
    head = bytes(content[:HEAD])
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "it is empty; download or write it again"
    return next(
        (message for start, message in MISTAKEN.items() if (text if start in TEXTS else head).startswith(start)), ""
    )


def mistaken_file(path: Path) -> str:
    """Return the same for a file; for an archive, also whether it is truncated."""
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    if head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        return "it is a truncated archive; download or write it again"
    if head.startswith(b"PK\x03\x04") and path.suffix == ".safetensors":
        return "it is not a safetensors file but one of torch.save; rename it to .pt"
    return mistaken(head)


def whole_model(path: Path) -> str:
    """Return the factory to write for a file that is a whole model instead of weights; "" for others."""
    if path.suffix == ".onnx":
        return f'an ONNX file is a whole model; write factory = "onnx:{path.name}"'
    if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, NotImplementedError):
            return "it is a damaged archive; download or write it again"
        if any(name.endswith((".json", "/archive_format")) and "models/" in name for name in names):
            return f'a torch.export file is a whole model; write factory = "torchexport:{path.name}"'
        if any(name.endswith("/constants.pkl") for name in names):
            return f'a TorchScript file is a whole model; write factory = "torchscript:{path.name}"'
    return ""


def called(path: Path) -> str:
    """
    Return the first callable that a bare pickle would call, without loading it; "" for other files.

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


FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Where tensors may lie in an ONNX file: the numbers of the fields that lead to them, by kind of message."""


def outside(path: Path) -> list[Path]:
    """
    Return the files beside an ONNX file that hold its tensors; nothing for a file that is not ONNX.

    ModelError if one is missing, or would lie outside of the folder.
    """
    with path.open("rb") as stream:
        try:
            content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        except (ValueError, OSError):  # empty, or a file system without maps
            content = memoryview(path.read_bytes())
    places: dict[str, None] = {}
    try:
        for entry in _entries(content, "model"):
            about = {number: bytes(value) for number, value in _fields(entry)}
            if about.get(1) == b"location":
                places[about.get(2, b"").decode()] = None
    except (ValueError, RecursionError):  # whoever runs it will say that it is torn
        return []
    for place in places:
        if PurePath(place).is_absolute() or ".." in PurePath(place).parts or not PurePath(place).parts:
            raise ModelError(f"{path}: it names {place!r} for its tensors, which is outside of its folder")
        if not (path.parent / place).is_file():
            raise ModelError(f"{path}: its tensors are in {place}, which is missing")
    return [path.parent / place for place in places]


def _entries(content: memoryview, kind: str) -> Iterator[memoryview]:
    """Return the entries with a tensor's location, anywhere in a message."""
    if kind == "entry":
        yield content
        return
    for number, value in _fields(content):
        if (inner := FIELDS[kind].get(number)) is not None:
            yield from _entries(value, inner)


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Return the fields of a Protocol Buffers message that hold bytes; ValueError if it is none."""
    at = 0
    while at < len(content):
        key, at = _number(content, at)
        if key & 7 == 2:
            size, at = _number(content, at)
            if at + size > len(content):
                raise ValueError("a field continues after the end")
            yield key >> 3, content[at : at + size]
            at += size
        elif key & 7 == 0:
            _, at = _number(content, at)
        elif key & 7 in (1, 5):
            at += 8 if key & 7 == 1 else 4
        else:
            raise ValueError(f"a field of the wire type {key & 7}")


def _number(content: memoryview, at: int) -> tuple[int, int]:
    """Read a number of seven bits per byte; return it and its end."""
    value = shift = 0
    while at < len(content) and shift < 70:
        byte = content[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("an unterminated number")
