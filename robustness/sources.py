"""Which Python files and distributions stand behind a factory or a recipe, found by reading, never by importing."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.metadata
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

OWN = "robustness"
"""Not listed: what the harness itself means by a sweep is the version of its semantics."""

ALWAYS = ("numpy", "torch")
"""What every sweep computes with, whoever imports it."""


def find(module: str, path: list[str]) -> Path | None:
    """
    Give the file of a module on ``path`` without importing it or its packages; None where there is none.

    >>> find("json.decoder", sys.path).name
    'decoder.py'
    """
    spec = _spec(module, path)
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def _spec(module: str, path: list[str]) -> importlib.machinery.ModuleSpec | None:
    parent, _, _ = module.rpartition(".")
    where: Iterable[str] | None = path
    if parent:
        package = _spec(parent, path)
        where = package.submodule_search_locations if package else None
        if where is None:
            return None
    return importlib.machinery.PathFinder.find_spec(module, list(where or ()))


def defines(file: Path, name: str) -> bool:
    """Say whether a module's top level binds a name: by a definition, an assignment or an import."""
    return name in set(_bound(ast.parse(file.read_bytes()).body))


def _bound(body: Iterable[ast.AST]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                yield from (n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            case ast.If() | ast.Try() | ast.With():
                yield from _bound(ast.iter_child_nodes(node))


class Closure:
    """All modules that importing some modules imports in turn, as far as they can be told from the text."""

    def __init__(self, modules: Iterable[str], path: list[str]) -> None:
        self._path = path
        self.files: dict[str, Path] = {}
        self.packages: set[str] = set()
        for module in modules:
            self._visit(module)

    def _visit(self, module: str) -> None:
        top = module.partition(".")[0]
        if top == OWN or top in sys.stdlib_module_names or module in self.files:
            return
        file = find(module, self._path)
        if file is None:
            return
        if installed(file):
            self.packages.add(top)
            return
        self.files[module] = file
        parent = module.rpartition(".")[0]
        if parent:
            self._visit(parent)
        if file.suffix == ".py":
            is_package = file.name == "__init__.py"
            for imported in _imported(file, module if is_package else parent):
                self._visit(imported)


@cache
def _imports(content: bytes, filename: str) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    found = []
    for node in ast.walk(ast.parse(content, filename)):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level, tuple(alias.name for alias in node.names)))
    return tuple(found)


def _imported(file: Path, package: str) -> Iterator[str]:
    """Give the modules that a file's import statements may import, wherever in the file they stand."""
    for module, level, names in _imports(file.read_bytes(), str(file)):
        base = module
        if level:
            anchor = package.rsplit(".", level - 1)[0] if level > 1 else package
            base = f"{anchor}.{module}" if module else anchor
        yield base
        yield from (f"{base}.{name}" for name in names)


@cache
def _installed_roots() -> tuple[Path, ...]:
    keys = ("purelib", "platlib", "stdlib", "platstdlib")
    return tuple({Path(sysconfig.get_path(key)).resolve() for key in keys})


def installed(file: Path) -> bool:
    """Say whether a file belongs to an installed distribution or to Python, not to a project."""
    file = file.resolve()
    return bool({"site-packages", "dist-packages"} & set(file.parts)) or any(
        file.is_relative_to(root) for root in _installed_roots()
    )


def file_hash(file: Path) -> str:
    """Give the sha256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashes(files: Iterable[Path], project: Path) -> dict[str, str]:
    """Give each file's hash under its path, relative to the project where it lies in it."""
    return {_relative(file, project): file_hash(file) for file in sorted(files)}


def _relative(file: Path, project: Path) -> str:
    return file.relative_to(project).as_posix() if file.is_relative_to(project) else str(file)


def changed(recorded: Mapping[str, str], project: Path) -> list[str]:
    """Name the recorded files whose content is another now, or that are gone."""
    return [
        name
        for name, digest in recorded.items()
        if not (file := project / name).is_file() or file_hash(file) != digest
    ]


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Give the versions of the distributions that hold these top-level packages, and of those every sweep uses."""
    wanted = set(packages) | set(ALWAYS)
    found: dict[str, str] = {}
    for package in sorted(wanted):
        try:  # nearly always the distribution is called as the package is; the full map takes long to build
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            for distribution in importlib.metadata.packages_distributions().get(package, ()):
                found[distribution] = importlib.metadata.version(distribution)
    return found


def other_versions(recorded: Mapping[str, str]) -> list[str]:
    """Name the recorded distributions that have another version now, or are gone."""
    return [name for name, version in recorded.items() if _version(name) != version]


@cache
def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
