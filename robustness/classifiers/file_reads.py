"""Which files a project's own code reads while a model is built, trained or run, heard from Python's audit events."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from robustness.util import source_files

LISTINGS = ("os.listdir", "os.scandir")
NATIVE = (
    ("safetensors", "safe_open"), ("safetensors.torch", "safe_open"), ("safetensors.numpy", "safe_open"),
    ("torch.jit", "load"), ("torch.export", "load"), ("onnxruntime", "InferenceSession"),
)  # fmt: skip
"""
Functions that read a file in native code, of which Python hears nothing: `announce` has them say so. Not those that
TorchScript compiles, as `torch.from_file`: it knows them by identity.
"""
SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/run", "/usr", "/lib", "/bin")
PASSED_OVER = {"__pycache__", "site-packages", "dist-packages", ".git"}

_active: tuple[Reads, ...] = ()
_by_file: dict[str, Reads] = {}
"""What the top level of each of a project's Python files read when it was imported."""
_imported: dict[str, str] = {}
"""The hash of each of a project's Python files when it was executed."""
_lock = threading.RLock()
_thread = threading.local()
_calls = 0
"""Factories that are being called: what a library's own thread reads meanwhile is theirs."""


class Reads:
    """
    The files that were read, and the folders that were listed, while this was `listening`.

    Each is hashed when it is first asked for, and stays so: what evidence lists is what the code saw. Files in
    ``without``, or below it, do not count, nor what a user's hidden folders hold. Nor does a file that was written
    after it was read: it is the code's own.
    """

    def __init__(self, project: Path = Path(), without: Sequence[Path] = ()) -> None:
        self._project, self._without = project, tuple(str(path.absolute()) for path in without)
        self._since = time.time()
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._digests: dict[str, str] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what a project's code reads, in any thread."""
        global _active
        install()
        with _lock:
            _active = (*_active, self)
        try:
            yield
        finally:
            with _lock:
                at = len(_active) - 1 - _active[::-1].index(self)
                _active = (*_active[:at], *_active[at + 1 :])

    def add_imports_of(self, files: Sequence[Path]) -> None:
        """Count what these Python files read when they were imported, by whomever."""
        for file in files:
            if (of := _by_file.get(str(file))) is not None:
                self._files |= of._files
                self._folders |= of._folders

    def digests(self) -> dict[str, str]:
        """Return the hash of every file and folder by its path, relative to the project where it lies in it."""
        for path in sorted(self._files):
            if not os.path.isdir(path):  # noqa: PTH112 (one that was opened, to be listed)
                self._digest(path, "")
        for path in sorted(self._folders):
            self._digest(path, "/")
        return dict(self._digests)

    def _digest(self, path: str, end: str) -> None:
        file = Path(path)
        if not file.is_relative_to(self._project) and file.resolve().is_relative_to(self._project):
            file = file.resolve()
        name = (file.relative_to(self._project).as_posix() if file.is_relative_to(self._project) else path) + end
        if name not in self._digests and not _below(path, self._without):
            digest = source_files.digest(self._project, name)
            if file.is_relative_to(self._project) or (digest and self._counts(file)):
                self._digests[name] = digest

    def _counts(self, file: Path) -> bool:
        """Return whether a file outside of the project is the model's: no setting of the user's, no scratch file."""
        scratch = _below(str(file), (os.path.realpath(tempfile.gettempdir()),))
        hidden = any(part.startswith(".") for part in file.parts)
        return not hidden and not (scratch and file.stat().st_mtime >= self._since)

    def read(self, path: str) -> None:
        """Take note of a file that is read."""
        self._files.add(path)

    def listed(self, path: str) -> None:
        """Take note of a folder that is listed."""
        self._folders.add(path)

    def written(self, path: str) -> None:
        """Forget a file that is written after it was read."""
        if os.path.exists(path):  # noqa: PTH110 (one that was looked for and is then made is no state of the code's)
            self._files.discard(path)


@functools.cache
def install() -> None:
    """Begin to hear audit events; a hook cannot be removed, and does nothing while nobody listens."""
    with _lock:
        for name in list(sys.modules):
            if (file := module_file(name)) and _kind(file) == "project" and os.path.isfile(file):  # noqa: PTH113
                _imported.setdefault(file, source_files.content_hash(Path(file)))
        sys.addaudithook(_heard)


def announce() -> None:
    """Have functions that read files in native code raise the audit event of an open; once for each that is loaded."""
    for module in ("safetensors.torch", "safetensors.numpy"):  # so that nobody takes the real ones from there later
        importlib.import_module(module)
    for module, name in NATIVE:
        of = sys.modules.get(module)
        if of is not None and not hasattr(real := getattr(of, name, None), "_announces") and callable(real):
            announcing = _announcing(real)
            for each in list(sys.modules.values()):  # whoever has taken it from there already
                if getattr(each, "__dict__", {}).get(name) is real:
                    setattr(each, name, announcing)


