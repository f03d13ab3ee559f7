"""CIFAR-10-C as its authors distribute it: a file per corruption, with the severities one after another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robustness.data.folder import require_folder
from robustness.data.images import Images, LazyParts
from robustness.data.readers import DatasetReader
from robustness.data.validation import Array
from robustness.errors import DataError, DataMissing
from robustness.util import paths

if TYPE_CHECKING:
    from robustness.data.spec import DataSpec

SEVERITIES = 5
LABELS = "labels.npy"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def parts(*, spec: DataSpec, root: Path, **_: object) -> Mapping[str, Images]:
    """
    Return a part for each corruption and severity: "fog/3", "jpeg-compression/5".

    The folder holds ``fog.npy``, … with uint8 (5·N, 32, 32, 3), N images at severity 1, then N at 2, up to 5; and
    ``labels.npy`` with the 5·N labels. Only the requested images are read.
    """
    folder = require_folder(root, str(spec.folder))
    if why := paths.missing(folder / LABELS):
        raise DataMissing(f"no CIFAR-10-C in {folder}: {LABELS} {why}; unpack the archive there")
    files = {file.stem.replace("_", "-"): file for file in sorted(folder.glob("*.npy")) if file.name != LABELS}
    if not files:
        raise DataMissing(f"no corruption in {folder}: it must hold files such as fog.npy; unpack the archive there")
    if spec.part is None:
        raise DataError(
            f"`part` must name a corruption of {folder} and its severity, such as "
            f'"{next(iter(files))}/3"; it holds {", ".join(files)}'
        )
    return LazyParts(
        {
            f"{name}/{severity}": partial(_part, f"{folder.name} {name} {severity}", file, severity)
            for name, file in files.items()
            for severity in range(1, SEVERITIES + 1)
        }
    )


def _part(title: str, file: Path, severity: int) -> Images:
    pixels, labels = _array(file), _array(file.with_name(LABELS))
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or len(pixels) % SEVERITIES or not len(pixels):
        raise DataError(
            f"{file} must hold bytes of the shape (5·N, height, width, channels), it holds {pixels.dtype} "
            f"{pixels.shape}; use the file of the archive"
        )
    if labels.shape != (len(pixels),):
        raise DataError(
            f"{file.with_name(LABELS)} must hold {len(pixels)} labels, one per image of {file.name}, its shape is "
            f"{labels.shape}; use the file of the same archive"
        )
    count = len(pixels) // SEVERITIES
    rows = slice((severity - 1) * count, severity * count)
    return Images(title, pixels[rows], np.array(labels[rows]), CLASSES)


def _array(file: Path) -> Array:
    try:
        array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be read as an array: {error}; unpack the archive again") from error
    return array


READER = DatasetReader(parts, needs=("folder",), takes=("part",))
