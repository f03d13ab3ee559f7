"""`robustness migrate`: which files it rewrites, and what it says of each."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from robustness.cards import migrate as cards
from robustness.cards import selection
from robustness.cli import common
from robustness.gate import baseline
from robustness.util import paths, project


def files(options: Namespace) -> list[Path]:
    """
    Return the files to rewrite, each once: those that are named, and of folders the cards.

    Without a name they are the project's cards and profiles. A card brings its baseline.
    """
    root = None if options.paths else project.root_of(Path.cwd())
    listed = selection.card_files(options.paths or common.card_folders(options))
    listed += [] if root is None else [root / "pyproject.toml"]
    return list(dict.fromkeys(path for file in listed for path in (file, *_baseline(file))))


def migrated(path: Path) -> Iterator[str]:
    """Rewrite one file, and return what changed."""
    changes = baseline.migrate(path) if path.suffix == ".json" else cards.migrate(path)
    yield f"{path}: {len(changes)} name(s) rewritten" if changes else f"{path}: nothing to rewrite"
    yield from (f"  {change}" for change in changes)


def _baseline(card: Path) -> Iterator[Path]:
    """Return the baseline of a card, which need not load yet, if there is one."""
    try:
        table = paths.parse_toml(paths.read_bytes(card)) if card.suffix == ".toml" else {}
        name, gate = table["name"], table["gate"]
        path = gate.get("baseline") or paths.place(Path("baselines"), name, ".json")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if (card.parent / path).is_file():
        yield card.parent / path
