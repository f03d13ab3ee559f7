"""The settings of a project, ``[tool.robustness]`` of its ``pyproject.toml``; no heavy import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robustness.errors import CardError, nearest
from robustness.util import paths

KEYS = ("models", "profiles")


def settings(folder: Path) -> Mapping[str, Any]:
    """Return ``[tool.robustness]`` of a folder's pyproject.toml, {} if there is none; CardError for unknown keys."""
    file = folder / "pyproject.toml"
    try:
        text = paths.read_bytes(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CardError(f"{file}: not a readable TOML file: {error}") from error
    if b"robustness" not in text:  # nearly every project: it is not parsed again
        return {}
    try:
        tools = paths.parse_toml(text).get("tool", {})
        table = tools.get("robustness", {}) if isinstance(tools, dict) else {}
    except ValueError as error:
        raise CardError(f"{file}: not a readable TOML file: {error}") from error
    if not isinstance(table, dict):
        raise CardError(f"{file}: tool.robustness must be a table, got {table!r}")
    for key in table:
        if key not in KEYS:
            raise CardError(
                f"{file}: tool.robustness.{key}: unknown key; allowed: {', '.join(KEYS)}{nearest(key, KEYS)}; the "
                "options have their keys in [tool.pytest.ini_options], such as robustness_seed"
            )
    return table


def cards(folder: Path) -> list[Path]:
    """
    Return the files that ``models = ["cards/*.toml"]`` names, in the order of the patterns and then of their names.

    CardError for a pattern without matches: a missing card must not pass by absence.
    """
    return list(dict.fromkeys(_cards(folder)))


def _cards(folder: Path) -> Iterator[Path]:
    patterns, file = settings(folder).get("models", []), folder / "pyproject.toml"
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise CardError(
            f'{file}: tool.robustness.models must be a list of paths, such as ["cards/*.toml"], got {patterns!r}'
        )
    for pattern in patterns:
        try:
            files = sorted(folder.glob(pattern))
        except (ValueError, NotImplementedError) as error:
            raise CardError(
                f"{file}: tool.robustness.models: {pattern!r} must be relative to this folder ({error})"
            ) from None
        if not files:
            raise CardError(f"{file}: tool.robustness.models: {pattern!r} names no file below {folder}")
        yield from files


def profiles(folder: Path) -> Mapping[str, Any]:
    """Return the project's own profiles, by name."""
    table = settings(folder).get("profiles", {})
    if not isinstance(table, dict):
        raise CardError(f"{folder / 'pyproject.toml'}: tool.robustness.profiles must be a table, got {table!r}")
    return table


def root_of(folder: Path) -> Path | None:
    """Return the nearest folder, from one on upwards, whose pyproject.toml names cards or profiles, or None."""
    return next((each for each in (folder, *folder.parents) if settings(each)), None)
