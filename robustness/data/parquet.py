"""Pictures in the rows of Parquet files, converted once to a file that can be mapped to memory."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustness.data import file_index, folder, image_source, tabular
from robustness.data.images import Images, LazyParts
from robustness.data.npz_cache import Progress, RateLimitedReporter, exclusive, refuse_other, stored_or_temporary
from robustness.data.readers import TABLE, DatasetReader
from robustness.errors import DataError, DataMissing, MissingLibrary
from robustness.util import atomic_write, file_formats, locks, source_files
from robustness.util import paths as files_

if TYPE_CHECKING:
    from robustness.data.spec import DataSpec

AT_ONCE = 64
"""Rows in memory at once while a file is brought to the other form."""


def parts(*, spec: DataSpec, root: Path, cache: Path, progress: Progress | None = None) -> Mapping[str, Images]:
    """
    Return the parts of a folder of Parquet files, recognised by the files' names; or one file as all.

    ``train-00000-of-00002.parquet`` belongs to the training part; if no file is called so, all files are one part.
    """
    if spec.file is not None:
        file = root / spec.file
        if why := files_.missing(file):
            raise DataMissing(f"no {spec.file} in {root}: {file} {why}; put it there, or use another")
        return LazyParts({"all": partial(_part, file.stem, [file], spec, cache, progress)})
    top = folder.require_folder(root, str(spec.folder))
    files = sorted(top.rglob("*.parquet"))
    if bad := next((f"{file} {why}" for file in files if (why := files_.missing(file))), ""):
        raise DataError(f"{top}: {bad}; fix it, or move it away")
    if not files:
        raise DataError(f"{top} must contain .parquet files, it has none; use the folder with them")
    called = [file.name.split("-")[0].split(".")[0] for file in files]
    if not tabular.has_parts(called, spec.part):
        return LazyParts({"all": partial(_part, top.name, files, spec, cache, progress)})
    of = {part: [file for file, name in zip(files, called, strict=True) if name == part] for part in sorted({*called})}
    return LazyParts(
        {
            part: partial(
                _part, f"{top.name} {part}", its, spec, cache, progress, [file for file in files if file not in its]
            )
            for part, its in of.items()
        }
    )


class _Mapped(tabular.Rows):
    """Pictures in an Arrow file that is mapped to memory."""

    def __init__(self, file: Path) -> None:
        import pyarrow as pa

        self._column = pa.ipc.open_file(pa.memory_map(str(file))).read_all().column(0)

    def __len__(self) -> int:
        return len(self._column)

    def read(self, place: int) -> bytes | memoryview:
        buffer = self._column[place].as_buffer()
        return b"" if buffer is None else memoryview(buffer)


def _part(
    title: str,
    files: Sequence[Path],
    spec: DataSpec,
    cache: Path,
    progress: Progress | None,
    others: Sequence[Path] = (),
) -> Images:
    """Return the pictures of some files; ``others`` are those of other parts, which may have labels of more classes."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingLibrary('data of kind "parquet" need pyarrow; pip install "pytest-robustness[parquet]"') from error
    digests = file_index.hashes(files, cache, progress)
    decoding = spec.decoding
    try:
        schema = pq.read_schema(files[0])
        picture = tabular.find_column(
            title, "`column` of [data.images]", decoding.column, tabular.PICTURES, schema.names
        )
        label = tabular.find_column(title, "`labels`", spec.labels, tabular.LABELS, schema.names)
        beside = (
            [label]
            if spec.groups is None
            else [label, tabular.find_column(title, "`groups`", spec.groups, (), schema.names)]
        )
        rest = pa.concat_tables([pq.read_table(file, columns=beside, partitioning=None) for file in files])
        key = hashlib.sha256("\n".join([picture, *digests]).encode()).hexdigest()[:32]
        name = f"parquet/{key}.arrow"
        target, again = stored_or_temporary(
            lambda to: _mapped(title, files, digests, picture, to / name, progress), cache, title, progress
        )
        rows = _Mapped(target)
    except (pa.ArrowException, OSError, KeyError) as error:
        why = next(
            (problem for file in files if (problem := file_formats.mistaken_file(file))),
            f"{error}; download or write it again",
        )
        raise DataError(f"{title}: {files[0]} cannot be read as Parquet: {why}") from error
    names = _names(schema.metadata, label)
    more = [] if names else [value for file in others for value in _labels(file, label)]
    labels, classes, notes = tabular.encode_labels(title, rest.column(label).to_pylist(), names, more)
    groups = None if spec.groups is None else np.array(rest.column(spec.groups).to_pylist())
    looks = rows.looks(cache / "parquet" / f"{key}.json", progress)
    return image_source.images(
        title, rows, looks, labels, classes, decoding, groups=groups, notes=again + notes, distributions=("pyarrow",)
    )


