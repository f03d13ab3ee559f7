"""The store on disk: evidence and trained weights by content, written atomically, believed only when intact."""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from filelock import BaseFileLock, Timeout

from robustness.errors import Busy, StoreError, SweepError, shown
from robustness.metrics.evidence import Evidence
from robustness.util import atomic_write, paths, source_files
from robustness.util.hashing import canonical_json, sha256_json

PATIENCE = 2.0
"""Seconds of waiting after which it is said what is being waited for."""
KEY = re.compile(r"[\w-]+", re.ASCII)


class Store:
    """
    A folder that any number of runs may share.

    ``run`` names the run that this process belongs to (all workers of a pytest run are one);
    ``say`` is told what is being waited for.
    """

    def __init__(self, root: Path, run: str | None = None, say: Callable[[str], None] | None = None) -> None:
        self.root = root
        self.run = run or uuid.uuid4().hex
        self.say = say or (lambda message: None)

    def path(self, kind: str, key: str, suffix: str = "safetensors") -> Path:
        """Return where an entry lies: ``evidence``, ``weights``, ``generators``, ``directions`` or ``findings``."""
        if not KEY.fullmatch(key):  # of a report that was edited
            raise StoreError(f"a key must consist of letters and digits, got {shown(key)}")
        return self.root / kind / key[:2] / f"{key}.{suffix}"

    def read(self, path: Path) -> bytes:
        """
        Return what a file of the store holds.

        Raises:
            FileNotFoundError: There is none.
            StoreError: It, or a folder of the store that it lies in, is a link; or it cannot be read.
        """
        try:
            paths.check_no_link(path, self.root)
            return paths.read_bytes(path, follow=False)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(error.strerror or str(error)) from error

    def checkpoint(self, key: str) -> Path:
        """Return where a training, or the fitting of a generator, leaves what it goes on from."""
        return self.root / "checkpoints" / f"{key}.pt"

    def holds(self, path: Path) -> bool:
        """Return whether a file of the store is there; a link is not, and is said: it is never followed."""
        try:
            paths.check_no_link(path, self.root)
            paths.check_regular(path, follow=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.say(f"{path} is not used: {error.strerror or error}")
            return False
        return True

    def evidence(self, key: str, project: Path) -> tuple[Evidence | None, str]:
        """
        Return the evidence of a key if it can be believed; else None and why not ("" where there is none).

        Its file must be intact and its own; every source file and distribution that it lists must be
        unchanged; and if code failed in it, that must have been in this run.
        """
        path = self.path("evidence", key)
        try:
            evidence = Evidence.from_bytes(self.read(path))
        except FileNotFoundError:
            return None, ""
        except StoreError as error:
            return None, f"{path}: {error}"
        found = evidence.provenance
        reason = self._older(found, key, project, "evidence of")
        if not reason and evidence.failed and found.get("run") != self.run:
            reason = f"code failed when evidence of {found.get('label')} was made"
        return (None, reason) if reason else (evidence, "")

    def findings(self, key: str, project: Path) -> tuple[dict[str, Any] | None, str]:
        """Return a document of a key if it can be believed; else None and why not ("" where there is none)."""
        path = self.path("findings", key, "json")
        try:
            found = document(self.read(path))
        except FileNotFoundError:
            return None, ""
        except StoreError as error:
            return None, f"{path}: {error}"
        reason = self._older(found, key, project, "what was found of")
        return (None, reason) if reason else (found, "")

    def write_findings(self, key: str, found: Mapping[str, Any]) -> None:
        """Keep a document; what is read back has a checksum less."""
        whole = {**found, "checksum": sha256_json(found)}
        self.write(self.path("findings", key, "json"), canonical_json(whole))

    def _older(self, found: Mapping[str, Any], key: str, project: Path, what: str) -> str:
        """Say why an entry is not believed: it is another key's, or of other code."""
        if found.get("key") != key:
            return f"{self.path('evidence', key)}: holds the evidence of another key"
        if other := source_files.changed_files(found.get("sources", {}), project):
            return f"{what} {found.get('label')} is older than {', '.join(other)}"
        if other := source_files.changed_distributions(found.get("distributions", {})):
            return f"{what} {found.get('label')} was made with another version of {', '.join(other)}"
        return ""

    def write(self, path: Path, content: bytes) -> None:
        """Write a file whole or not at all; StoreError where the disk does not take it."""
        with self.writing(path) as stream:
            stream.write(content)

    def keep(self, path: Path, content: bytes) -> Path:
        """
        Write a file of the store and return where it lies: where the disk does not take it, beside, for this run.

        Raises:
            StoreError: No other place takes it either.
        """
        try:
            self.write(path, content)
        except StoreError as error:
            self.say(f"kept for this run alone: {error}")
            try:
                path = atomic_write.aside() / path.relative_to(self.root)
            except OSError:
                raise error from None
            self.write(path, content)
        return path

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[IO[bytes]]:
        """Give a stream whose bytes become a file when all are written; StoreError where the disk does not take it."""
        below = self.root if path.is_relative_to(self.root) else None
        try:
            with atomic_write.atomic_writer(path, below=below) as stream:
                yield stream
        except OSError as error:
            raise StoreError(
                f"{path} could not be written ({error.strerror or error}), nothing was left there; "
                "make room, or name another folder with --robustness-store or ROBUSTNESS_STORE"
            ) from error

    @contextlib.contextmanager
    def alone(self, name: str, what: str, *, wait: bool = True) -> Iterator[None]:
        """
        Do one thing in one process of however many run; the others wait and say what for, or get Busy at once.

        While it is done a marker lies in the store, and stays where it failed. One that is found with the lock
        free says that a process has died or failed at it: in the same run SweepError is raised, for whoever
        tried again would end the same way.
        """
        lock = self._acquired(name, what, wait=wait)
        if lock is None:
            yield
            return
        try:
            marker = self.root / "attempts" / f"{name}.json"
            self._refuse_if_tried(marker, what)
            self._mark(marker)
            try:
                yield
            except Exception as error:
                self._mark(marker, failed=str(error) or type(error).__name__)
                raise
            except BaseException:  # Ctrl-C is nobody's failure
                self.remove(marker)
                raise
            self.remove(marker)
        finally:
            lock.release()

    def _acquired(self, name: str, what: str, *, wait: bool) -> BaseFileLock | None:
        """Return the lock once it is ours; none for a store that cannot be written: it still serves readers."""
        path, patience = self.root / "locks" / f"{name}.lock", PATIENCE if wait else 0.0
        lock = atomic_write.lock(path)
        while True:
            try:
                paths.check_no_link(path, self.root)
                path.parent.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=patience)
                return lock
            except Timeout:
                if not wait:
                    raise Busy(f"another process is {what}") from None
                self.say(f"waiting for another process: {what}")
                patience = 15 * PATIENCE
            except (OSError, NotImplementedError):  # the latter: a file system without locks
                return None

    def _mark(self, marker: Path, **more: str) -> None:
        with contextlib.suppress(StoreError):  # a full disk loses the warning to others, and nothing else
            self.write(marker, json.dumps({"run": self.run, "pid": os.getpid(), **more}).encode())

    def _refuse_if_tried(self, marker: Path, what: str) -> None:
        try:
            left = paths.parse_json(self.read(marker))
        except (OSError, StoreError, ValueError):
            return
        if not isinstance(left, dict) or left.get("run") != self.run or left.get("pid") == os.getpid():
            return
        again = "it is not tried again in this run"
        if "failed" in left:
            raise SweepError(f"process {left['pid']} of this run failed while {what}; {again}: {left['failed']}")
        raise SweepError(
            f"process {left.get('pid')} of this run died while {what}; {again} "
            "(out of memory? a crash in the model's native code?)"
        )

    def entries(self, kind: str = "evidence") -> Iterator[tuple[Path, Evidence | StoreError]]:
        """Return every entry of a kind, in the order of their keys, or why it cannot be read."""
        for path in sorted((self.root / kind).glob("??/*.safetensors")):
            try:
                yield path, Evidence.from_bytes(self.read(path))
            except (OSError, StoreError) as error:
                yield path, StoreError(f"{path}: {error}")

    def remove(self, path: Path) -> None:
        """Remove one file of the store, or a link in its place; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            paths.check_no_link(path.parent, self.root)
            path.unlink(missing_ok=True)


def document(content: bytes) -> dict[str, Any]:
    """Read what `Store.write_findings` wrote; StoreError where it is torn, foreign or changed."""
    try:
        found: dict[str, Any] = paths.parse_json(content)
        intact = found.pop("checksum") == sha256_json(found)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise StoreError(f"not a document of the store (torn or foreign): {error}") from error
    if not intact:
        raise StoreError("its checksum does not fit its content (changed or damaged)")
    return found
