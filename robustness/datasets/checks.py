"""What labelled images must be like; each check gives the value in the form it is kept in, or says what to mend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robustness.errors import DataError

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

CLASSES = 10**6
"""As many have names: a label beyond is damage, or no number of a class."""
CHANNELS = 4
"""More in the last place is taken for rows or columns: images whose channels come first are refused."""


def pixels(value: Any) -> Array:
    """
    Give images as an array of shape (N, H, W) or (N, H, W, C); a memory map stays one.

    >>> pixels(np.zeros((2, 3, 32, 32), np.uint8))
    Traceback (most recent call last):
    robustness.errors.DataError: `pixels` must have the shape (N, H, W) or (N, H, W, C) with at most 4 channels, \
got (2, 3, 32, 32); for channels first use pixels.transpose(0, 2, 3, 1)
    """
    array: Array = np.asarray(value)
    if array.dtype not in (np.uint8, np.float32, np.float64):
        raise DataError(
            f"`pixels` must be uint8, float32 or float64, got {array.dtype}; use uint8 in 0..255 or floats in [0, 1]"
        )
    shape = array.shape
    if array.ndim not in (3, 4) or (array.ndim == 4 and not 1 <= shape[3] <= CHANNELS):
        raise DataError(
            f"`pixels` must have the shape (N, H, W) or (N, H, W, C) with at most {CHANNELS} channels, got {shape}; "
            "for channels first use pixels.transpose(0, 2, 3, 1)"
        )
    if 0 in shape:
        raise DataError(f"`pixels` must hold at least one image of one pixel, got the shape {shape}; is a file empty?")
    return array


def unit_range(blocks: Iterable[Array]) -> None:
    """Refuse floats outside [0, 1]; a NaN is outside too."""
    start = 0
    for block in blocks:
        if not (block.min() >= 0 and block.max() <= 1):  # in this form NaN fails
            image = int(np.argmin(((block >= 0) & (block <= 1)).reshape(len(block), -1).all(axis=1)))
            values = block[image].ravel()
            wrong = values[~((values >= 0) & (values <= 1))][0]
            raise DataError(
                f"`pixels` of type {block.dtype} must lie in [0, 1], got {wrong:g} in image {start + image}; "
                "divide by the largest possible value, and leave normalisation to the classifier's first layer"
            )
        start += len(block)


def rows(value: Any, count: int) -> Indices:
    """
    Give row numbers into ``count`` images, as int64.

    >>> rows([2, 0], 3)
    array([2, 0])
    """
    array: Array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataError(
            f"`rows` must be a list of row numbers, got {array.dtype} of shape {array.shape}; "
            "for a mask use np.flatnonzero(mask)"
        )
    if array.size == 0:
        raise DataError("`rows` must choose at least one image, got none; was a condition never true?")
    if array.min() < 0 or array.max() >= count:
        wrong = array[(array < 0) | (array >= count)][0]
        raise DataError(f"`rows` must lie in 0..{count - 1}, got {wrong}; count from the first image of this set")
    return array.astype(np.int64)


def integers(value: Any) -> Array:
    """Give labels of any integer type as they are."""
    array: Array = np.asarray(value)
    if array.dtype.kind in "USO":
        raise DataError(
            f"`labels` must be integers of shape (N,), got {array.dtype}, which is text; number the classes: "
            "classes, labels = np.unique(labels, return_inverse=True)"
        )
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataError(
            f"`labels` must be integers of shape (N,), got {array.dtype} of shape {array.shape}; "
            "use labels.ravel().astype(np.int64), or argmax(axis=1) of one-hot rows"
        )
    return array


def labels(value: Any, count: int, classes: Sequence[str]) -> Indices:
    """Give one class number for each of ``count`` images, as int64."""
    array = integers(value)
    if len(array) != count:
        raise DataError(f"`labels` must be one for each of {count} images, got {len(array)}; is another part's meant?")
    wrong = np.flatnonzero((array < 0) | (array >= len(classes)))
    if wrong.size:
        raise DataError(
            f"`labels` must lie in 0..{len(classes) - 1} for {len(classes)} classes, got {array[wrong[0]]} at index "
            f"{wrong[0]}; mend the label or name every class in `classes`"
        )
    return array.astype(np.int64)


def groups(value: Any, count: int) -> Array:
    """Give one group for each of ``count`` images."""
    array: Array = np.array(value)
    if array.shape != (count,) or array.dtype.kind not in "iuUS":
        raise DataError(
            f"`groups` must be one number or name for each of {count} images, got {array.dtype} of shape "
            f"{array.shape}; is it another part's array?"
        )
    return array


def class_names(value: Any, *label_arrays: Any) -> tuple[str, ...]:
    """
    Give the names of the classes; without any, the numbers that the labels need.

    >>> class_names(None, np.array([0, 2]), np.array([1]))
    ('0', '1', '2')
    """
    if value is None:
        largest = max((int(integers(array).max(initial=0)) for array in label_arrays), default=0)
        if largest >= CLASSES:
            raise DataError(
                f"`labels` must be class numbers from 0, below {CLASSES:,}, got {largest:,}; number them anew"
            )
        return tuple(str(number) for number in range(largest + 1))
    array: Array = np.asarray(value)
    if array.ndim != 1 or array.dtype.kind != "U" or array.size == 0 or len(set(array.tolist())) < array.size:
        raise DataError(
            f"`classes` must be different names, got {array.tolist()!r:.60}; use for example "
            'np.array(["cat", "dog"]), or leave it out to number the classes'
        )
    return tuple(array.tolist())
