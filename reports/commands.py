"""What the commands of the papers share: where results and pages lie, how a run ends, how a page is written."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from reports import running
from reports.writing import dumped, inserted
from robustness import cards
from robustness.cards import Card
from robustness.errors import RobustnessError
from robustness.util import atomic_write

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "reports" / "runs"
"""Where cards and sets of a run are written: below the checkout, so that they can import its models."""
OUTPUT = ROOT / "reports" / "measured"
"""The results that are committed, and that the pages of the documentation are made from."""
DOCS = ROOT / "docs" / "papers"


def parser(
    module: str, about: str | None, data_sets: Collection[str], scales: Collection[str], usual: tuple[str, str]
) -> argparse.ArgumentParser:
    """
    Return the parser of a paper's command.

    ``about`` is the docstring of its module, whose first line is shown; ``usual`` the default data set and scale.
    """
    found = argparse.ArgumentParser(prog=f"python -m {module}", description=(about or "").split("\n")[1])
    found.add_argument("--data-set", choices=sorted(data_sets), default=usual[0])
    found.add_argument("--scale", choices=sorted(scales), default=usual[1])
    running.add_options(found)
    return found


def answered(do: Callable[[], Iterable[Path]]) -> int:
    """Do what a command is for and name the files that it wrote; 2 where it cannot, with the reason."""
    try:
        written = list(do())
    except (RobustnessError, OSError) as error:
        running.say(f"error: {error}")
        return 2
    for file in written:
        print(f"written: {file}")
    return 0


def run(
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace, Path], bool],
    render: Callable[[Path], Iterable[Path]],
) -> int:
    """
    Measure into the output folder unless only the pages are asked for, then write the pages; return the exit code.

    ``measure`` returns whether there is something to write pages of.
    """
    output = options.output or OUTPUT
    return answered(lambda: render(output) if options.render or measure(options, output) else ())


def loaded(tables: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Card]:
    """Write tables as cards into a folder, and read them."""
    return {name: cards.load(path) for name, path in running.write(tables, folder).items()}


def keep(file: Path, result: Mapping[str, Any]) -> None:
    """Write a result whole: hours of work are in the one that it replaces."""
    with atomic_write.atomic_writer(file) as stream:
        stream.write(dumped(result).encode())


def pages(output: Path) -> Path:
    """Return where the page of results in a folder goes: of those that are committed, the documentation."""
    return DOCS if output.resolve() == OUTPUT else output


def write_page(name: str, module: str, body: str, output: Path) -> Path:
    """Write a page: in the documentation between its marks, elsewhere alone; give its file."""
    file = pages(output) / name
    text = inserted(file.read_text(encoding="utf-8"), module, body) if file.parent == DOCS else body
    file.write_text(text, encoding="utf-8")
    return file
