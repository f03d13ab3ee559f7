"""Pictures of a data set that Hugging Face's library has saved to disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustness.data import file_index, folder, image_source, tabular
from robustness.data.images import Images, LazyParts
from robustness.data.npz_cache import Progress
from robustness.data.readers import TABLE, DatasetReader
from robustness.errors import DataError, MissingLibrary

if TYPE_CHECKING:
    from robustness.data.spec import DataSpec


def parts(*, spec: DataSpec, root: Path, cache: Path, progress: Progress | None = None) -> Mapping[str, Images]:
    """Return the parts of a folder that ``save_to_disk`` has written: train and test (or validation), or all."""
    top = folder.require_folder(root, str(spec.folder))
    try:
        import datasets
    except ImportError as error:
        raise MissingLibrary(
            'data of kind "huggingface" need datasets; pip install "pytest-robustness[huggingface]"'
        ) from error
    try:
        loaded = datasets.load_from_disk(str(top))
    except Exception as error:  # what that library raises for other folders is of many kinds
        raise DataError(f"{top} must be a folder written by `save_to_disk`, but: {error}; save it again") from error
    if not isinstance(loaded, datasets.DatasetDict):
        return LazyParts({"all": partial(_part, top.name, loaded, top, spec, cache, progress)})
    if not tabular.has_parts(list(loaded), spec.part):
        raise DataError(f"{top} must have a part train, test or validation, it has {', '.join(loaded) or 'none'}")
    return LazyParts(
        {
            name: partial(
                _part, f"{top.name} {name}", rows, top / name, spec, cache, progress,
                [other for part, other in loaded.items() if part != name],
            )
            for name, rows in loaded.items()
        }
    )  # fmt: skip


class _Saved(tabular.Rows):
    """Pictures in the rows of a saved data set, which that library maps to memory."""

    def __init__(self, title: str, rows: Any, name: str) -> None:
        self._title, self._rows, self._name = title, rows, name

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, place: int) -> bytes | memoryview:
        """Return one picture's bytes."""
        return tabular.cell_bytes(self._rows[place][self._name], self._title, self._name)


def _part(
    title: str,
    rows: Any,
    where: Path,
    spec: DataSpec,
    cache: Path,
    progress: Progress | None,
    others: Sequence[Any] = (),
) -> Images:
    """Return the pictures of a part; ``others`` are the other parts, which may have labels of more classes."""
    import datasets

    try:
        rows.data.validate(full=True)  # else a damaged offset has memory read that is none of the table's
    except Exception as error:  # what Arrow says of damaged tables is of many kinds
        raise DataError(f"{title}: one of its tables is damaged ({error}); save it again") from error
    there = list(rows.features)
    picture = tabular.find_column(title, "`column` of [data.images]", spec.decoding.column, tabular.PICTURES, there)
    label = tabular.find_column(title, "`labels`", spec.labels, tabular.LABELS, there)
    kind = rows.features[picture]
    held = rows.select_columns([picture])
    if isinstance(kind, datasets.Image):
        held = held.cast_column(picture, datasets.Image(decode=False))
    saved = _Saved(title, held, picture)
    files = sorted(path for path in where.rglob("*") if path.is_file())
    digests = file_index.hashes(files, cache, progress)
    key = hashlib.sha256("\n".join([picture, str(len(rows)), *digests]).encode()).hexdigest()[:32]
    names = getattr(rows.features[label], "names", None)
    more = [value for other in others if label in other.features for value in other.select_columns([label])[:][label]]
    labels, classes, notes = tabular.encode_labels(title, list(rows.select_columns([label])[:][label]), names, more)
    groups = None
    if spec.groups is not None:
        name = tabular.find_column(title, "`groups`", spec.groups, (), there)
        groups = np.array(rows.select_columns([name])[:][name])
    looks = saved.looks(cache / "huggingface" / f"{key}.json", progress)
    return image_source.images(
        title, saved, looks, labels, classes, spec.decoding, groups=groups, notes=notes,
        distributions=("datasets", "pyarrow"),
    )  # fmt: skip


READER = DatasetReader(parts, needs=("folder",), takes=TABLE)
