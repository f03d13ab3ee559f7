"""The 8x8 digits that scikit-learn ships, at the size of MNIST: real data in the box."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustness.data.images import Images
from robustness.data.readers import DatasetReader
from robustness.errors import DataError, DataMissing

COUNT, SMALL, LARGE, BRIGHTEST = 1797, 8, 28, 16
CLASSES = tuple("0123456789")


def parts(**_: object) -> Mapping[str, Images]:
    """
    Return all 1,797 digits, as one part; they come with scikit-learn and need no data root.

    >>> len(parts()["all"]), parts()["all"].shape
    (1797, (1, 28, 28))
    """
    return {"all": _digits(_file())}


@functools.cache
def _digits(file: Path) -> Images:
    small, labels = read(file)
    return Images("digits", upscale_to_28(small), labels, CLASSES)


def _file() -> Path:
    # find_spec does not run scikit-learn, whose import takes longer than all of a warm run.
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return file
    raise DataMissing("no digits: scikit-learn, which ships them, is not installed", command="pip install scikit-learn")


def read(file: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read images (N, 8, 8) with values 0 to 16, and their labels."""
    try:
        table = np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), dtype=np.int64, delimiter=",")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{file} must be the gzipped table of digits, but: {error}; reinstall scikit-learn") from error
    if table.shape != (COUNT, SMALL**2 + 1):
        raise DataError(
            f"{file} must hold {COUNT} rows of {SMALL**2 + 1} numbers, got the shape {table.shape}; reinstall "
            "scikit-learn"
        )
    values, labels = table[:, :-1], table[:, -1]
    if values.min() < 0 or values.max() > BRIGHTEST:
        raise DataError(
            f"{file} must hold values from 0 to {BRIGHTEST}, got {values.min()} to {values.max()}; reinstall "
            "scikit-learn"
        )
    return values.astype(np.uint8).reshape(-1, SMALL, SMALL), labels


def upscale_to_28(small: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """
    Resize 8x8 images of 0 to 16 to 28x28 images of 0 to 255, bilinearly, corner on corner.

    All in integers, so that every machine gets the same bits: a pixel's weights are 27ths, and halves round up.

    >>> upscale_to_28(np.full((1, 8, 8), 8, np.uint8))[0, 0, :3].tolist()  # 127.5
    [128, 128, 128]
    """
    steps = LARGE - 1
    whole, rest = np.divmod(np.arange(LARGE) * (SMALL - 1), steps)
    weights = np.zeros((LARGE, SMALL), np.int32)
    weights[np.arange(LARGE), whole] = steps - rest
    weights[np.arange(steps), whole[:-1] + 1] += rest[:-1].astype(np.int32)  # the last pixel lies on a corner
    divisor = BRIGHTEST * steps**2
    numerator = (weights @ small.astype(np.int32) @ weights.T) * 255
    return ((2 * numerator + divisor) // (2 * divisor)).astype(np.uint8)


READER = DatasetReader(parts, embedded=True)
