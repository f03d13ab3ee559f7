"""torchvision's data sets, from files that are there: nothing is ever downloaded."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustness.data import folder, image_source, validation
from robustness.data.image_source import Files
from robustness.data.images import Images, LazyParts
from robustness.data.npz_cache import Progress
from robustness.data.readers import DatasetReader
from robustness.data.validation import Array
from robustness.errors import DataError, DataMissing, nearest

if TYPE_CHECKING:
    from robustness.data.spec import DataSpec

PREFIX = "torchvision:"
TESTS = ("test", "val", "valid")


def parts(*, spec: DataSpec, root: Path, cache: Path, progress: Progress | None = None) -> Mapping[str, Images]:
    """
    Return the training and the test part of the set that ``spec`` names, below the data root or its ``folder``.

    Sets of arrays are read as they are; those of files are decoded when they are read.
    """
    from robustness.util.torchvision_compat import datasets  # imports torch

    name = spec.name.removeprefix(PREFIX)
    known = [each for each in datasets.__all__ if _has_parts(getattr(datasets, each))]
    if name not in known:
        raise DataError(
            f"`name` must be {PREFIX} and a torchvision data set with a training and a test part, got "
            f"{name!r}{nearest(name, known)}"
        )
    top = root if spec.folder is None else folder.require_folder(root, spec.folder)
    make = getattr(datasets, name)
    return LazyParts({part: partial(_part, name, make, part, top, spec, cache, progress) for part in ("train", "test")})


def _has_parts(kind: Any) -> bool:
    return inspect.isclass(kind) and bool({"train", "split"} & inspect.signature(kind).parameters.keys())


def _part(name: str, make: Any, part: str, top: Path, spec: DataSpec, cache: Path, progress: Progress | None) -> Images:
    title = f"{name} {part}"
    dataset = _opened(name, make, part, top)
    values, classes = _labels(dataset), getattr(dataset, "classes", None)
    if values is not None and (arrays := getattr(dataset, "data", None)) is not None:
        if spec.images is not None:
            raise DataError(f"`images` must be left out for {spec.name!r}, whose images are arrays of one size")
        return Images(title, _channels_last(np.asarray(arrays), name), values, _names(classes, values))
    listed = _files(dataset)
    if listed is None:
        raise DataError(
            f"{spec.name!r} must be a torchvision data set of images with one class each; otherwise write it as "
            "folders of classes"
        )
    paths, values = listed
    files = Files(top, [os.path.relpath(path, top) for path in paths])
    return image_source.images(
        title, files, files.looks(cache, progress), values, _names(classes, values), spec.decoding
    )


def _opened(name: str, make: Any, part: str, top: Path) -> Any:
    """Open a part; the name of a set's test part is found by trial."""
    wanted = inspect.signature(make).parameters
    offline = {"download": False} if "download" in wanted else {}
    ways = [{"train": part == "train"}] if "train" in wanted else [{"split": each} for each in _called(part)]
    refused = ""
    for way in ways:
        try:
            return make(str(top), **way, **offline)
        except ValueError as error:  # no part of that name
            refused = str(error)
        except (RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataMissing(
                f"no {name} in {top}: {reason.split(' You can use download')[0]} Put its files there; nothing is "
                "downloaded here"
            ) from error
        except ImportError as error:
            raise DataError(f"{PREFIX}{name} needs another library: {error}") from error
    raise DataError(f"{PREFIX}{name} must have a {part} part, but: {refused}")


def _called(part: str) -> Sequence[str]:
    return ("train",) if part == "train" else TESTS


def _labels(dataset: Any) -> Array | None:
    labels = next((getattr(dataset, each) for each in ("targets", "labels") if hasattr(dataset, each)), None)
    return None if labels is None else np.asarray(labels)


def _channels_last(pixels: Array, name: str) -> Array:
    return pixels.transpose(0, 2, 3, 1) if name in ("SVHN", "STL10") else pixels


def _files(dataset: Any) -> tuple[list[str], Array] | None:
    """Return a set's files and labels, under the names that torchvision's sets have for them."""
    for name in ("samples", "_samples"):
        if samples := getattr(dataset, name, None):
            return [str(path) for path, _ in samples], np.asarray([label for _, label in samples])
    for name in ("_image_files", "_images"):
        if files := getattr(dataset, name, None):
            return [str(path) for path in files], np.asarray(dataset._labels)
    return None


def _names(classes: Sequence[Any] | None, labels: Array) -> tuple[str, ...]:
    """Return the class names; the first of several, numbered if another class has it too."""
    if classes is None:
        return validation.validate_class_names(None, labels)
    names = [each if isinstance(each, str) else str(each[0]) for each in classes]
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[i] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return tuple(names)


READER = DatasetReader(parts, takes=("folder", "images"))