def _announcing(real: Callable[..., Any]) -> Any:
    if isinstance(real, type) and real.__module__.startswith("onnxruntime"):  # others inherit from it
        made = real.__init__  # type: ignore[misc]

        @functools.wraps(made)
        def announced(self: Any, given: Any, *args: Any, **options: Any) -> None:
            _announce(given)
            made(self, given, *args, **options)

        real.__init__ = announced  # type: ignore[misc]
        real._announces = True  # type: ignore[attr-defined]
        return real

    @functools.wraps(real, updated=())
    def announced_call(given: Any, *args: Any, **options: Any) -> Any:
        _announce(given)
        return real(given, *args, **options)

    announced_call._announces = True  # type: ignore[attr-defined]
    return announced_call


def _announce(given: Any) -> None:
    if isinstance(given, str | os.PathLike):
        sys.audit("open", os.fspath(given), "rb", os.O_RDONLY)


@contextmanager
def calling() -> Iterator[None]:
    """Count what installed packages read in this thread too: they are called for the project."""
    global _calls
    before, _thread.calling = getattr(_thread, "calling", False), True
    with _lock:
        _calls += 1
    try:
        yield
    finally:
        _thread.calling = before
        with _lock:
            _calls -= 1


def as_imported(hashes: Mapping[str, str], project: Path) -> dict[str, str]:
    """Return the hashes of Python files as they were when they were executed, where that was heard."""
    return {name: _imported.get(str(project / name), digest) for name, digest in hashes.items()}


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _EVENTS or getattr(_thread, "busy", False):
        return
    _thread.busy = True
    try:
        _EVENTS[event](arguments, sys._getframe(1))
    except Exception:  # what is raised here would break whatever opens a file
        return
    finally:
        _thread.busy = False


def _executed(arguments: tuple[Any, ...], frame: FrameType) -> None:
    code = arguments[0]
    file = getattr(code, "co_filename", "")
    if getattr(code, "co_name", "") == "<module>" and _kind(file) == "project" and os.path.isfile(file):  # noqa: PTH113
        _imported[file] = source_files.content_hash(Path(file))
        _by_file[file] = Reads()


def _opened(arguments: tuple[Any, ...], frame: FrameType) -> None:
    path, _, flags = arguments
    _note(path, frame, "written" if flags & (os.O_WRONLY | os.O_RDWR) else "read")


def _listed(arguments: tuple[Any, ...], frame: FrameType) -> None:
    _note("." if arguments[0] is None else arguments[0], frame, "listed")


def _note(path: Any, frame: FrameType | None, what: str) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return
    if not (whose := _whose(frame)):
        return
    found = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
    if PASSED_OVER & set(Path(found).parts) or _below(found, (*SYSTEM, *_installed())):
        return
    for each in (*_active, *(_by_file[file] for file in whose if file in _by_file)):
        getattr(each, what)(found)


def _whose(frame: FrameType | None) -> list[str]:
    """
    Say for which of a project's files something is opened: the one that is being imported, or "" where none is.

    Nothing where the harness itself opens it, or Python's import system, or a library that no project's code called.
    """
    foreign = False
    while frame is not None:
        name = frame.f_code.co_filename
        if name == __file__:  # an open that is announced
            frame = frame.f_back
            continue
        if name.startswith("<frozen importlib"):
            return []
        kind = _kind(name)
        if kind == "project":
            break
        if kind == "own":
            return [""] if foreign and getattr(_thread, "calling", False) else []
        foreign = foreign or kind == "installed"
        frame = frame.f_back
    if frame is None:
        return [""] if foreign and _calls else []
    while frame is not None and _kind(frame.f_code.co_filename) != "own":
        if frame.f_code.co_name == "<module>" and _kind(frame.f_code.co_filename) == "project":
            return [frame.f_code.co_filename]
        frame = frame.f_back
    return [""]


@functools.cache
def _kind(file: str) -> str:
    """Say whose a file of code is: "own", "installed", "project", or "" for Python's own and what is no file."""
    if file.startswith("<"):
        return ""
    if _below(file, (os.path.dirname(os.path.dirname(__file__)),)):  # noqa: PTH120
        return "own"
    if {"site-packages", "dist-packages"} & set(Path(file).parts):
        return "installed"
    return "" if source_files.is_installed(Path(file)) else "project"


@functools.cache
def _installed() -> tuple[str, ...]:
    return tuple({sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")})


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)


def module_file(module: str) -> str:
    """Return the file that a loaded module names as its own, "" where it names none."""
    # Not by getattr: some modules import others when they are asked for anything.
    return str(getattr(sys.modules.get(module), "__dict__", {}).get("__file__") or "")


_EVENTS: dict[str, Callable[[tuple[Any, ...], FrameType], None]] = {
    "open": _opened, "exec": _executed, **dict.fromkeys(LISTINGS, _listed),
}  # fmt: skip
