"""What the text of a Python file says, read without executing it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

BY_NAME = {"importlib", "runpy", "pkgutil", "__import__", "exec", "eval"}
"""What imports modules, or runs files, whose names no import statement shows."""


class Imports(NamedTuple):
    """A file's import statements, each (module, level, names), and whether it may import by other means too."""

    statements: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    by_name: bool = False

    def modules(self, package: str) -> Iterator[str]:
        """
        Give the modules that the statements may import, in a file of this package.

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
    """Read the import statements of a file, wherever in it they stand; none where it is not Python."""
    found: list[tuple[str, int, tuple[str, ...]]] = []
    names: set[str] = set()
    try:
        tree = _parsed(content, filename)
    except SyntaxError:
        return Imports()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level, tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Name):
            names.add(node.id)
    names |= {module.partition(".")[0] for module, level, _ in found if not level}
    return Imports(tuple(found), bool(names & BY_NAME))


def defines(content: bytes, filename: str, name: str) -> bool:
    """
    Say whether a module's top level binds a name: by a definition, an assignment or an import.

    What ``import *`` binds, or a ``__getattr__`` of the module gives, only importing could tell: then it may be.
    SyntaxError where the file is not Python.

    >>> defines(b"from models import mlp as net", "m.py", "net")
    True
    """
    return bool({name, "*", "__getattr__"} & set(_bound(_parsed(content, filename).body)))


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
