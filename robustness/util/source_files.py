"""The source files and distributions of a factory or a recipe, read from their text without importing."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.metadata
import json
import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path, PurePath

from robustness.util import syntax

UNORDERED = {"", ".html", ".json", ".log", ".md", ".py", ".toml", ".txt", ".xml", ".yaml", ".yml"}
"""Files of which the newest is no choice of a model's: what is written beside models in every run."""

ALWAYS = ("numpy", "torch")
"""What every sweep computes with, whoever imports it."""


def find_module_file(module: str, path: list[str]) -> Path | None:
    """
    Return the file of a module on ``path`` without importing it or its packages; None if there is none.

    >>> find_module_file("json.decoder", sys.path).name
    'decoder.py'
    """
    spec = _spec(module, path)
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def _spec(module: str, path: list[str]) -> importlib.machinery.ModuleSpec | None:
    parent, _, name = module.rpartition(".")
    where = path
    if parent:
        package = _spec(parent, path)
        if package is None or package.submodule_search_locations is None:
            return None
        where = list(package.submodule_search_locations)
    # By the last part alone: of a namespace in a namespace the full name is looked up among what is imported.
    return importlib.machinery.PathFinder.find_spec(name, where)


def defines_name(file: Path, name: str) -> bool:
    """Return whether a module's top level binds a name, or may bind it; SyntaxError if the file is not Python."""
    return syntax.defines(file.read_bytes(), str(file), name)


class ImportClosure:
    """
    All modules that some modules import, directly or not, as far as their text shows.

    ``files`` has those of the project by name, ``packages`` the top-level names of installed ones; ``by_name``
    says that some file imports by a computed name or executes text, so that there may be others.
    A file that is not Python is listed without imports: importing it would fail.
    """

    def __init__(self, modules: Iterable[str], path: list[str]) -> None:
        self._path = path
        self._seen: set[str] = set()
        self._installed: set[str] = set()
        self.files: dict[str, Path] = {}
        self.packages: set[str] = set()
        self.by_name = False
        for module in modules:
            self._visit(module)

    def _visit(self, module: str) -> None:
        top, parent = module.partition(".")[0], module.rpartition(".")[0]
        # Not listed: what the harness itself means by a sweep is the version of its semantics.
        if top == syntax.OWN or module in self._seen:
            return
        self._seen.add(module)
        if parent:
            self._visit(parent)
        if parent in self._installed:
            return
        file = find_module_file(module, self._path)
        if file is None:  # built in, a folder without __init__, or no module but a name in one
            return
        if is_installed(file):
            self._installed.add(module)
            if top not in sys.stdlib_module_names:
                self.packages.add(top)
            return
        self.files[module] = file
        if file.suffix == ".py":
            imports = syntax.imports(file.read_bytes(), str(file))
            self.by_name |= imports.by_name
            for imported in imports.modules(module if file.name == "__init__.py" else parent):
                self._visit(imported)


def class_closure(cls: type) -> ImportClosure:
    """
    Return the files and distributions that a class's module imports; none for the package's own classes.

    >>> class_closure(ImportClosure).files
    {}
    """
    return ImportClosure([cls.__module__], sys.path)


@cache
def _installed_roots() -> tuple[Path, ...]:
    keys = ("purelib", "platlib", "stdlib", "platstdlib")
    return tuple({Path(sysconfig.get_path(key)).resolve() for key in keys})


def is_installed(file: Path) -> bool:
    """Return whether a file belongs to an installed distribution or to Python, not to a project."""
    file = file.resolve()
    return bool({"site-packages", "dist-packages"} & set(file.parts)) or any(
        file.is_relative_to(root) for root in _installed_roots()
    )


def sha256_file(file: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_hash(file: Path) -> str:
    """Return the sha256 of a file: of the meaning of a Python file (`syntax.meaning`), of the bytes of any other."""
    return syntax.meaning(file.read_bytes(), str(file)) if file.suffix == ".py" else sha256_file(file)


def hash_files(files: Iterable[Path], project: Path) -> dict[str, str]:
    """Return each file's hash by path, relative to the project if it lies in it."""
    return {_relative(file, project): content_hash(file) for file in sorted(files)}


def _relative(file: Path, project: Path) -> str:
    return file.relative_to(project).as_posix() if file.is_relative_to(project) else str(file)


def changed_files(recorded: Mapping[str, str], project: Path) -> list[str]:
    """Return the recorded files and folders that have changed or are missing."""
    return [name for name, recorded_digest in recorded.items() if digest(project, name) != recorded_digest]


def digest(project: Path, name: str) -> str:
    """
    Hash a file, or the names in a folder where ``name`` ends in ``/``; "" if there is none.

    The newest file of each suffix is part of a folder's hash, because checkpoints are often chosen that way.
    """
    try:
        return _listing(project / name) if name.endswith("/") else content_hash(project / name)
    except OSError:
        return ""


def _listing(folder: Path) -> str:
    newest: dict[str, tuple[int, str]] = {}
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue
            names.append(entry.name)
            suffix = PurePath(entry.name).suffix
            if suffix not in UNORDERED and entry.is_file():
                newest[suffix] = max(newest.get(suffix, (0, "")), (entry.stat().st_mtime_ns, entry.name))
    about = [sorted(names), sorted(name for _, name in newest.values())]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def absolute(name: str, project: Path) -> str:
    """
    Return a recorded name as an absolute path.

    >>> absolute("runs/", Path("/nets")), absolute("/tmp/a", Path("/nets"))
    ('/nets/runs/', '/tmp/a')
    """
    return f"{project / name}{'/' if name.endswith('/') else ''}"


def distribution_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of the distributions that hold these top-level packages, and of those every sweep uses."""
    wanted = set(packages) | set(ALWAYS)
    versions: dict[str, str] = {}
    for package in sorted(wanted):
        try:  # nearly always the distribution is called as the package is; the full map takes long to build
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            for distribution in _distributions().get(package, ()):
                versions[distribution] = importlib.metadata.version(distribution)
    return versions


_distributions = cache(importlib.metadata.packages_distributions)


def changed_distributions(recorded: Mapping[str, str]) -> list[str]:
    """Return the recorded distributions that have another version now, or are missing."""
    return [name for name, version in recorded.items() if _version(name) != version]


@cache
def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
