"""The common options of all commands, and their output."""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from robustness.errors import CardError, ModelError, RobustnessError, printable
from robustness.util import atomic_write

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.workspace.store import Store
    from robustness.workspace.workspace import Workspace

RED, ERROR = 1, 2
"""Exit codes: a failure; an error explained by one sentence."""
MODELS = Path("models")
"""The default folder of cards, below the current one."""


def print_lines(lines: Iterable[str]) -> int:
    """Print lines as they arrive, and return the exit code of success."""
    for line in lines:
        print(printable(line), flush=True)
    return 0


@contextmanager
def copied(path: Path | None) -> Iterator[None]:
    """Also write what is printed to a text file, whole or not at all: nothing if an error ends the command."""
    if path is None:
        yield
        return
    if path.suffix.lower() not in ("", ".txt", ".log"):
        raise RobustnessError(f"--output is a text file here, such as {path.with_suffix('.txt')}, got {path}")
    if path.is_dir():
        raise RobustnessError(f"--output must be a file, got the folder {path}")
    copy = io.StringIO()
    with redirect_stdout(_Copying(sys.stdout, copy)):
        yield
    atomic_write.replace(path, copy.getvalue().encode())


class _Copying(io.TextIOBase):
    """A stream that writes to two others."""

    def __init__(self, shown: TextIO, copy: io.StringIO) -> None:
        self._shown, self._copy = shown, copy

    def write(self, text: str) -> int:
        self._copy.write(text)
        return self._shown.write(text)

    def flush(self) -> None:
        self._shown.flush()


def for_each_card(options: Namespace, workspace: Workspace, one: Callable[[Card], int]) -> int:
    """Call a function for every selected card; report failures and continue with the others."""
    code = 0
    for card in selected_cards(options):
        try:
            code = max(code, one(card))
        except RobustnessError as error:
            say(str(error))
            code = ERROR
        print_notices(workspace)
    return code


def selected_cards(options: Namespace) -> list[Card]:
    """Return the named cards, or all; CardError if there is none."""
    from robustness.cards import selection

    folders = card_folders(options)
    named = options.card is not None or folders != [MODELS.resolve()]
    selected = selection.select([] if named else folders, folders if named else [], options.models)
    if not selected:
        raise CardError("no card is selected; name models of the cards in models/, or name cards with --card FILE")
    return selected


def print_notices(workspace: Workspace) -> None:
    """Print a workspace's notices."""
    while workspace.notices:
        say(f"note: {workspace.notices.pop(0)}")


def card_folders(options: Namespace) -> list[Path]:
    """Return the named cards, else those of the project's pyproject.toml, else the default folder."""
    from robustness.util import project

    if options.card:
        return [Path(path).resolve() for path in options.card]
    root = project.root_of(Path.cwd())
    if root is not None and (paths := project.cards(root)):
        return [path.resolve() for path in paths]
    return [MODELS.resolve()] if MODELS.is_dir() else []


def open_workspace(options: Namespace) -> Workspace:
    """Return a workspace for the given device, data and store."""
    from robustness.classifiers import precision
    from robustness.util import hardware
    from robustness.util.progress import progress_bar
    from robustness.workspace.context import data_root
    from robustness.workspace.workspace import Workspace

    device = hardware.worker_device(options.device, 0)
    if getattr(options, "engine", None) is not None and not hardware.gpu_count():
        device = "cpu"  # the engine checks itself whether its workers have a GPU
    if device.startswith("cuda") and not hardware.gpu_count():
        raise ModelError(f"--device {options.device}: this machine has no GPU; leave the option out, or use cpu")
    dtype = getattr(options, "dtype", "float32")
    precision.check_dtype(dtype, device if getattr(options, "engine", None) is None else None)
    return Workspace(
        store_of(options), data_root(options.data), device, options.seed, progress=progress_bar, dtype=dtype
    )


def store_of(options: Namespace) -> Store:
    """Return the given store."""
    from robustness.workspace.context import homeless, store_root
    from robustness.workspace.store import Store

    root = store_root(options.store)
    if notice := homeless(root):
        say(notice)
    return Store(root, say=say)


def say(message: str) -> None:
    """Print a remark to standard error."""
    print(printable(f"robustness: {message}"), file=sys.stderr, flush=True)
