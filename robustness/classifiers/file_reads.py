"""Record the files that a project's code reads while a model is built, trained or run, from Python's audit events."""

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
# Functions that read a file in native code, which raises no audit event: `audit_native_readers` makes them raise one.
# Functions that TorchScript compiles, such as `torch.from_file`, are left alone: it knows them by identity.
NATIVE_READERS = (
    ("safetensors", "safe_open"), ("safetensors.torch", "safe_open"), ("safetensors.numpy", "safe_open"),
    ("torch.jit", "load"), ("torch.export", "load"), ("onnxruntime", "InferenceSession"),
)  # fmt: skip
SYSTEM_FOLDERS = ("/proc", "/sys", "/dev", "/etc", "/run", "/usr", "/lib", "/bin")
IGNORED_FOLDERS = {"__pycache__", "site-packages", "dist-packages", ".git"}

_active: tuple[FileReads, ...] = ()
# The files that the top level of each of a project's Python files read when it was imported.
_by_file: dict[str, FileReads] = {}
# The hash that each of a project's Python files had when it was executed.
_imported: dict[str, str] = {}
_lock = threading.RLock()
_thread = threading.local()
# Number of factories being called: files that a library's own thread reads meanwhile are attributed to them.
_calls = 0


class FileReads:
    """
    The files that were read, and the folders that were listed, inside `recording`.

    Each is hashed once, when it is first requested: evidence lists what the code saw. Files in or below
    ``excluded`` do not count, nor do files in hidden folders. A file that was written after it was read does not
    count either: it is the code's own output.
    """

    def __init__(self, project: Path = Path(), excluded: Sequence[Path] = ()) -> None:
        self._project, self._excluded = project, tuple(str(path.absolute()) for path in excluded)
        self._since = time.time()
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._digests: dict[str, str] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the files that a project's code reads, in any thread."""
        global _active
        install_audit_hook()
        with _lock:
            _active = (*_active, self)
        try:
            yield
        finally:
            with _lock:
                at = len(_active) - 1 - _active[::-1].index(self)
                _active = (*_active[:at], *_active[at + 1 :])

    def add_imports(self, files: Sequence[Path]) -> None:
        """Add the files that these Python files read when they were first imported."""
        for file in files:
            if (reads := _by_file.get(str(file))) is not None:
                self._files |= reads._files
                self._folders |= reads._folders

    def digests(self) -> dict[str, str]:
        """Return the hash of every file and folder by its path, relative to the project if it is inside it."""
        for path in sorted(self._files):
            if not os.path.isdir(path):  # noqa: PTH112 (a folder may be opened, to be listed)
                self._digest(path, "")
        for path in sorted(self._folders):
            self._digest(path, "/")
        return dict(self._digests)

    def _digest(self, path: str, suffix: str) -> None:
        file = Path(path)
        if not file.is_relative_to(self._project) and file.resolve().is_relative_to(self._project):
            file = file.resolve()
        name = (file.relative_to(self._project).as_posix() if file.is_relative_to(self._project) else path) + suffix
        if name not in self._digests and not _is_below(path, self._excluded):
            digest = source_files.digest(self._project, name)
            if file.is_relative_to(self._project) or (digest and self._counts(file)):
                self._digests[name] = digest

    def _counts(self, file: Path) -> bool:
        """Return whether a file outside the project belongs to the model: no user setting, no scratch file."""
        scratch = _is_below(str(file), (os.path.realpath(tempfile.gettempdir()),))
        hidden = any(part.startswith(".") for part in file.parts)
        return not hidden and not (scratch and file.stat().st_mtime >= self._since)

    def read(self, path: str) -> None:
        """Add a file that is read."""
        self._files.add(path)

    def listed(self, path: str) -> None:
        """Add a folder that is listed."""
        self._folders.add(path)

    def written(self, path: str) -> None:
        """Remove a file that is written after it was read."""
        if os.path.exists(path):  # noqa: PTH110 (a file that was missing when it was read stays: its absence counted)
            self._files.discard(path)


@functools.cache
def install_audit_hook() -> None:
    """Install the audit hook; it cannot be removed, and does nothing while nobody records."""
    with _lock:
        for name in list(sys.modules):
            if (file := module_file(name)) and _code_origin(file) == "project" and os.path.isfile(file):  # noqa: PTH113
                _imported.setdefault(file, source_files.content_hash(Path(file)))
        sys.addaudithook(_audit_hook)


def audit_native_readers() -> None:
    """Make functions that read files in native code raise the audit event of an open, once per loaded function."""
    for module in ("safetensors.torch", "safetensors.numpy"):  # so that no later import gets the originals
        importlib.import_module(module)
    for module, name in NATIVE_READERS:
        original = getattr(sys.modules.get(module), name, None)
        if callable(original) and not hasattr(original, "_is_audited"):
            audited = _with_audit_event(original)
            for loaded in list(sys.modules.values()):  # modules that have imported it already
                if getattr(loaded, "__dict__", {}).get(name) is original:
                    setattr(loaded, name, audited)


