"""Properties of files, cached between runs while the files are unchanged by git's rule."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from robustness.data.lazy_images import pool
from robustness.data.npz_cache import Progress, RateLimitedReporter, exclusive
from robustness.util import atomic_write, locks
from robustness.util import paths as files
from robustness.util.file_stat import file_stat, is_settled
from robustness.util.source_files import sha256_file

T = TypeVar("T")

FORM = "files 1"

LOOKING = "inspecting new files"
LOOKS = "inspects the same files"
AT_ONCE = 1000
"""Files whose turn has come: all at once would be as many waiting tasks."""

Known = dict[str, tuple[list[int], Any]]


def cached_per_file(
    files: Mapping[str, str],
    index: Path,
    look: Callable[[str], Any],
    version: str,
    progress: Progress | None = None,
    *,
    now: Callable[[], int] = time.time_ns,
) -> dict[str, Any]:
    """
    Return ``look(file)``, a JSON value, for every file; from ``index`` if the file is unchanged.

    A file is unchanged if its size, times of change and inode are, and if no time is younger than the index: a file
    that is written right after an inspection may keep its times. ``version`` names what else the result depends on.
    """
    stats = {name: file_stat(path) for name, path in files.items()}
    known: Known = {}

    def read() -> Known | None:
        nonlocal known
        known = _read(index, version)
        return None if _changed(files, stats, known) else known

    def make() -> Known:
        missing = _changed(files, stats, known)
        taken = now()
        looks = map_in_threads(look, [files[name] for name in missing], LOOKING, progress)
        values = dict(zip(missing, looks, strict=True))
        entries = {name: (stats[name], values[name] if name in values else known[name][1]) for name in files}
        _put(index, {"form": FORM, "version": version, "taken": taken, "files": entries})
        return entries

    entries = locks.get_or_make(make, read=read, exclusive=exclusive(index, LOOKS, progress))
    return {name: entries[name][1] for name in files}


def hashes(
    files: Sequence[Path], cache: Path, progress: Progress | None = None, index: Path | None = None
) -> list[str]:
    """Return the SHA-256 of files in one folder, from its index if they are unchanged."""
    named = {str(file): str(file) for file in files}
    digests = cached_per_file(named, index or index_of(files[0].parent, cache, "sums"), _sha256, "1", progress)
    return [digests[name] for name in named]


def index_of(folder: Path, cache: Path, what: str) -> Path:
    """Return the path of a folder's index."""
    name = hashlib.sha256(str(folder).encode(errors="surrogateescape")).hexdigest()[:32]
    return cache / "files" / f"{name}-{what}.json"


def cached_per_row(
    file: Path, version: str, make: Callable[[int], Any], count: int, what: str, progress: Progress | None = None
) -> list[Any]:
    """Return a JSON value per row for ``count`` rows, from ``file``, which is named by their content."""

    def read() -> list[Any] | None:
        values = _cached(file, version)
        return values if len(values) == count else None

    def read_rows() -> list[Any]:
        values = list(map_in_threads(make, range(count), what, progress))
        _put(file, {"form": FORM, "version": version, "values": values})
        return values

    return locks.get_or_make(read_rows, read=read, exclusive=exclusive(file, LOOKS, progress))


def map_in_threads(
    work: Callable[[T], Any], things: Sequence[T], what: str, progress: Progress | None = None
) -> Iterator[Any]:
    """Call a function for many values, in threads, and return the results in order."""
    say = RateLimitedReporter(progress)
    for start in range(0, len(things), AT_ONCE):
        yield from pool().map(work, things[start : start + AT_ONCE])
        say(f"{what}, {min(start + AT_ONCE, len(things)):,} of {len(things):,}")


def _sha256(file: str) -> str:
    return sha256_file(Path(file))


def _cached(file: Path, version: str) -> list[Any]:
    try:
        document = _document(file)
        right = document["form"] == FORM and document["version"] == version
        return list(document["values"]) if right else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _changed(files: Mapping[str, str], stats: Mapping[str, list[int]], known: Known) -> list[str]:
    return [name for name in files if not stats[name] or name not in known or known[name][0] != stats[name]]


def _read(index: Path, version: str) -> Known:
    """Return the valid entries: none of another format, none that may have changed right after inspection."""
    try:
        document = _document(index)
        if document["form"] != FORM or document["version"] != version:
            return {}
        taken = document["taken"]
        return {name: (stat, value) for name, (stat, value) in document["files"].items() if is_settled(stat, taken)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _content(file: Path) -> bytes:
    files.check_no_link(file, _store(file))
    return files.read_bytes(file, follow=False)


def _store(file: Path) -> Path:
    """Return the store's folder of an index file, which lies in a folder of its kind."""
    return file.parent.parent


def _document(file: Path) -> dict[str, Any]:
    """Return what `_put` wrote; ValueError if its checksum does not match."""
    document: dict[str, Any] = json.loads(_content(file))
    if document.pop("checksum", None) != _sum(document):
        raise ValueError("damaged, or of an older version")
    return document


def _sum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _put(file: Path, content: Mapping[str, Any]) -> None:
    """Store a document for the next run; if the folder cannot be written, the next run computes it again."""
    with contextlib.suppress(OSError), atomic_write.atomic_writer(file, below=_store(file)) as stream:
        stream.write(json.dumps({**content, "checksum": _sum(content)}, separators=(",", ":")).encode())
