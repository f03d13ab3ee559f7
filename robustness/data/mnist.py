"""MNIST in torchvision's folder layout; read in place, downloaded by command only."""

from __future__ import annotations

import hashlib
import math
import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from robustness.data.images import Images
from robustness.data.readers import DatasetReader
from robustness.data.validation import Array
from robustness.errors import DataError, DataMissing
from robustness.util import paths

SUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
CLASSES = tuple("0123456789")
DOWNLOADING = ".download-"
"""Prefix of the folder for downloads until their checksums are verified."""


def folder(root: Path) -> Path:
    """Return the folder of the four files below a data root."""
    return root / "MNIST" / "raw"


def parts(*, root: Path, **_: object) -> Mapping[str, Images]:
    """Return the official 60,000 and 10,000 images; nothing is downloaded here."""
    for file in SUMS:
        if why := paths.missing(folder(root) / file):
            command = f"robustness data mnist --root {shlex.quote(str(root))}"
            raise DataMissing(f"no MNIST in {root}: {folder(root) / file} {why}", command=command)
    return {"train": _part(root, "train", "train"), "test": _part(root, "t10k", "test")}


def _part(root: Path, stem: str, part: str) -> Images:
    pixels = read_idx(folder(root) / f"{stem}-images-idx3-ubyte", dimensions=3)
    labels = read_idx(folder(root) / f"{stem}-labels-idx1-ubyte", dimensions=1)
    return Images(f"mnist {part}", pixels, labels, CLASSES)


def read_idx(file: Path, dimensions: int) -> Array:
    """Map an idx file of bytes to memory, after a look at its magic number and its size."""
    header = 4 * (1 + dimensions)
    with file.open("rb") as stream:
        start = stream.read(header)
    size = file.stat().st_size
    if len(start) < header:
        raise DataError(f"{file} must start with {header} bytes of header, it has {size}; {_AGAIN}")
    magic, *shape = np.frombuffer(start, ">u4").tolist()
    if magic != 0x800 + dimensions:
        raise DataError(f"{file} must start with the magic number {0x800 + dimensions}, it has {magic}; {_AGAIN}")
    expected = header + math.prod(shape)
    if size != expected or min(shape) < 1:
        raise DataError(f"{file} must have {expected} bytes for its shape {tuple(shape)}, it has {size}; {_AGAIN}")
    return np.memmap(file, np.uint8, mode="r", offset=header, shape=tuple(shape))


_AGAIN = "remove it and download it again: robustness data mnist"


def download(root: Path, say: Callable[[str], None], *, fetch: Callable[[Path], None] | None = None) -> None:
    """
    Download the four files to ``root`` unless they exist, and verify the published checksums.

    ``fetch(folder)`` makes ``folder/MNIST/raw`` (the default asks torchvision). Only files with the right checksum are
    moved there, and existing files are not changed.
    """
    for file in SUMS:
        if (folder(root) / file).exists():
            _verify_checksum(folder(root), file)
    missing = [file for file in SUMS if not (folder(root) / file).exists()]
    if not missing:
        say(f"MNIST is already in {root}; all four files have the published SHA-256")
        return
    try:
        folder(root).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=DOWNLOADING, dir=root) as fetched:
            (fetch or _torchvision_fetch)(Path(fetched))
            for file in missing:
                _verify_checksum(folder(Path(fetched)), file)
            for file in missing:
                (folder(Path(fetched)) / file).replace(folder(root) / file)
    except (OSError, RuntimeError) as error:  # torchvision raises RuntimeError when no mirror answers
        raise DataError(f"MNIST could not be downloaded to {root}: {error}") from error
    say(f"downloaded MNIST to {root}: {', '.join(missing)}; SHA-256 as published")


def _verify_checksum(where: Path, file: str) -> None:
    actual = hashlib.sha256(paths.read_bytes(where / file)).hexdigest()
    if actual != SUMS[file]:
        raise DataError(f"{where / file} must have the SHA-256 {SUMS[file]}, it has {actual}; {_AGAIN}")


def _torchvision_fetch(target: Path) -> None:
    from robustness.util.torchvision_compat import datasets  # imports torchvision and torch: for this command only

    datasets.MNIST(str(target), download=True)


READER = DatasetReader(parts)