def _with_audit_event(original: Callable[..., Any]) -> Any:
    if isinstance(original, type) and original.__module__.startswith("onnxruntime"):  # other classes inherit from it
        init = original.__init__  # type: ignore[misc]

        @functools.wraps(init)
        def audited_init(self: Any, path: Any, *args: Any, **options: Any) -> None:
            _raise_open_event(path)
            init(self, path, *args, **options)

        original.__init__ = audited_init  # type: ignore[misc]
        original._is_audited = True  # type: ignore[attr-defined]
        return original

    @functools.wraps(original, updated=())
    def audited_call(path: Any, *args: Any, **options: Any) -> Any:
        _raise_open_event(path)
        return original(path, *args, **options)

    audited_call._is_audited = True  # type: ignore[attr-defined]
    return audited_call


def _raise_open_event(path: Any) -> None:
    if isinstance(path, str | os.PathLike):
        sys.audit("open", os.fspath(path), "rb", os.O_RDONLY)


@contextmanager
def attribute_library_reads() -> Iterator[None]:
    """Attribute files that installed packages read in this thread to the project, on whose behalf they run."""
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


def import_time_hashes(hashes: Mapping[str, str], project: Path) -> dict[str, str]:
    """Replace the hashes of Python files by those they had when they were executed, if that was recorded."""
    return {name: _imported.get(str(project / name), digest) for name, digest in hashes.items()}


def _audit_hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _EVENTS or getattr(_thread, "busy", False):
        return
    _thread.busy = True
    try:
        _EVENTS[event](arguments, sys._getframe(1))
    except Exception:  # an error here would break whatever opens a file
        return
    finally:
        _thread.busy = False


def _on_exec(arguments: tuple[Any, ...], frame: FrameType) -> None:
    code = arguments[0]
    file = getattr(code, "co_filename", "")
    if getattr(code, "co_name", "") == "<module>" and _code_origin(file) == "project" and os.path.isfile(file):  # noqa: PTH113
        _imported[file] = source_files.content_hash(Path(file))
        _by_file[file] = FileReads()


def _on_open(arguments: tuple[Any, ...], frame: FrameType) -> None:
    path, _, flags = arguments
    _record(path, frame, "written" if flags & (os.O_WRONLY | os.O_RDWR) else "read")


def _on_listing(arguments: tuple[Any, ...], frame: FrameType) -> None:
    _record("." if arguments[0] is None else arguments[0], frame, "listed")


def _record(path: Any, frame: FrameType | None, event: str) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return
    if not (readers := _reading_files(frame)):
        return
    absolute = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
    if IGNORED_FOLDERS & set(Path(absolute).parts) or _is_below(absolute, (*SYSTEM_FOLDERS, *_library_folders())):
        return
    for reads in (*_active, *(_by_file[file] for file in readers if file in _by_file)):
        getattr(reads, event)(absolute)


def _reading_files(frame: FrameType | None) -> list[str]:
    """
    Return the project's file on whose behalf something is opened: the one being imported, or "" if none is.

    Empty if this package opens it, or Python's import system, or a library that no project code called.
    """
    foreign = False
    while frame is not None:
        name = frame.f_code.co_filename
        if name == __file__:  # the event of a native reader
            frame = frame.f_back
            continue
        if name.startswith("<frozen importlib"):
            return []
        kind = _code_origin(name)
        if kind == "project":
            break
        if kind == "own":
            return [""] if foreign and getattr(_thread, "calling", False) else []
        foreign = foreign or kind == "installed"
        frame = frame.f_back
    if frame is None:
        return [""] if foreign and _calls else []
    while frame is not None and _code_origin(frame.f_code.co_filename) != "own":
        if frame.f_code.co_name == "<module>" and _code_origin(frame.f_code.co_filename) == "project":
            return [frame.f_code.co_filename]
        frame = frame.f_back
    return [""]


@functools.cache
def _code_origin(file: str) -> str:
    """Classify a source file: "own" (this package), "installed", "project", or "" (Python's, or no file)."""
    if file.startswith("<"):
        return ""
    if _is_below(file, (os.path.dirname(os.path.dirname(__file__)),)):  # noqa: PTH120
        return "own"
    if {"site-packages", "dist-packages"} & set(Path(file).parts):
        return "installed"
    return "" if source_files.is_installed(Path(file)) else "project"


@functools.cache
def _library_folders() -> tuple[str, ...]:
    return tuple({sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")})


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)


def module_file(module: str) -> str:
    """Return the file that a loaded module names as its own, or "" if it names none."""
    # Not by getattr: some modules import others when an attribute is looked up.
    return str(getattr(sys.modules.get(module), "__dict__", {}).get("__file__") or "")


_EVENTS: dict[str, Callable[[tuple[Any, ...], FrameType], None]] = {
    "open": _on_open, "exec": _on_exec, **dict.fromkeys(LISTINGS, _on_listing),
}  # fmt: skip
