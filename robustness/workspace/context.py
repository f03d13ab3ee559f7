"""The settings of a run, and what all that it makes has in common: one lock, one failure, one notice each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import platformdirs

from robustness.classifiers import file_reads
from robustness.errors import SweepError
from robustness.util import atomic_write, hardware, locks, paths
from robustness.workspace.store import Store

T = TypeVar("T")

CACHE = "pytest-robustness"


class Progress(Protocol):
    """Shows the progress of long work: a context manager that yields a function of (done, total)."""

    def __call__(self, what: str) -> AbstractContextManager[Callable[[int, int], None] | None]:
        """Start to show progress; `what` is the work, as in "sweeping tiny:fgsm"."""


def no_progress(what: str) -> AbstractContextManager[None]:
    """Show nothing."""
    return nullcontext()


def store_root(path: str | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the store's folder: the argument, else ``ROBUSTNESS_STORE``, else one in the user's cache folder."""
    path = path or environment.get("ROBUSTNESS_STORE")
    return paths.expanded(path) if path else _cache() / "store"


def data_root(path: str | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the data root: the argument, else ``ROBUSTNESS_DATA``, else one in the user's cache folder."""
    path = path or environment.get("ROBUSTNESS_DATA")
    return paths.expanded(path) if path else _cache() / "data"


def homeless(root: Path) -> str:
    """Return a notice if the store is temporary, because the user has no home folder; else an empty text."""
    if not atomic_write.is_aside(root):
        return ""
    return (
        f"there is no home folder (HOME is not set): {root} goes with this run, and the next one sweeps again; name a "
        "store with --robustness-store or ROBUSTNESS_STORE"
    )


def _cache() -> Path:
    """Return the user's cache folder, or a temporary one if the user has no home folder."""
    try:
        return Path(platformdirs.user_cache_path(CACHE))
    except (RuntimeError, KeyError):  # no HOME, and no entry among the users
        return atomic_write.aside()


@dataclass
class Context:
    """
    The settings of a run, its store and its notices.

    Attributes:
        store: The folder of everything that is made.
        data_root: The folder of the data sets.
        device: The device that this process computes on, as torch names it.
        seed: The seed of random perturbations.
        threads: CPU threads of a sweep; None for all cores.
        kind: The kind of device on which an engine makes evidence; None if this process makes it.
        progress: Shows the progress of sweeps and trainings.
        dtype: The precision of sweeps, as torch names it.
        notices: Sentences for the end of the report that no test says: evidence that could not be trusted, weights
            older than their recipe, a store that could not be written.
    """

    store: Store
    data_root: Path
    device: str = "cpu"
    seed: int = 0
    threads: int | None = None
    kind: str | None = None
    progress: Progress = no_progress
    dtype: str = "float32"
    notices: list[str] = field(default_factory=list)
    _failures: dict[str, Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        file_reads.install_audit_hook()

    @property
    def device_kind(self) -> str:
        """The kind of device that evidence is made on."""
        return self.kind or hardware.device_fingerprint(self.device)

    @property
    def sweep_device(self) -> str:
        """The device that sweeps run on."""
        family = "" if self.kind is None else self.kind.partition("-")[0]
        return self.device if self.device.startswith(family) else family

    def get_or_make(
        self,
        kind: str,
        key: str,
        make: Callable[[], T],
        *,
        read: Callable[[], tuple[T | None, str]],
        label: str,
        again: str = "made again",
        prepare: Callable[[], object] | None = None,
    ) -> T:
        """
        Return an entry of the store if it can be trusted; else make it, in one process of all that use the store.

        The others wait, show "waiting for another process: LABEL", and then read what the first one wrote. If `make`
        raises, or its process is killed, nothing is stored and no process of this run tries again: this one raises the
        same error, the others get SweepError with the reason. The next run tries again.

        Args:
            kind: What is made, as in "evidence"; `kind` and `key` name the lock.
            key: The hash of everything that the entry depends on.
            make: Makes the entry, writes it by the store's atomic writes, and returns it.
            read: Returns the entry; or None, and why what is stored cannot be trusted ("" if nothing is stored).
            label: What `make` does, as in "sweeping tiny:fgsm".
            again: What the notice promises about an entry that cannot be trusted.
            prepare: Makes what has to be there first, before the lock is taken; see `locks.get_or_make`.
        """
        name = f"{kind}-{key}"
        exclusive = self.store.exclusive(name, label)
        with self.fail_once(name):
            return locks.get_or_make(
                make, read=lambda: self.read_or_notice(read, again), exclusive=exclusive, prepare=prepare
            )

    def read_or_notice(self, read: Callable[[], tuple[T | None, str]], again: str) -> T | None:
        """Return what `read` returns; if it cannot be trusted, add a notice of the reason and what is done `again`."""
        value, reason = read()
        if reason:
            self.notice(f"{reason}; {again}")
        return value

    @contextmanager
    def fail_once(self, name: str) -> Iterator[None]:
        """Do something that is not tried again in this run: if it failed, raise the same error at once."""
        if name in self._failures:
            raise self._failures[name].with_traceback(None)
        try:
            yield
        except Exception as error:
            self._failures[name] = error
            raise

    def mark_failed(self, key: str, reason: str) -> None:
        """Record that an engine could not make evidence, so that nobody tries again in this run."""
        self._failures[f"evidence-{key}"] = SweepError(reason)

    def notice(self, message: str) -> None:
        """Add a sentence to the notices of the run, once."""
        if message not in self.notices:
            self.notices.append(message)
