"""Images from an ``.npz`` file: ``train_x, train_y, test_x, test_y``, the last two alone, or ``x, y`` for one part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from robustness import files
from robustness.datasets import checks, unpacked
from robustness.datasets.checks import Array
from robustness.datasets.images import Images
from robustness.errors import DataError, DataMissing

if TYPE_CHECKING:
    from robustness.datasets.spec import DataSpec

SPLIT = {"train": ("train_x", "train_y"), "test": ("test_x", "test_y")}
UNSPLIT = {"all": ("x", "y")}
TESTED = {"test": ("test_x", "test_y")}


def parts(
    *, spec: DataSpec, root: Path, cache: Path, progress: unpacked.Progress | None = None
) -> Mapping[str, Images]:
    """
    Give the parts of the file that ``spec`` names below ``root``: train and test, or all.

    ``classes`` in the file names the classes. Nothing in it is ever unpickled.
    """
    file = root / str(spec.file)
    if why := files.missing(file):
        raise DataMissing(f"no {spec.file} in {root}: {file} {why}; put it there, or name another data root")
    return read(unpacked.arrays(file, cache, progress), file, groups=spec.groups, labels=spec.labels)


def read(
    arrays: Mapping[str, Array], file: Path, *, groups: str | None = None, labels: str | None = None
) -> Mapping[str, Images]:
    """
    Make images of the arrays of a file.

    >>> import numpy as np
    >>> eyes = {"x": np.zeros((3, 8, 8), np.uint8), "y": np.array([0, 1, 1]), "classes": np.array(["closed", "open"])}
    >>> read(eyes, Path("eyes.npz"))
    {'all': Images(name='eyes', classes=('closed', 'open'))}
    """
    layouts = [
        layout for layout in (SPLIT, UNSPLIT) if all(name in arrays for pair in layout.values() for name in pair)
    ]
    if not layouts and all(name in arrays for name in TESTED["test"]):
        layouts = [TESTED]  # of a model that is not trained here
    if len(layouts) != 1:
        raise DataError(
            f"{file} must hold test_x and test_y (train_x and train_y too, to train on), or x and y instead; "
            f"it holds {_listed(arrays)}"
        )
    title = file.name.split(".npz")[0]
    layout = {part: (x, y if labels is None else _array_of(part, labels)) for part, (x, y) in layouts[0].items()}
    if any(y not in arrays for _, y in layout.values()):
        raise DataError(f"`labels` must name an array of {file}, got {labels!r}; it holds {_listed(arrays)}")
    names = "classes" if labels is None else f"{_bare(labels)}_classes"
    try:
        classes = checks.class_names(arrays.get(names), *(arrays[y] for _, y in layout.values()))
    except DataError as error:
        raise DataError(f"{title}: {error}") from None
    found, notes = {}, getattr(arrays, "notes", ())
    for part, (x, y) in layout.items():
        name = title if part == "all" else f"{title} {part}"
        found[part] = Images(
            name, arrays[x], arrays[y], classes, groups=arrays.get(_array_of(part, groups)), notes=notes
        )
    if groups is not None and all(images.groups is None for images in found.values()):
        raise DataError(f"`groups` must name an array of {file}, got {groups!r}; it holds {_listed(arrays)}")
    return found


def _array_of(part: str, name: str | None) -> str:
    """
    Give the name of one part's array, of groups or labels; that of the other part is called alike.

    >>> _array_of("test", "train_track"), _array_of("all", "group")
    ('test_track', 'group')
    """
    if name is None or part == "all":
        return name or ""
    return f"{part}_{_bare(name)}"


def _bare(name: str) -> str:
    return name.removeprefix("train_").removeprefix("test_")


def _listed(arrays: Mapping[str, Array]) -> str:
    return ", ".join(sorted(arrays)) or "no array"
