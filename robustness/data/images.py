"""Labelled images of one split, read in batches."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from robustness.data import validation
from robustness.data.lazy_images import LazyImages
from robustness.data.validation import Array, Indices
from robustness.errors import DataError

BLOCK = 2**22
"""Bytes per block in a pass over all pixels."""


@dataclass(frozen=True, eq=False)
class Images:
    """
    Labelled images that stay as they are stored until a batch of them is read.

    Attributes:
        name: What errors and reports call the images.
        pixels: The whole source, channels last: (N, H, W) or (N, H, W, C), uint8, or floats in [0, 1]; often a memory
            map, or pictures that are decoded when they are read.
        labels: The class index of each selected image.
        classes: The names of the classes by index.
        rows: Which images of the source are selected; None for all.
        groups: Which of the selected images belong together, or None.
        notes: What was done with pictures when they were read.
        distributions: Installed distributions whose versions the pixels depend on.

    >>> images = Images("spots", np.array([[[0]], [[51]], [[255]]], np.uint8), [0, 0, 1], ("dark", "bright"))
    >>> len(images), images.shape, images.labels.tolist()
    (3, (1, 1, 1), [0, 0, 1])
    >>> images.select([2, 1], "some spots").batch(0, 2).ravel().tolist()
    [1.0, 0.20000000298023224]
    """

    name: str
    pixels: Array | LazyImages = field(repr=False)
    labels: Indices = field(repr=False)
    classes: tuple[str, ...]
    rows: Indices | None = field(default=None, repr=False)
    groups: Array | None = field(default=None, repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)
    distributions: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        try:
            self._check()
        except DataError as error:
            raise type(error)(f"{self.name}: {error}") from None

    def _check(self) -> None:
        if not isinstance(self.pixels, LazyImages):
            self._keep(pixels=validation.validate_pixels(self.pixels))
        self._keep(classes=validation.validate_class_names(self.classes))
        if self.rows is not None:
            self._keep(rows=validation.validate_rows(self.rows, len(self.pixels)))
        self._keep(labels=validation.validate_labels(self.labels, len(self), self.classes))
        if self.groups is not None:
            self._keep(groups=validation.validate_groups(self.groups, len(self)))
        if self.pixels.dtype != np.uint8:
            validation.unit_range(self._blocks())

    def _keep(self, **values: Any) -> None:
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                value = value.view()  # the caller's own array stays writable
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.pixels) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width, as a classifier sees them."""
        _, height, width, *channels = self.pixels.shape
        return (channels[0] if channels else 1), height, width

    @property
    def mapped_from(self) -> str:
        """The memory-mapped file of the pixels, which must not be written; "" if there is none."""
        array: Any = self.pixels
        while array is not None and not isinstance(array, np.memmap):
            array = getattr(array, "base", None)
        return "" if array is None else str(array.filename or "")

    def select(self, rows: npt.ArrayLike, name: str) -> Images:
        """Return some of these images; ``rows`` count from the first image of this set, in the order wanted."""
        try:
            chosen = validation.validate_rows(rows, len(self))
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        return replace(
            self,
            name=name,
            rows=chosen if self.rows is None else self.rows[chosen],
            labels=self.labels[chosen],
            groups=None if self.groups is None else self.groups[chosen],
        )

    def stored(self, start: int, stop: int) -> Array:
        """Return images ``start`` to ``stop`` as they are kept, bytes or floats, (n, C, H, W); no others are read."""
        if not 0 <= start <= stop:
            raise DataError(f"{self.name}: `start` and `stop` must be 0 <= start <= stop, got {start} and {stop}")
        stored = self._stored(start, stop)
        return stored[:, None] if stored.ndim == 3 else stored.transpose(0, 3, 1, 2)

    def batch(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return images ``start`` to ``stop`` as float32 in [0, 1], (n, C, H, W); no others are read."""
        stored = self.stored(start, stop)
        if stored.dtype != np.uint8:
            return np.array(stored, np.float32, order="C")
        return np.divide(stored, np.float32(255), dtype=np.float32, order="C")

    def prefetch(self, start: int, stop: int) -> None:
        """Start decoding images that will soon be requested with these rows; do nothing if all are decoded."""
        if isinstance(self.pixels, LazyImages):
            self.pixels.prefetch(slice(start, stop) if self.rows is None else self.rows[start:stop])

    @cached_property
    def fingerprint(self) -> str:
        """
        The SHA-256 of what is in the images, their labels and the class names.

        The name, the file, the groups and the way in which rows were selected do not count. One channel equals no
        channel axis. For pictures that are decoded when they are read, their bytes and their decoding count.
        """
        if isinstance(self.pixels, LazyImages):
            about = ["pictures 1", len(self), *self.shape, self.pixels.decoding.settings, self.classes]
            digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode() + b"\n")
            digest.update(self.pixels.hashed(self.rows).encode())
            digest.update(self.labels.astype("<i8").data)
            return digest.hexdigest()
        little_endian = self.pixels.dtype.newbyteorder("<")
        header = ["images 1", len(self), *self.shape, little_endian.str, self.classes]
        digest = hashlib.sha256(json.dumps(header).encode() + b"\n")
        for block in self._blocks():
            digest.update(np.ascontiguousarray(block, little_endian).data)
        digest.update(self.labels.astype("<i8").data)
        return digest.hexdigest()

    @cached_property
    def contents(self) -> list[str]:
        """The hash of each image: of the encoded bytes of a picture, of the pixels of an array's image."""
        if isinstance(self.pixels, LazyImages):
            return [
                self.pixels.contents[row] for row in (range(len(self)) if self.rows is None else self.rows.tolist())
            ]
        return [
            hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() for block in self._blocks() for image in block
        ]

    def _stored(self, start: int, stop: int) -> Array:
        return self.pixels[start:stop] if self.rows is None else self.pixels[self.rows[start:stop]]

    def _blocks(self) -> Iterator[Array]:
        step = max(1, BLOCK // (math.prod(self.shape) * self.pixels.dtype.itemsize))
        for start in range(0, len(self), step):
            yield self._stored(start, start + step)


TESTS = ("test", "val", "validation", "valid")
"""Names of the part for testing if the card names none: the first that exists."""


class LazyParts(Mapping[str, Images]):
    """The parts of a data set, each read on first use: a test does not read the training part."""

    def __init__(self, readers: Mapping[str, Callable[[], Images]]) -> None:
        self._made, self._read = readers, dict[str, Images]()

    def __getitem__(self, part: str) -> Images:
        if part not in self._read:
            self._read[part] = self._made[part]()
        return self._read[part]

    def __contains__(self, part: object) -> bool:
        """Return whether there is such a part, without reading it."""
        return part in self._made

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


def from_arrays(
    pixels: npt.ArrayLike,
    labels: npt.ArrayLike,
    classes: tuple[str, ...] | None = None,
    *,
    name: str = "images",
    groups: npt.ArrayLike | None = None,
) -> Images:
    """
    Return arrays in memory as `Images`.

    The pixels are copied, so that a later change of the array does not change the images.

    Args:
        pixels: Images (N, H, W) or (N, H, W, C), uint8, or floats in [0, 1].
        labels: The index of each image's class, (N,).
        classes: The names of the classes by index; by default "0", "1", ….
        name: What errors and reports call the images.
        groups: Which images belong together (a scene, a patient), (N,); a split never separates them.

    Returns:
        The images.

    Raises:
        DataError: If shapes, values, labels or groups do not fit.

    >>> from_arrays(np.zeros((4, 8, 8, 3)), [0, 1, 2, 1], name="squares")
    Images(name='squares', classes=('0', '1', '2'))
    """
    try:
        names = validation.validate_class_names(classes, labels)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return Images(
        name, np.array(pixels), np.asarray(labels), names, groups=None if groups is None else np.asarray(groups)
    )