def _labels(file: Path, label: str) -> list[Any]:
    """Return the labels of another part, or nothing if they cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file, columns=[label], partitioning=None).column(label).to_pylist()  # type: ignore[no-any-return]
    except (pa.ArrowException, OSError, KeyError):
        return []


def _mapped(
    title: str, files: Sequence[Path], digests: Sequence[str], picture: str, target: Path, progress: Progress | None
) -> tuple[Path, tuple[str, ...]]:
    """
    Write the pictures as one Arrow file, a few rows at a time, unless an intact one exists.

    Return the file, and notes for the run's report.
    """
    files_.check_no_link(target, target.parent.parent)

    def make() -> tuple[Path, tuple[str, ...]]:
        damaged = target.exists() and target.with_suffix(".sha256").exists()
        _unpack(title, files, digests, picture, target, RateLimitedReporter(progress))
        note = f"the store's copy of {title} was damaged ({target}); its pictures were unpacked again"
        return target, (note,) if damaged else ()

    return locks.get_or_make(
        make,
        read=lambda: (target, ()) if _whole(target) else None,
        exclusive=exclusive(target, f"unpacks {title}", progress),
    )


def _unpack(
    title: str, files: Sequence[Path], digests: Sequence[str], picture: str, target: Path, say: RateLimitedReporter
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    done = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        scratch = Path(temporary) / target.name
        with pa.ipc.new_file(str(scratch), pa.schema([("picture", pa.large_binary())])) as writer:
            for file in files:
                with pq.ParquetFile(file) as opened:
                    for batch in opened.iter_batches(AT_ONCE, columns=[picture]):
                        writer.write_batch(pa.record_batch([_bytes(title, picture, batch.column(0))], ["picture"]))
                        say(f"unpacking {title}, {(done := done + len(batch)):,} rows")
        for file, checksum in zip(files, digests, strict=True):
            refuse_other(file, checksum)
        digest = source_files.sha256_file(scratch)
        if target.is_dir():
            target.rename(Path(temporary) / "damaged")
        scratch.replace(target)
        with atomic_write.atomic_writer(target.with_suffix(".sha256"), below=target.parent.parent) as stream:
            stream.write(digest.encode())


def _whole(target: Path) -> bool:
    """Return whether an Arrow file is unchanged, by its checksum; not read if its times are unchanged."""
    try:
        files_.check_regular(target, follow=False)
        recorded = target.with_suffix(".sha256").read_text()
    except (OSError, ValueError):
        return False
    return file_index.hashes([target], target.parent, index=target.with_suffix(".sums.json")) == [recorded]


def _bytes(title: str, name: str, column: Any) -> Any:
    """Return a column of bytes, or of structures that have them, as bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(
            f"{title}: the column {name!r} must contain pictures as bytes, or as {{bytes, path}}, got {column.type}; "
            "name another in `column` of [data.images]"
        )
    return column.cast(pa.large_binary())


def _names(metadata: Mapping[bytes, bytes] | None, label: str) -> list[str] | None:
    """Return the names of the classes, if Hugging Face's library wrote them into the file."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return names if isinstance(names, list) else None


READER = DatasetReader(parts, needs=("file", "folder"), takes=TABLE, suffixes=(".parquet",))
