"""Labelled images, by name, in the part that is for training or for testing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from robustness.datasets import splits
from robustness.datasets.images import Images, from_arrays
from robustness.datasets.spec import DATASETS, DataSet, DataSpec, Given
from robustness.errors import DataError

__all__ = ["DATASETS", "DataSet", "DataSpec", "Images", "from_arrays", "load"]


def load(
    spec: DataSpec,
    part: Literal["train", "test"],
    *,
    root: Path,
    cache: Path,
    progress: Callable[[str], None] | None = None,
) -> Images:
    """
    Give the images that a card trains or tests on.

    ``root`` holds the data sets, ``cache`` what is unpacked of them; ``progress`` is told what takes long. Only what
    is read in batches comes into memory, unless both official parts are joined (``of = "all"``).

    >>> spec = DataSpec.model_validate({"name": "digits", "split": {"kind": "balanced", "per_class": 30}})
    >>> load(spec, "test", root=Path("data"), cache=Path("cache"))
    Images(name='digits test', classes=('0', '1', '2', '3', '4', '5', '6', '7', '8', '9'))
    """
    if part not in ("train", "test"):
        raise DataError(f"`part` must be 'train' or 'test', got {part!r}")
    images = _side(spec, part, root, cache, progress)
    if part == "train" or spec.tested is None:
        return images
    if not len(np.unique(images.labels)) <= spec.tested <= len(images):
        raise DataError(
            f"`tested` must be at least one of each of {len(np.unique(images.labels))} classes and at most the "
            f"{len(images)} of {images.name}, got {spec.tested}"
        )
    return images.select(splits.some(images.labels, spec.tested), f"{spec.tested} of {images.name}")


def _side(
    spec: DataSpec, part: Literal["train", "test"], root: Path, cache: Path, progress: Callable[[str], None] | None
) -> Images:
    parts = DATASETS[spec.name].parts(spec=spec, root=root, cache=cache, progress=progress)
    if isinstance(spec.split, Given) or (part == "test" and spec.test == "given"):
        if part == "test" and spec.of == "all" and "all" in parts:
            return parts["all"]
        if part not in parts and "all" not in parts:
            raise DataError(f"{next(iter(parts.values())).name} comes without a {part} part; add {part}_x and {part}_y")
        if part not in parts:
            raise DataError(
                f"`split` must be other than 'given' for {parts['all'].name}, which has no test part of its own; "
                'use balanced, stratified, grouped (with `groups`) or folds, or of = "all" to test on all of it'
            )
        return parts[part]
    pool = _pool(parts, spec.of)
    if spec.groups is not None and pool.groups is None:
        raise DataError(
            f"`groups` must name an array for all of {pool.name}, got {spec.groups!r}, which another part has; "
            "change `of` or `groups`"
        )
    train, test = spec.split.rows(pool)
    name = f"{pool.name} {part}" if "all" in parts else f"{part} side of {pool.name}"
    return pool.select(train if part == "train" else test, name)


def _pool(parts: Mapping[str, Images], of: str) -> Images:
    """Give the images that a split divides."""
    if "all" in parts:
        if of == "test":
            raise DataError(f"`of` must be left out for {parts['all'].name}, which has no parts of its own, got 'test'")
        return parts["all"]
    return _joined(parts["train"], parts["test"]) if of == "all" else parts[of]


def _joined(train: Images, test: Images) -> Images:
    if train.pixels.dtype != test.pixels.dtype or train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise DataError(
            f"`of` = 'all' needs parts of one type and shape, but {train.name} is {train.pixels.dtype} "
            f"{train.pixels.shape} and {test.name} is {test.pixels.dtype} {test.pixels.shape}"
        )
    grouped = train.groups is not None and test.groups is not None
    return Images(
        train.name.removesuffix(" train"),
        np.concatenate([train.pixels, test.pixels]),
        np.concatenate([train.labels, test.labels]),
        train.classes,
        groups=np.concatenate([train.groups, test.groups]) if grouped else None,
    )
