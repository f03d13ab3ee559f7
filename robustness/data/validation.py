"""Requirements on labelled images; each check returns the normalised value or says what to fix."""

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
"""A larger last dimension is taken for rows or columns: images with channels first are rejected."""


def validate_pixels(value: Any) -> Array:
    """
    Return images as an array of shape (N, H, W) or (N, H, W, C); a memory map stays one.

    >>> validate_pixels(np.zeros((2, 3, 32, 32), np.uint8))
    Traceback (most recent call last):
    robustness.errors.DataError: `pixels` must have the shape (N, H, W) or (N, H, W, C) with at most 4 channels, \
got (2, 3, 32, 32); for channels first use pixels.transpose(0, 2, 3, 1)
    """
    array: Array = np.asarray(value)
    if array.dtype not in (np.uint8, np.float32, np.float64):
        raise DataError(f"`pixels` must be uint8, float32 or float64, got {array.dtype}; {_repair(array)}")
    shape = array.shape
    if array.ndim not in (3, 4) or (array.ndim == 4 and not 1 <= shape[3] <= CHANNELS):
        raise DataError(
            f"`pixels` must have the shape (N, H, W) or (N, H, W, C) with at most {CHANNELS} channels, got {shape}; "
            "for channels first use pixels.transpose(0, 2, 3, 1)"
        )
    if 0 in shape:
        raise DataError(
            f"`pixels` must have at least one image of one pixel, got the shape {shape}; check for an empty file"
        )
    return array


def _repair(array: Array) -> str:
    """Explain how to convert pixels of an unsupported type to floats in [0, 1] or bytes."""
    if array.dtype in (np.bool_, np.float16):
        return "use pixels.astype(np.float32)"
    if array.dtype.kind in "iu" and array.size and array.min() >= 0:
        if array.max() <= 255:
            return "use pixels.astype(np.uint8) for values in 0..255"
        return f"divide by the largest possible value: (pixels / {np.iinfo(array.dtype).max}).astype(np.float32)"
    return "use uint8 in 0..255 or floats in [0, 1]"


def unit_range(blocks: Iterable[Array]) -> None:
    """Refuse floats outside [0, 1]; a NaN is outside too."""
    start = 0
    for block in blocks:
        if not (block.min() >= 0 and block.max() <= 1):  # in this form NaN fails
            image = int(np.argmin(((block >= 0) & (block <= 1)).reshape(len(block), -1).all(axis=1)))
            values = block[image].ravel()
            wrong = values[~((values >= 0) & (values <= 1))][0]
            repair = (
                "divide by the largest possible value"
                if wrong > 1
                else "undo their normalisation, such as by (pixels + 1) / 2"
            )
            raise DataError(
                f"`pixels` of type {block.dtype} must lie in [0, 1], got {wrong:g} in image {start + image}; "
                f"{repair}, and leave normalisation to the classifier's first layer"
            )
        start += len(block)


def validate_rows(value: Any, count: int) -> Indices:
    """
    Return row numbers into ``count`` images, as int64.

    >>> validate_rows([2, 0], 3)
    array([2, 0])
    """
    array: Array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataError(
            f"`rows` must be a list of row numbers, got {array.dtype} of shape {array.shape}; "
            "for a mask use np.flatnonzero(mask)"
        )
    if array.size == 0:
        raise DataError("`rows` must select at least one image, got none; check the condition")
    if array.min() < 0 or array.max() >= count:
        wrong = array[(array < 0) | (array >= count)][0]
        raise DataError(f"`rows` must lie in 0..{count - 1}, got {wrong}; count from the first image of this set")
    return array.astype(np.int64)


class Withheld(DataError):
    """Negative labels: of a part whose labels are withheld, or of unlabelled images."""


def integers(value: Any) -> Array:
    """
    Return labels of any integer type, (N,), as they are; of a column, (N, 1), its values.

    >>> integers(np.array([[2], [0]]))
    array([2, 0])
    """
    array: Array = np.asarray(value)
    if array.dtype.kind in "USO":
        raise DataError(
            f"`labels` must be integers of shape (N,), got {array.dtype}, which is text; number the classes: "
            "classes, labels = np.unique(labels, return_inverse=True)"
        )
    if array.dtype.kind in "iu" and array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataError(
            f"`labels` must be integers of shape (N,), got {array.dtype} of shape {array.shape}; {_one_class(array)}"
        )
    return array


