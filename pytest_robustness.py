"""
Where pytest, Hypothesis and the command `robustness` begin: they go on where `robustness` is this project's package.

Another distribution has the same name, and so may somebody's own `robustness.py`. What is imported then is not ours; a
module of another name, beside the folder, is there all the same and says so.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MARK = "Test PyTorch image classifiers against robustness thresholds"
"""How the docstring of our package begins."""
INSTALL = "install pytest-robustness again as before, with pip's --force-reinstall --no-deps"


def problem() -> str | None:
    """Say in one sentence why `robustness` is not this project's package, and what mends it; None where it is."""
    spec = PathFinder.find_spec("robustness", sys.path)
    if spec is None:
        return f"the package `robustness` of pytest-robustness is not on Python's path ({HERE}); repair: {INSTALL}"
    if spec.origin is None:
        places = ", ".join(spec.submodule_search_locations or ())
        return (
            f"{places} has lost its __init__.py, as when another distribution called robustness is uninstalled; "
            f"repair: {INSTALL}"
        )
    file = Path(spec.origin)
    if _is_ours(file):
        missing = next((path for path in _recorded() if not path.is_file()), None)
        return (
            f"{missing} is missing from the installation of pytest-robustness; repair: {INSTALL}" if missing else None
        )
    if {"site-packages", "dist-packages"} & set(file.parts):
        return (
            f"another distribution that is called robustness took the place of pytest-robustness's package ({file}); "
            f"both cannot be installed; repair: pip uninstall robustness, then {INSTALL}"
        )
    taken = file.parent if file.name == "__init__.py" else file
    return (
        f"{taken} comes before pytest-robustness's package of the same name on Python's path; repair: rename it, or "
        "run pytest with -p no:robustness"
    )


def _is_ours(file: Path) -> bool:
    """Return whether a file is the start of a package of ours: the one beside this module, or that of a checkout."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return file.name == "__init__.py" and MARK in text and (file.parent / "plugin" / "hookspecs.py").is_file()


def _recorded() -> list[Path]:
    """Return the files that an installation wrote down as the package's; none in a checkout."""
    for record in HERE.glob("pytest_robustness-*.dist-info/RECORD"):
        names = (line.partition(",")[0] for line in record.read_text(encoding="utf-8").splitlines())
        return [HERE / name for name in names if name.startswith("robustness/") and name.endswith(".py")]
    return []


class Refusal:
    """A plugin that ends pytest before it collects anything, with one sentence."""

    def __init__(self, said: str) -> None:
        self._said = said

    def pytest_addoption(self) -> None:
        """Refuse."""
        import pytest

        raise pytest.UsageError(f"pytest-robustness: {self._said}")


def check() -> None:
    """Raise pytest.UsageError where the folders that pytest puts on the path have another `robustness`."""
    import pytest

    if said := problem():
        raise pytest.UsageError(f"pytest-robustness: {said}")


def main() -> int:
    """Run the command `robustness`."""
    if said := problem():
        print(f"robustness: {said}".encode("ascii", "backslashreplace").decode(), file=sys.stderr)
        return 2
    from robustness.cli import main as cli

    return cli.main()


def register() -> None:
    """Register Hypothesis's profiles; where they are not ours, pytest says why."""
    if problem() is None:
        from robustness.search import hypothesis_profiles

        hypothesis_profiles.register()


def __getattr__(name: str) -> Any:
    """Import the pytest plugin when pytest asks for it, and not when the command or Hypothesis begins."""
    if name != "plugin":
        raise AttributeError(name)
    if said := problem():
        return Refusal(said)
    from robustness import plugin

    return plugin
