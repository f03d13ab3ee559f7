"""A store, or what is in it of some models, as one file: to be carried to another machine, and believed there."""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from robustness.classifiers import weights
from robustness.errors import RobustnessError, StoreError, shown
from robustness.metrics.evidence import Evidence
from robustness.util import atomic_write, paths
from robustness.util.hashing import canonical_json
from robustness.workspace.store import Store, document

FORMAT = "pytest-robustness/store/1"
KINDS = {"evidence": "safetensors", "weights": "safetensors", "generators": "safetensors"}
KINDS |= {"directions": "safetensors", "findings": "json"}
MANIFEST = "manifest.json"
MEMBER = re.compile(rf"({'|'.join(KINDS)})/([0-9a-f]{{2}})/(\2[0-9a-f]{{62}})\.(safetensors|json)", re.ASCII)
LIMIT = 2**26
"""Bytes that a manifest may have: a quarter of a million entries."""
BLOCK = 2**20
IMPORTING = ".importing-"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member: equal stores make equal archives, which a cache may be keyed by."""


class ArchiveError(StoreError):
    """An archive that cannot be written, or is not believed."""


@dataclass
class ArchiveSummary:
    """What was carried: entries by kind, bytes, and what was left where it is, with the reason."""

    entries: Counter[str] = field(default_factory=Counter)
    size: int = 0
    there: int = 0
    left: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.entries.items()))
        return f"{self.entries.total()} entries ({kinds or 'none'}), {self.size:,} bytes"


def export_store(store: Store, target: Path, models: Collection[str] = ()) -> ArchiveSummary:
    """
    Write a store as one file, whole or not at all; ``models``: what belongs to these alone.

    Fitted generators and directions name no model: with ``models`` they are left out, and made again where needed.
    What is torn is left out and told. ArchiveError where there is nothing to export.
    """
    told, known, manifest = ArchiveSummary(), set[str](), []
    with _writing(target) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for kind, path in _entries(store):
            try:
                owner = _owner(kind, path)
            except RobustnessError as error:
                told.left.append(f"{path}: {error}")
                continue
            known.add(owner)
            if models and owner not in models:
                continue
            name, size = path.relative_to(store.root).as_posix(), path.stat().st_size
            with path.open("rb") as source, archive.open(_member(name), "w", force_zip64=True) as member:
                manifest.append({"path": name, "size": size, "sha256": _copied(source, member, size)})
            told.entries[kind] += 1
            told.size += size
        if absent := sorted(set(models) - known):
            listed = ", ".join(sorted(known - {""})) or "none"
            raise ArchiveError(f"{store.root} has nothing of {', '.join(absent)}; it has something of: {listed}")
        if not manifest:
            raise ArchiveError(f"{store.root} has nothing to export; run the suites first, or name another --store")
        archive.writestr(_member(MANIFEST), canonical_json({"format": FORMAT, "files": manifest}))
    return told


def import_store(store: Store, source: Path) -> ArchiveSummary:
    """
    Put what an archive holds into a store, once all of it is found to be whole; what is there already stays.

    ArchiveError where a member is missing, foreign, changed or would lie elsewhere: then nothing is brought.
    """
    staging = store.root / f"{IMPORTING}{uuid.uuid4().hex}"
    told = ArchiveSummary()
    try:
        paths.check_regular(source)
        with zipfile.ZipFile(source) as archive:
            listed = _manifest(archive, source)
            _check_room(store, sum(entry["size"] for entry in listed), source)
            for entry in listed:
                _staged(archive, entry, staging, source)
        for entry in listed:
            _placed(store, staging, entry, told)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArchiveError(f"{source} could not be imported into {store.root}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return told


def _entries(store: Store) -> Iterator[tuple[str, Path]]:
    """Return the files of a store that may be carried, in a stable order; links are left alone, never followed."""
    for kind, suffix in KINDS.items():
        for path in sorted((store.root / kind).glob(f"??/*.{suffix}")):
            if MEMBER.fullmatch(path.relative_to(store.root).as_posix()) and not _linked(store, path):
                yield kind, path


def _linked(store: Store, path: Path) -> bool:
    return any(place.is_symlink() for place in (path, path.parent, path.parent.parent))


def _owner(kind: str, path: Path) -> str:
    """Return the model that an entry is of, "" where it names none; RobustnessError where it is torn or foreign."""
    if kind == "evidence":
        about = Evidence.from_bytes(path.read_bytes()).provenance
    elif kind == "findings":
        about = document(path.read_bytes())
    else:
        weights.verify_checksum(path)
        return weights.metadata(path).get("model", "")
    if about.get("key") != path.stem:
        raise StoreError("holds what belongs to another key")
    return str(about.get("label", "")).partition(":")[0]


def _manifest(archive: zipfile.ZipFile, source: Path) -> list[dict[str, Any]]:
    """Return what an archive says that it holds; ArchiveError where it holds anything else, or that elsewhere."""
    members = Counter(archive.namelist())
    listed: list[dict[str, Any]]
    try:
        if archive.getinfo(MANIFEST).file_size > LIMIT:
            raise ValueError("its manifest is too large")
        told = paths.parse_json(archive.read(MANIFEST))
        if told["format"] != FORMAT:
            raise ValueError(f"its format must be {FORMAT}, got {told['format']!r}")
        listed = [{"path": str(e["path"]), "size": int(e["size"]), "sha256": str(e["sha256"])} for e in told["files"]]
    except (KeyError, ValueError, TypeError) as error:
        raise ArchiveError(f"{source}: not an archive of `robustness evidence export`: {error}") from error
    for entry in listed:
        if not (found := MEMBER.fullmatch(entry["path"])) or found[4] != KINDS[found[1]]:
            raise ArchiveError(f"{source}: {shown(entry['path'])} is no place of a store; nothing was imported")
    due = Counter([MANIFEST, *(entry["path"] for entry in listed)])
    if strange := sorted({*(members - due), *(due - members)}):
        raise ArchiveError(
            f"{source}: holds other members than its manifest says, {shown(strange[0])} among them; nothing was "
            "imported"
        )
    for entry in listed:
        if entry["size"] != archive.getinfo(entry["path"]).file_size:
            raise ArchiveError(f"{source}: {entry['path']} is not what its manifest says; nothing was imported")
    return listed


def _check_room(store: Store, size: int, source: Path) -> None:
    """Raise ArchiveError where a disk has no room for what an archive says it holds, before any of it is unpacked."""
    there = next(folder for folder in (store.root, *store.root.absolute().parents) if folder.exists())
    if size > (free := shutil.disk_usage(there).free):
        raise ArchiveError(
            f"{source} would take {size:,} bytes, and {store.root} has room for {free:,}; nothing was imported; "
            "make room, or name another --store"
        )


def _staged(archive: zipfile.ZipFile, entry: dict[str, Any], staging: Path, source: Path) -> None:
    """Unpack one member beside the store's own, and hold it to what the manifest and it itself say."""
    path = staging / entry["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry["path"]) as member, path.open("xb") as target:
        if _copied(member, target, entry["size"]) != entry["sha256"] or path.stat().st_size > entry["size"]:
            raise ArchiveError(f"{source}: {entry['path']} is not what its manifest says; nothing was imported")
    try:
        _owner(entry["path"].partition("/")[0], path)
    except RobustnessError as error:
        raise ArchiveError(f"{source}: {entry['path']}: {error}; nothing was imported") from error


def _placed(store: Store, staging: Path, entry: dict[str, Any], told: ArchiveSummary) -> None:
    """Move one entry into the store, unless a whole one is there."""
    kind, target = entry["path"].partition("/")[0], store.root / entry["path"]
    paths.check_no_link(target.parent, store.root)
    if store.holds(target):
        try:
            _owner(kind, target)
            told.there += 1
            return
        except RobustnessError as error:
            told.left.append(f"{target} was replaced: {error}")
    target.parent.mkdir(parents=True, exist_ok=True)
    (staging / entry["path"]).replace(target)
    told.entries[kind] += 1
    told.size += entry["size"]


def _copied(source: IO[bytes], target: IO[bytes], size: int) -> str:
    """Copy no more than a byte beyond so many, and give the hash of what was copied."""
    digest, left = hashlib.sha256(), size + 1
    while block := source.read(min(BLOCK, left)):
        left -= len(block)
        digest.update(block)
        target.write(block)
    return digest.hexdigest()


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


@contextmanager
def _writing(target: Path) -> Iterator[IO[bytes]]:
    if target.is_dir():
        raise ArchiveError(f"`file` must not be a folder, got {target}; name a file in it, as store.zip")
    try:
        with atomic_write.atomic_writer(target) as stream:
            yield stream
    except OSError as error:
        raise ArchiveError(
            f"{target} could not be written ({error.strerror or error}), nothing was left there"
        ) from error
