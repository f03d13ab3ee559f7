"""Imports, names and meaning of a Python file, read from its text without executing it."""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

OWN = "robustness"
"""The top-level name of this package."""

BY_NAME = {"importlib", "runpy", "pkgutil", "__import__", "exec", "eval"}
"""What imports modules, or runs files, whose names no import statement shows."""


class Imports(NamedTuple):
    """A file's import statements, each (module, level, names), and whether it may import by other means too."""

    statements: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    by_name: bool = False

    def modules(self, package: str) -> Iterator[str]:
        """
        Return the modules that the statements may import, in a file of this package.

        >>> list(Imports((("layers", 2, ("conv",)),)).modules("nets.deep"))
        ['nets.layers', 'nets.layers.conv']
        """
        for module, level, names in self.statements:
            base = module
            if level:
                above = package.split(".") if package else []
                if level > len(above):
                    continue  # beyond the top: importing it will fail
                base = ".".join([*above[: len(above) + 1 - level], *([module] if module else [])])
            yield base
            yield from (f"{base}.{name}" for name in names)


@cache
def imports(content: bytes, filename: str) -> Imports:
    """Return the import statements anywhere in a file; none if it is not Python."""
    statements: list[tuple[str, int, tuple[str, ...]]] = []
    names: set[str] = set()
    try:
        tree = _parsed(content, filename)
    except SyntaxError:
        return Imports()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            statements += [(alias.name, 0, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            statements.append((node.module or "", node.level, tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Name):
            names.add(node.id)
    names |= {module.partition(".")[0] for module, level, _ in statements if not level}
    return Imports(tuple(statements), bool(names & BY_NAME))


def defines(content: bytes, filename: str, name: str) -> bool:
    """
    Return whether a module's top level binds a name: by a definition, an assignment or an import.

    With ``import *`` or a ``__getattr__`` of the module, the answer is True, because only importing could tell.
    SyntaxError if the file is not Python.

    >>> defines(b"from models import mlp as net", "m.py", "net")
    True
    """
    return bool({name, "*", "__getattr__"} & set(_bound(_parsed(content, filename).body)))


@cache
def meaning(content: bytes, filename: str) -> str:
    """
    Return the sha256 of a file's meaning: of its syntax tree without docstrings, comments and layout.

    The modules from which names of this package are imported do not count, so that modules can move; the names count. A
    file that is not Python has the hash of its bytes.

    >>> meaning(b"x = 1  # one", "m.py") == meaning(b"x = (1)", "m.py") != meaning(b"x = 2", "m.py")
    True
    """
    try:
        tree = _parsed(content, filename)
    except SyntaxError:
        return hashlib.sha256(content).hexdigest()
    own: set[str] = set()
    text = "".join(_words(tree, own))
    return hashlib.sha256("\n".join([text, *sorted(own)]).encode("utf-8", "surrogatepass")).hexdigest()


def _words(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """Write a syntax tree equally in all versions of Python; names imported from this package are added to ``own``."""
    pending: list[Any] = [tree]
    while pending:
        match pending.pop():
            case str(word):
                yield word
            case list(nodes):
                pending += ["]", *map(_node, reversed(nodes)), "["]
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.ImportFrom(module=str(module), level=0) as node if module.partition(".")[0] == OWN:
                own |= {f"{alias.name} as {alias.asname}" for alias in node.names}
            case ast.AST() as node:
                # Newer versions have more fields, which are empty where a file does not use what they stand for.
                fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
                pending.append(")")
                for name, value in reversed(fields):
                    pending += [_node(value), f" {name}="]
                pending.append(f"{type(node).__name__}(")


def _node(value: Any) -> Any:
    """Return nodes and lists unchanged, and other values as text."""
    return value if isinstance(value, ast.AST | list) else repr(value)


def _bound(body: Iterable[ast.AST]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                yield from (n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            case ast.stmt() | ast.ExceptHandler() | ast.match_case():  # if, try, with, for, match …
                yield from _bound(ast.iter_child_nodes(node))


def _parsed(content: bytes, filename: str) -> ast.Module:
    with warnings.catch_warnings():  # about the project's code, which is not ours to warn of
        warnings.simplefilter("ignore")
        try:
            return ast.parse(content, filename)
        except (ValueError, RecursionError, MemoryError) as error:  # what the parser says of null bytes, or deep nests
            raise SyntaxError(str(error)) from error