def _one_class(array: Array) -> str:
    """Explain how to convert labels of another form to one class per image, or that it is impossible."""
    if array.ndim == 2 and array.dtype.kind in "iufb" and np.isin(array, (0, 1)).all():
        if (array.sum(1) == 1).all():
            return "they are one-hot rows: use labels.argmax(axis=1)"
        return (
            "several labels per image are not supported; use one of the labels, as labels[:, 0].astype(np.int64), "
            "with a model of two outputs"
        )
    if array.ndim == 1 and array.dtype.kind in "fb" and (array == np.round(array)).all():
        return "use labels.astype(np.int64)"
    return "use one class number per image"


def validate_labels(value: Any, count: int, classes: Sequence[str]) -> Indices:
    """Return one class number for each of ``count`` images, as int64."""
    array = integers(value)
    if len(array) != count:
        raise DataError(
            f"`labels` must have one entry per image ({count}), got {len(array)}; use the labels of the same part"
        )
    if unknown := int((array < 0).sum()):
        row = int(np.argmax(array < 0))
        raise Withheld(
            f"`labels` are withheld: all {count:,} are negative, the first {array[row]}"
            if unknown == count
            else f"`labels` must be class numbers from 0, but {unknown:,} of {count:,} are negative, the first "
            f"{array[row]} at index {row}, so their labels are missing; leave these images out"
        )
    if from_one(array) and array.max() == len(classes):
        raise DataError(
            f"`labels` must lie in 0..{len(classes) - 1} for {len(classes)} classes, got 1..{len(classes)}: labels "
            "start at 1; use labels - 1"
        )
    wrong = np.flatnonzero(array >= len(classes))
    if wrong.size:
        raise DataError(
            f"`labels` must lie in 0..{len(classes) - 1} for {len(classes)} classes, got {array[wrong[0]]} at index "
            f"{wrong[0]}; fix the label or name every class in `classes`"
        )
    return array.astype(np.int64)


def from_one(*label_arrays: Any) -> bool:
    """Return whether no label is 0, and some are 1: they may be counted from 1."""
    return min((int(integers(array).min(initial=2)) for array in label_arrays), default=0) == 1


def note_from_one(name: str, *label_arrays: Any) -> tuple[str, ...]:
    """Return a note on labels without names that may start at 1; nothing for others."""
    if not from_one(*label_arrays):
        return ()
    most = max(int(integers(array).max()) for array in label_arrays)
    return (f"{name}: labels start at 1, so class 0 has no images; if they stand for {most} classes, use labels - 1",)


def validate_groups(value: Any, count: int) -> Array:
    """Return one group for each of ``count`` images."""
    array: Array = np.array(value)
    if array.shape != (count,) or array.dtype.kind not in "iuUS":
        raise DataError(
            f"`groups` must have one number or name per image ({count}), got {array.dtype} of shape {array.shape}; use "
            "the array of the same part"
        )
    return array


def validate_class_names(value: Any, *label_arrays: Any) -> tuple[str, ...]:
    """
    Return the names of the classes; without any, the numbers that the labels need.

    >>> validate_class_names(None, np.array([0, 2]), np.array([1]))
    ('0', '1', '2')
    """
    if value is None:
        largest = max((int(integers(array).max(initial=0)) for array in label_arrays), default=0)
        if largest >= CLASSES:
            raise DataError(f"`labels` must be class numbers from 0, below {CLASSES:,}, got {largest:,}; renumber them")
        return tuple(str(number) for number in range(largest + 1))
    array: Array = np.asarray(value)
    if array.ndim != 1 or array.dtype.kind != "U" or array.size == 0 or len(set(array.tolist())) < array.size:
        raise DataError(
            f"`classes` must be different names, got {array.tolist()!r:.60}; use for example "
            'np.array(["cat", "dog"]), or leave it out to number the classes'
        )
    return tuple(array.tolist())
