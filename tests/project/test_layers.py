"""Imports run down: a package of `robustness` imports from lower layers only (docs/architecture.md)."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2] / "robustness"
LAYERS = (
    ("errors", "decisions"),
    ("util",),
    ("data", "classifiers", "perturbations", "metrics"),
    ("mutations",),
    ("cards", "sweep"),
    ("workspace", "claims"),
    ("doubts", "search"),
    ("reporting",),
    ("gate", "thresholds", "planning", "engines"),
    ("plugin", "cli"),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def modules() -> dict[str, Path]:
    """The package's modules by their dotted names below `robustness`."""
    files = {file.relative_to(ROOT).with_suffix("").parts: file for file in ROOT.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): file for parts, file in files.items() if parts != ("__init__",)}


def imported(tree: ast.AST, known: dict[str, Path]) -> set[str]:
    """What a module imports of the package, in functions and for type checkers too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    below = {name.removeprefix("robustness.") for name in names if name.startswith("robustness.")}
    return {name if name in known else name.rpartition(".")[0] for name in below} - {""}


def upward() -> set[str]:
    """Imports of a package from a layer that is not below its own."""
    known = modules()
    return {
        f"{module} -> {other}"
        for module, file in known.items()
        for other in imported(ast.parse(file.read_text(encoding="utf-8")), known)
        if (mine := module.partition(".")[0]) != (theirs := other.partition(".")[0]) and LAYER[theirs] >= LAYER[mine]
    }


def test_imports_run_down():
    """Catches: a package without a layer; an import up or to a neighbour, also in a function or for type checkers."""
    assert {name.partition(".")[0] for name in modules()} == set(LAYER)
    assert upward() == set()


def test_imports_are_seen_wherever_they_stand():
    """Catches: a walk that sees no function, no `TYPE_CHECKING`, no plain import."""
    known = dict.fromkeys(("cards", "cards.card", "util.paths", "gate"), ROOT)
    code = """
import robustness.gate
if TYPE_CHECKING:
    from robustness.cards.card import Card
def load():
    from robustness.util import paths
    from robustness.cards import load
    from pathlib import Path
"""
    assert imported(ast.parse(code), known) == {"cards", "cards.card", "util.paths", "gate"}
