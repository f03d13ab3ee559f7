"""Images from an ``.npz`` file: ``train_x, train_y, test_x, test_y``, the last two alone, or ``x, y``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from robustness.data import npz_cache, validation
from robustness.data.images import TESTS, Images, LazyParts
from robustness.data.readers import DatasetReader
from robustness.data.validation import Array
from robustness.errors import DataError, DataMissing
from robustness.util import paths

if TYPE_CHECKING:
    from robustness.data.spec import DataSpec

PARTS = ("train", *TESTS)
ROLES = {
    "x": ("x", "image", "images", "img", "imgs", "pixels", "data", "inputs"),
    "y": ("y", "label", "labels", "target", "targets"),
}
"""What arrays of images and of labels are called, beside the part that they are of: MedMNIST says ``val_images``."""


def parts(
    *, spec: DataSpec, root: Path, cache: Path, progress: npz_cache.Progress | None = None
) -> Mapping[str, Images]:
    """
    Return the parts of the file that ``spec`` names below ``root``: train and test, or all.

    ``classes`` in the file names the classes. Nothing in it is ever unpickled.
    """
    file = root / str(spec.file)
    if why := paths.missing(file):
        raise DataMissing(f"no {spec.file} in {root}: {file} {why}; put it there, or use another data root")
    return read(npz_cache.memory_mapped_arrays(file, cache, progress), file, groups=spec.groups, labels=spec.labels)


def read(
    arrays: Mapping[str, Array], file: Path, *, groups: str | None = None, labels: str | None = None
) -> Mapping[str, Images]:
    """
    Make images of the arrays of a file.

    >>> import numpy as np
    >>> eyes = {"x": np.zeros((3, 8, 8), np.uint8), "y": np.array([0, 1, 1]), "classes": np.array(["closed", "open"])}
    >>> dict(read(eyes, Path("eyes.npz")))
    {'all': Images(name='eyes', classes=('closed', 'open'))}
    """
    layout = _layout(arrays, file)
    title = file.name.split(".npz")[0]
    if labels is not None:
        layout = {part: (x, _array_of(part, labels)) for part, (x, _) in layout.items()}
    if any(y not in arrays for _, y in layout.values()):
        raise DataError(f"`labels` must name an array of {file}, got {labels!r}; it holds {_listed(arrays)}")
    names = "classes" if labels is None else f"{_bare(labels)}_classes"
    try:
        classes = validation.validate_class_names(arrays.get(names), *(arrays[y] for _, y in layout.values()))
    except DataError as error:
        raise DataError(f"{title}: {error}") from None
    readers: dict[str, Callable[[], Images]] = {}
    again = getattr(arrays, "notes", ())
    for part, (x, y) in layout.items():
        name = title if part == "all" else f"{title} {part}"
        notes = () if names in arrays else validation.note_from_one(name, *(arrays[y] for _, y in layout.values()))
        readers[part] = partial(
            Images, name, arrays[x], arrays[y], classes, groups=arrays.get(_array_of(part, groups)), notes=again + notes
        )
    if groups is not None and not any(_array_of(part, groups) in arrays for part in layout):
        raise DataError(f"`groups` must name an array of {file}, got {groups!r}; it holds {_listed(arrays)}")
    return LazyParts(readers)


def _layout(arrays: Mapping[str, Array], file: Path) -> dict[str, tuple[str, str]]:
    """Return the arrays of images and of labels of each part; DataError if there is no test part, or two."""
    roles: dict[tuple[str, str], str] = {}
    twice = False
    for name in sorted(arrays):
        for role in _roles(name):
            usual = "_".join(role) if role[0] != "all" else role[1]
            twice |= role in roles and usual not in arrays
            roles[role] = usual if usual in arrays else name
    layout = {
        part: (roles[part, "x"], roles[part, "y"])
        for part in (*PARTS, "all")
        if (part, "x") in roles and (part, "y") in roles
    }
    if twice or not set(layout) - {"train"} or ("all" in layout and len(layout) > 1):
        raise DataError(
            f"{file} must hold test_x and test_y (train_x and train_y too, to train on), or x and y instead; it holds "
            f"{_listed(arrays)}"
        )
    return layout


def _roles(name: str) -> Iterator[tuple[str, str]]:
    """
    Yield the part that an array is of by its name, and whether it holds images ("x") or labels ("y").

    >>> [*_roles("test_images"), *_roles("y_train"), *_roles("group")]
    [('test', 'x'), ('train', 'y')]
    """
    words = name.casefold().split("_")
    part = next((word for word in words if word in PARTS), "all")
    rest = "_".join(word for word in words if word != part)
    yield from ((part, kind) for kind, called in ROLES.items() if rest in called)


def _array_of(part: str, name: str | None) -> str:
    """
    Return the name of one part's array, of groups or labels; that of the other part is called alike.

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


READER = DatasetReader(parts, needs=("file",), takes=("groups", "labels", "part"), suffixes=(".npz", ".npz.xz"))
