"""
How large and how tangled the code is: `python -m benchmarks.structure` prints the table of docs/architecture.md.

The last two rows run pytest on one claim, cold, in a process that counts the files it loads and enters.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tabulate import tabulate

import robustness
from tests.project import test_layers

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "robustness"
CLAIM = "suites/test_fgsm.py::test_fgsm[digits-mlp:fgsm:0.05:accuracy]"
ENTERED = "ROBUSTNESS_ENTERED"
"""The environment variable that names the file for the counts; set in the child only."""


def modules(folder: Path) -> dict[Path, ast.Module]:
    """Return the syntax tree of every Python file below a folder."""
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(folder.rglob("*.py"))}


def count_lines(*folders: str) -> int:
    """Return the lines of all Python files below some folders."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def circles(graph: dict[str, set[str]]) -> int:
    """Return how many sets of modules import each other in a circle (strongly connected components above one)."""
    reachable = {name: reach(graph, name) for name in graph}
    groups = {frozenset(other for other in reachable[name] if name in reachable[other]) for name in graph}
    return sum(len(group) > 1 for group in groups)


def reach(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return all modules that a module imports, directly or not."""
    seen, pending = set[str](), [start]
    while pending:
        for other in graph.get(pending.pop(), ()):
            if other not in seen:
                seen.add(other)
                pending.append(other)
    return seen


def docstrings(trees: dict[Path, ast.Module]) -> Iterator[str]:
    """Iterate over the docstrings of modules, classes and functions."""
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (doc := ast.get_docstring(node)):
                yield doc


def documented_arguments() -> str:
    """Return how many of the public functions name all their arguments in their docstring."""
    functions = [each for name in robustness.PUBLIC if inspect.isfunction(each := getattr(robustness, name))]
    complete = [
        function
        for function in functions
        if all(re.search(rf"^    {name}: ", str(inspect.getdoc(function)), re.M) for name in parameters(function))
    ]
    return f"{len(complete)} of {len(functions)}"


def parameters(function: Any) -> list[str]:
    """Return the names of a function's parameters."""
    return list(inspect.signature(function).parameters)


def static_rows() -> Iterator[tuple[str, object]]:
    """Count what the files themselves say."""
    trees = modules(PACKAGE)
    known = test_layers.modules()
    graph = {name: test_layers.imported(trees[file], known) for name, file in known.items()}
    yield "modules at the root of robustness/", len([file for file in PACKAGE.glob("*.py") if file.stem != "__init__"])
    yield "packages, files", f"{len({file.parent for file in trees}) - 1}, {len(trees)}"
    yield "layers", len(test_layers.LAYERS)
    yield "upward imports", len(test_layers.upward())
    yield "circles of modules", circles(graph)
    for folders in (("robustness",), ("models",), ("reports",), ("tests",), ("benchmarks", "documentation")):
        yield f"lines of {', '.join(folders)}", count_lines(*folders)
    words = ("Give ", "Say ", "Tell ")
    yield "docstrings that begin with Give, Say or Tell", sum(doc.startswith(words) for doc in docstrings(trees))
    yield "public functions that document every argument", documented_arguments()


def run_claim(*arguments: str) -> list[int]:
    """Run pytest on one claim in a process of its own and return how many files it loaded and entered."""
    with tempfile.TemporaryDirectory() as name:
        counts = Path(name, "counts")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.structure", "-p", "no:cacheprovider"]
        environment = {**os.environ, ENTERED: str(counts), "ROBUSTNESS_STORE": str(Path(name, "store"))}
        subprocess.run([*command, CLAIM, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)
        return [int(word) for word in counts.read_text().split()]


def pytest_configure(config: pytest.Config) -> None:
    """Count from here on, in a child of `run_claim`."""
    if ENTERED not in os.environ:
        return
    entered = set[str]()

    def profile(frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # a function, not a module or class body
            entered.add(frame.f_code.co_filename)

    config.stash[KEY] = entered
    threading.setprofile(profile)
    sys.setprofile(profile)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Write the counts."""
    if ENTERED not in os.environ:
        return
    sys.setprofile(None)
    loaded = {name for name in sys.modules if name.startswith("robustness.")}
    entered = {file for file in config.stash[KEY] if file.startswith(f"{PACKAGE}{os.sep}")}
    Path(os.environ[ENTERED]).write_text(f"{len(loaded)} {len(entered)}")


KEY = pytest.StashKey[set[str]]()


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = list(static_rows())
    rows.append(("files loaded to collect one FGSM claim", run_claim("--collect-only")[0]))
    rows.append(("files entered by one FGSM claim, cold", run_claim()[1]))
    print(tabulate(rows, headers=("measure", "now"), tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
