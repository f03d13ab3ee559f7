"""
Write crops of eyes, in one folder per class or in a list of records, as an array file that the cards can name.

    python -m reports.eyes_parseval.crops FROM TO.npz --subjects persons.csv

takes a folder with one folder of images per class, or records of crop, label and person (``.npy`` or a pickle).
"""

from __future__ import annotations

import argparse
import csv
import io
import pickle
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reports.paper import answer
from robustness.data.decoding import Decoding, decode
from robustness.data.folder import KINDS
from robustness.data.validation import Array
from robustness.errors import DataError
from robustness.util import output, paths
from robustness.util.atomic_write import replace

# All that a pickle of arrays, numbers and texts names; anything else could run code, and is rejected.
HARMLESS = {
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
FIELDS = ("crop", "label", "person")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 2 if it fails, with the reason."""
    description = (__doc__ or "").split("\n")[1]
    parser = argparse.ArgumentParser(prog="python -m reports.eyes_parseval.crops", description=description)
    parser.add_argument("source", metavar="FROM", type=Path, help="one folder per class in it, or .npy or .pkl records")
    parser.add_argument("target", metavar="TO.npz", type=Path, help="the file to write")
    parser.add_argument("--size", metavar="N", type=int, default=32, help="its side in pixels (32)")
    parser.add_argument("--subjects", metavar="FILE", type=Path, help="CSV of image and person, for a folder")
    options = parser.parse_args(arguments)
    return answer(lambda: [write(options.source, options.target, options.size, options.subjects)])


def write(source: Path, target: Path, size: int, subjects: Path | None = None) -> Path:
    """
    Write a folder of crops, or a file of records, as ``x, y, classes`` and, if persons are known, ``subject``.

    Crops become grey squares of ``size`` pixels. ``subjects`` is a CSV file of two columns, image and person. Nothing
    is written unless every image can be read; DataError names the first that cannot.
    """
    if not 1 <= size <= 4096:
        raise DataError(f"`size` must lie from 1 to 4096, got {size}")
    if target.suffix != ".npz":
        raise DataError(f"`TO` must end in .npz, as a card's file does, got {target}")
    if target.exists():
        raise DataError(f"{target} exists already; remove it, or name another file")
    arrays = from_folder(source, size, subjects) if source.is_dir() else from_records(source, size)
    content = io.BytesIO()
    np.savez_compressed(content, **dict[str, Any](arrays))
    replace(target, content.getvalue())
    counts = zip(arrays["classes"], np.bincount(arrays["y"], minlength=len(arrays["classes"])), strict=True)
    people = f" of {len(np.unique(arrays['subject'])):,} persons" if "subject" in arrays else ""
    print(f"{len(arrays['y']):,} crops{people}: {', '.join(f'{count:,} {name}' for name, count in counts)}")
    return target


def from_folder(folder: Path, size: int, subjects: Path | None = None) -> Mapping[str, Array]:
    """Read a folder with a folder of images for each class."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(classes) < 2:
        raise DataError(f"{folder} must hold a folder for each of two classes or more, it holds {len(classes)}")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in KINDS)
        if not images:
            raise DataError(f"{folder / name} holds no image ({', '.join(KINDS)}); remove it, or put some there")
        files, labels = files + images, labels + [label] * len(images)
    x = np.stack([_decoded(path, size) for path in files])
    arrays = {"x": x, "y": np.array(labels), "classes": np.array(classes)}
    if subjects is None:
        return arrays
    persons, names = _persons(subjects), [path.relative_to(folder).as_posix() for path in files]
    if missing := [name for name in names if name not in persons]:
        raise DataError(f"{subjects} must name the person of every image, {len(missing)} are missing: {missing[0]} …")
    return {**arrays, "subject": _codes([persons[name] for name in names])}


def from_records(file: Path, size: int) -> Mapping[str, Array]:
    """
    Read a list of records, of crop, label and person in this order or by these names: ``.npy`` or a pickle.

    Only arrays, numbers and texts are unpickled. A crop that is not of bytes is scaled to them by its own smallest and
    largest value: a model that standardises each image sees the same, to a part in 255 of its range.
    """
    rows = [_record(row, index, file) for index, row in enumerate(_unpickled(file))]
    if not rows:
        raise DataError(f"{file} must be a list of records of crop, label and person, it is empty")
    crops, labels, persons = zip(*rows, strict=True)
    return {
        "x": np.stack([_resized(_bytes(np.asarray(crop), i, file), size) for i, crop in enumerate(crops)]),
        "y": _codes(list(map(str, labels))),
        "classes": np.unique(list(map(str, labels))),
        "subject": _codes(list(map(str, persons))),
    }


def _decoded(path: Path, size: int) -> Array:
    try:
        return decode(paths.read_bytes(path), Decoding(mode="L", size=(size, size), crop="none"))
    except (OSError, DataError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


def _resized(crop: Array, size: int) -> Array:
    from PIL import Image

    return np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BILINEAR))


def _persons(file: Path) -> dict[str, str]:
    persons: dict[str, str] = {}
    for row in csv.reader(io.StringIO(paths.read_bytes(file).decode("utf-8-sig"))):
        if row and len(row) != 2:
            raise DataError(f"{file} must have two columns, image and person, got {row}")
        name, person = map(str.strip, row or ("", ""))
        if persons.setdefault(name, person) != person:
            raise DataError(f"{file} names two persons for {name}: {persons[name]} and {person}")
    return persons


def _codes(names: Sequence[str]) -> Array:
    return np.unique(np.array(names), return_inverse=True)[1]


class _Harmless(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which could run code")
        return super().find_class(module, name)


def _unpickled(file: Path) -> Iterable[Any]:
    try:
        stream = io.BytesIO(paths.read_bytes(file))
        if stream.getvalue()[:6] == b"\x93NUMPY":
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            read(stream)
        records = _Harmless(stream).load()
    except (OSError, EOFError, ValueError, pickle.UnpicklingError, AttributeError, IndexError, KeyError) as error:
        raise DataError(f"{file} cannot be read as a list of records: {error}") from error
    rows = records.tolist() if isinstance(records, np.ndarray) else records
    if not isinstance(rows, list | tuple):
        raise DataError(f"{file} must be a list of records of crop, label and person, it is a {type(rows).__name__}")
    return rows


def _record(row: Any, index: int, file: Path) -> tuple[Any, ...]:
    if isinstance(row, Mapping) and all(name in row for name in FIELDS):
        return tuple(row[name] for name in FIELDS)
    if isinstance(row, list | tuple) and len(row) == len(FIELDS):
        return tuple(row)
    raise DataError(f"{file}: record {index} must be of crop, label and person, got {type(row).__name__}")


def _bytes(crop: Array, index: int, file: Path) -> Array:
    crop = crop.squeeze()
    if crop.ndim != 2 or crop.dtype.kind not in "uif" or not np.isfinite(crop.astype(float)).all():
        raise DataError(
            f"{file}: the crop of record {index} must be grey, of finite numbers, got {crop.dtype} {crop.shape}"
        )
    if crop.dtype == np.uint8:
        return crop
    low, high = float(crop.min()), float(crop.max())
    scaled = (crop - low) / (high - low) if high > low else np.zeros(crop.shape)
    return np.rint(255 * scaled).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(output.run(main))
