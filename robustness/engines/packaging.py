"""Packs a card's model as files addressed by content, and rebuilds it on a machine without a shared folder."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from robustness.cards import Card
from robustness.classifiers.file_reads import module_file
from robustness.classifiers.weights import all_files as weight_files
from robustness.util import source_files

if TYPE_CHECKING:
    from torch import nn

    from robustness.classifiers.build import LoadedModel

PROJECT, BESIDE = "project", "beside"
"""Folders for unpacked modules, and for the files beside the card and its weights."""


@dataclass(frozen=True)
class ModelPackage:
    """
    A packed model: its card, and the hash of each file by its unpacked path.

    Cards of one project are unpacked into one folder, ``project``: modules with the same name must be the same module.
    """

    card: Card
    classes: tuple[str, ...]
    weights: str
    files: tuple[tuple[str, str], ...]
    project: str

    @property
    def name(self) -> str:
        """Names the model by content."""
        about = (self.card.file.model_dump_json(include={"model"}), self.classes, self.weights, self.files)
        return hashlib.sha256(repr(about).encode()).hexdigest()


def pack_model(
    card: Card, weights: Path, loaded: LoadedModel, classes: Sequence[str]
) -> tuple[ModelPackage, dict[str, Path]]:
    """Return a loaded model's package, and the local path of each hash."""
    by_file = {file: name for name in list(sys.modules) if name != "__main__" and (file := module_file(name))}
    # Folders are recreated by their files; files that were missing there are missing here too.
    there = [card.project / name for name, digest in loaded.dependencies.items() if digest and not name.endswith("/")]
    modules = {file: by_file.get(str(file)) for file in there}
    files = {**dict(_modules(card, modules)), **dict(_beside(card, weights))}
    hashes = {place: source_files.sha256_file(file) for place, file in files.items()}
    bare = card.file.model_copy(update={"claims": {}, "sweeps": {}})
    shipped = ModelPackage(
        Card(bare, card.path),
        tuple(classes),
        f"{BESIDE}/{_place(card, weights)}",
        tuple(sorted(hashes.items())),
        hashlib.sha256(str(card.project.resolve()).encode()).hexdigest()[:16],
    )
    return shipped, {hashes[place]: file for place, file in files.items()}


def _modules(card: Card, modules: Mapping[Path, str | None]) -> Iterator[tuple[str, Path]]:
    """Return the project's files by import path and by path in the project."""
    roots = {_root_of(file, module) for file, module in modules.items() if module}
    for file, module in modules.items():
        if not module:  # a file that a module reads, relative to its own folder
            yield from (
                (f"{PROJECT}/{file.relative_to(top).as_posix()}", file) for top in roots if file.is_relative_to(top)
            )
        if file.is_relative_to(card.project):
            yield f"{PROJECT}/{file.relative_to(card.project).as_posix()}", file
        if module:
            place = module.replace(".", "/")
            yield f"{PROJECT}/{place}/__init__.py" if file.stem == "__init__" else f"{PROJECT}/{place}.py", file


def _root_of(file: Path, module: str) -> Path:
    """Return the folder to which a module's name is relative."""
    depth = module.count(".") + (file.stem == "__init__")
    return file.parents[depth]


def _beside(card: Card, weights: Path) -> Iterator[tuple[str, Path]]:
    """Return the weights file, the files that it names, and a library's folder."""
    listed = weight_files(weights)
    if card.file.model.factory_library == "hf":
        folder = card.path.parent / card.file.model.factory.partition(":")[2]
        listed += sorted(file for file in folder.iterdir() if file.is_file() and file not in listed)
    for file in listed:
        named = file != weights and file.is_relative_to(weights.parent)
        place = Path(_place(card, weights)).parent / file.relative_to(weights.parent) if named else _place(card, file)
        yield f"{BESIDE}/{Path(place).as_posix()}", file


def _place(card: Card, file: Path) -> str:
    """Return a file's path relative to the card's folder, or only its name if it lies elsewhere."""
    folder = card.path.parent.resolve()
    return file.resolve().relative_to(folder).as_posix() if file.resolve().is_relative_to(folder) else file.name


def unpack_model(shipped: ModelPackage, get: Callable[[str], bytes]) -> nn.Module:
    """Rebuild a packed model; ``get`` returns a file's content by its hash. ModelError as for any loading."""
    from robustness.classifiers import build

    card = _write_files(shipped, get)
    return build.load_model(card, card.path.parent / shipped.weights.partition("/")[2], shipped.classes).module


def _write_files(shipped: ModelPackage, get: Callable[[str], bytes]) -> Card:
    """Write the files of a package, and return its card beside them."""
    project, beside = _folder(shipped.project) / PROJECT, _folder(shipped.name) / BESIDE
    for place, content in shipped.files:
        first, _, rest = place.partition("/")
        path = (project if first == PROJECT else beside) / rest
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(get(content))
    beside.mkdir(parents=True, exist_ok=True)
    project.mkdir(parents=True, exist_ok=True)
    return replace(shipped.card, path=beside / shipped.card.path.name).override(project=project)


@cache
def _root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="robustness-", ignore_cleanup_errors=True)


def _folder(name: str) -> Path:
    return Path(_root().name) / name
