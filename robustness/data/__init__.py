"""Labelled images, by name, in the part that is for training or for testing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from robustness.data import splits
from robustness.data.images import TESTS, Images, from_arrays
from robustness.data.lazy_images import LazyImages, joined
from robustness.data.readers import DATASETS, DatasetReader
from robustness.data.spec import DataSpec
from robustness.data.splitting import PredefinedSplit
from robustness.data.validation import Array, Withheld
from robustness.errors import DataError, nearest

__all__ = ["DATASETS", "DataSpec", "DatasetReader", "Images", "from_arrays", "load", "subsample"]


def load(
    spec: DataSpec,
    part: Literal["train", "test"],
    *,
    root: Path,
    cache: Path,
    beside: Path = Path(),
    progress: Callable[[str], None] | None = None,
) -> Images:
    """
    Return the images that a card trains or tests on.

    Batches are read when they are used; only with ``pool = "all"`` both official parts are joined in memory.

    Args:
        spec: The card's ``[data]`` table.
        part: "train" or "test".
        root: The folder that holds the data sets.
        cache: A folder for what is unpacked, and for what is known of files.
        beside: The card's folder, for data that lie beside the card.
        progress: Called with a sentence about what takes long.

    Returns:
        The images.

    Raises:
        DataMissing: If the data set is not on this machine; the message names the command that fetches it.
        DataError: If the images or labels cannot be used, or `part` is another.

    >>> spec = DataSpec.model_validate({"name": "digits", "split": {"kind": "balanced", "per_class": 30}})
    >>> load(spec, "test", root=Path("data"), cache=Path("cache"))
    Images(name='digits test', classes=('0', '1', '2', '3', '4', '5', '6', '7', '8', '9'))
    """
    if part not in ("train", "test"):
        raise DataError(f"`part` must be 'train' or 'test', got {part!r}")
    images = _side(spec, part, beside if spec.beside_card else root, cache, progress)
    return images if part == "train" or spec.num_test_images is None else subsample(images, spec.num_test_images)


def subsample(images: Images, count: int, seed: int = 0) -> Images:
    """
    Return a random subset of the images, stratified by class, with at least one image per class.

    >>> len(subsample(from_arrays(np.zeros((6, 2, 2)), [0, 0, 0, 0, 1, 1]), 3))
    3
    """
    classes = len(np.unique(images.labels))
    if not classes <= count <= len(images):
        raise DataError(
            f"`num_test_images` must allow one image per class ({classes}) and be at most the {len(images)} of "
            f"{images.name}, got {count}"
        )
    return images.select(splits.some(images.labels, count, seed), f"{count} of {images.name}")


def _side(
    spec: DataSpec, part: Literal["train", "test"], root: Path, cache: Path, progress: Callable[[str], None] | None
) -> Images:
    parts = spec.source.parts(spec=spec, root=root, cache=cache, progress=progress)
    tested = _tested(spec, parts)
    if isinstance(spec.split, PredefinedSplit) or (part == "test" and spec.test == "official"):
        # Data in one part are test images; a card that trains must say which of them to train on.
        alone = "all" in parts and part == "test" and not spec.embedded and isinstance(spec.split, PredefinedSplit)
        name = "all" if alone else tested if part == "test" else "train"
        if name not in parts:
            only = next(iter(parts))
            raise DataError(
                f"`split` must be other than 'predefined' for {parts[only].name}, which has no {part} part; use "
                "balanced, stratified, group (with `groups`) or kfold"
                if only == "all"
                else f"{parts[only].name} has no {part} part; add one"
            )
        return _part(parts, name)
    pool = _pool(parts, spec.pool, tested)
    if spec.groups is not None and pool.groups is None:
        raise DataError(
            f"`groups` must name an array that covers all of {pool.name}, got {spec.groups!r}, which belongs to "
            "another part; change `pool` or `groups`"
        )
    train, test = spec.split.rows(pool)
    name = f"{pool.name} {part}" if "all" in parts else f"{part} side of {pool.name}"
    return pool.select(train if part == "train" else test, name)


def _tested(spec: DataSpec, parts: Mapping[str, Images]) -> str:
    """Return the name of the part for testing, if there are parts."""
    if spec.part is not None and spec.part not in parts:
        there = list(parts)
        raise DataError(
            f"`part` must be left out for data without parts, got {spec.part!r}; a single folder or file is used "
            "completely"
            if there == ["all"]
            else f"`part` must be one of {', '.join(there)}, got {spec.part!r}{nearest(spec.part, there)}"
        )
    return spec.part or next((name for name in TESTS if name in parts), "test")


def _part(parts: Mapping[str, Images], name: str) -> Images:
    """Return a part; if its labels are withheld, the error names the other parts."""
    try:
        return parts[name]
    except Withheld as error:
        others = [f'part = "{other}"' for other in parts if other not in (name, "train", "all")]
        repair = f"use another part: {' or '.join(others)} in [data]" if others else "use images with labels"
        raise DataError(f"{error}; {repair}") from None


def _pool(parts: Mapping[str, Images], which: str, tested: str) -> Images:
    """Return the images that a split divides."""
    if "all" in parts:
        if which == "test":
            raise DataError(f"`pool` must be left out for {parts['all'].name}, which has no parts, got 'test'")
        return parts["all"]
    names = {"train": ["train"], "test": [tested], "all": ["train", tested]}[which]
    if missing := [name for name in names if name not in parts]:
        raise DataError(f"`pool` = {which!r} needs a {missing[0]} part, which {', '.join(parts)} alone lacks; add one")
    pooled = [_part(parts, name) for name in names]
    return _joined(*pooled) if len(pooled) == 2 else pooled[0]


def _joined(train: Images, test: Images) -> Images:
    if train.pixels.dtype != test.pixels.dtype or train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise DataError(
            f"`pool` = 'all' needs parts of one type and shape, but {train.name} is {train.pixels.dtype} "
            f"{train.pixels.shape} and {test.name} is {test.pixels.dtype} {test.pixels.shape}"
        )
    if isinstance(train.pixels, LazyImages) and isinstance(test.pixels, LazyImages):
        pixels: Array | LazyImages = joined(train.pixels, test.pixels)
    else:
        pixels = np.concatenate([np.asarray(train.pixels), np.asarray(test.pixels)])
    grouped = train.groups is not None and test.groups is not None
    return Images(
        train.name.removesuffix(" train"),
        pixels,
        np.concatenate([train.labels, test.labels]),
        train.classes,
        groups=np.concatenate([train.groups, test.groups]) if grouped else None,
        notes=(*train.notes, *test.notes),
        distributions=train.distributions,
    )
