"""The store on disk: evidence, weights and other results under the hash of their inputs, written atomically."""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from robustness.errors import Busy, ModelError, StoreError, SweepError, shown
from robustness.metrics.evidence import Evidence
from robustness.util import atomic_write, locks, paths, source_files
from robustness.util.hashing import canonical_json, sha256_json

T = TypeVar("T")

KEY = re.compile(r"[\w-]+", re.ASCII)


class Store:
    """
    A folder of evidence and weights by content, which any number of runs may share.

    Args:
        root: The folder; it is created by the first write.
        run: The name of the run that this process belongs to; all workers of a pytest run share one.
        say: Shows the user a sentence at once, for example what this process waits for.
    """

    def __init__(self, root: Path, run: str | None = None, say: Callable[[str], None] | None = None) -> None:
        self.root = root
        self.run = run or uuid.uuid4().hex
        self.say = say or (lambda message: None)

    def path(self, kind: str, key: str, suffix: str = "safetensors") -> Path:
        """Return the path of an entry of a kind: evidence, weights, generators, directions or findings."""
        if not KEY.fullmatch(key):  # of a report that was edited
            raise StoreError(f"a key must consist of letters and digits, got {shown(key)}")
        return self.root / kind / key[:2] / f"{key}.{suffix}"

    def read(self, path: Path) -> bytes:
        """
        Return the content of a file of the store.

        Raises:
            FileNotFoundError: If there is no such file.
            StoreError: If the file, or a folder of the store above it, is a link, or if it cannot be read.
        """
        try:
            paths.check_no_link(path, self.root)
            return paths.read_bytes(path, follow=False)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(error.strerror or str(error)) from error

    def checkpoint(self, key: str) -> Path:
        """Return the path of the checkpoint of a training or of the fitting of a generator."""
        return self.root / "checkpoints" / f"{key}.pt"

    def holds(self, path: Path) -> bool:
        """Return whether the store has a file. Links are not followed: they do not count, and the user is told."""
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
        Return the evidence of a key; None and the reason if it cannot be trusted; None and "" if there is none.

        The file must be intact and hold this key, and every source file and distribution that it lists must be
        unchanged. Evidence of a sweep in which code failed is trusted in its own run only.
        """
        path = self.path("evidence", key)
        evidence, reason = self._parse(path, Evidence.from_bytes)
        if evidence is not None:
            provenance = evidence.provenance
            reason = _distrust(path, key, provenance, project)
            if not reason and evidence.failed and provenance.get("run") != self.run:
                reason = f"code failed when evidence of {provenance.get('label')} was made"
        return (None, reason) if reason else (evidence, "")

    def findings(self, key: str, project: Path) -> tuple[dict[str, Any] | None, str]:
        """Return the document of a key; None and the reason if it cannot be trusted; None and "" if there is none."""
        path = self.path("findings", key, "json")
        content, reason = self._parse(path, document)
        if content is not None:
            reason = _distrust(path, key, content, project)
        return (None, reason) if reason else (content, "")

    def _parse(self, path: Path, parse: Callable[[bytes], T]) -> tuple[T | None, str]:
        try:
            return parse(self.read(path)), ""
        except FileNotFoundError:
            return None, ""
        except StoreError as error:
            return None, f"{path}: {error}"

    def write_findings(self, key: str, content: Mapping[str, Any]) -> None:
        """Write a document with a checksum, which `findings` checks and removes."""
        signed = {**content, "checksum": sha256_json(content)}
        self.write(self.path("findings", key, "json"), canonical_json(signed))

    def write(self, path: Path, content: bytes) -> None:
        """Write a file completely or not at all; StoreError if it cannot be written."""
        with self.writing(path) as stream:
            stream.write(content)

    def keep(self, path: Path, content: bytes) -> Path:
        """
        Write a file of the store and return its path; if that fails, write it to a temporary folder for this run.

        Raises:
            StoreError: If the temporary folder cannot be written either.
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

    def try_read(self, path: Path, read: Callable[[Path], T]) -> tuple[T | None, str]:
        """Return what `read` makes of a file; else None and why it cannot be trusted, "" if there is no file."""
        if not self.holds(path):
            return None, ""
        try:
            return read(path), ""
        except (ModelError, StoreError) as error:
            return None, str(error)
        except (KeyError, ValueError) as error:
            return None, f"{path}: not as this program writes it ({error})"

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[IO[bytes]]:
        """Yield a stream whose bytes become the file when the block ends; StoreError if they cannot be written."""
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
    def exclusive(self, name: str, label: str, *, wait: bool = True) -> Iterator[None]:
        """
        Hold the lock of a name while one process works; the others wait and say what for, or get Busy at once.

        A store that cannot be written, or that lies on a file system without locks, has none and still serves readers.

        A marker lies in the store meanwhile, and stays if the work failed or the process died. A later process of the
        same run that finds one gets SweepError, because it would end the same way; one of another run tries again.

        Args:
            name: The name of the lock and the marker.
            label: What is done, as in "sweeping tiny:fgsm"; ends the sentence that other processes show.
            wait: False to raise Busy if another process holds the lock.
        """

        def on_wait() -> None:
            if not wait:
                raise Busy(f"another process is {label}")
            self.say(f"waiting for another process: {label}")

        lock = self.root / "locks" / f"{name}.lock"
        with (
            locks.exclusive(lock, self.root, on_wait, patience=None if wait else 0.0) as locked,
            self._attempt(name, label) if locked else contextlib.nullcontext(),
        ):
            yield

    @contextlib.contextmanager
    def _attempt(self, name: str, label: str) -> Iterator[None]:
        """Keep a marker in the store while the caller, who holds the lock, works."""
        marker = self.root / "attempts" / f"{name}.json"
        self._check_earlier_attempt(marker, label)
        self._write_attempt(marker)
        try:
            yield
        except Exception as error:
            self._write_attempt(marker, failed=str(error) or type(error).__name__)
            raise
        except BaseException:  # Ctrl-C is nobody's failure
            self.remove(marker)
            raise
        self.remove(marker)

    def _write_attempt(self, marker: Path, **more: str) -> None:
        with contextlib.suppress(StoreError):  # a full disk loses the warning to others, and nothing else
            self.write(marker, json.dumps({"run": self.run, "pid": os.getpid(), **more}).encode())

    def _check_earlier_attempt(self, marker: Path, label: str) -> None:
        """Raise SweepError if another process of this run failed or died; its marker is there, and its lock is free."""
        try:
            left = paths.parse_json(self.read(marker))
        except (OSError, StoreError, ValueError):
            return
        if not isinstance(left, dict) or left.get("run") != self.run or left.get("pid") == os.getpid():
            return
        again = "it is not tried again in this run"
        if "failed" in left:
            raise SweepError(f"process {left['pid']} of this run failed while {label}; {again}: {left['failed']}")
        raise SweepError(
            f"process {left.get('pid')} of this run died while {label}; {again} "
            "(out of memory? a crash in the model's native code?)"
        )

    def entries(self, kind: str = "evidence") -> Iterator[tuple[Path, Evidence | StoreError]]:
        """Yield the path of every entry of a kind, by key, with its evidence or the reason why it cannot be read."""
        for path in sorted((self.root / kind).glob("??/*.safetensors")):
            try:
                yield path, Evidence.from_bytes(self.read(path))
            except (OSError, StoreError) as error:
                yield path, StoreError(f"{path}: {error}")

    def remove(self, path: Path) -> None:
        """Remove a file of the store, or a link in its place; if that fails, it stays."""
        with contextlib.suppress(OSError):
            paths.check_no_link(path.parent, self.root)
            path.unlink(missing_ok=True)


def document(content: bytes) -> dict[str, Any]:
    """Parse what `Store.write_findings` wrote; StoreError if it is torn, foreign or changed."""
    try:
        fields: dict[str, Any] = paths.parse_json(content)
        intact = fields.pop("checksum") == sha256_json(fields)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise StoreError(f"not a document of the store (torn or foreign): {error}") from error
    if not intact:
        raise StoreError("its checksum does not fit its content (changed or damaged)")
    return fields


def _distrust(path: Path, key: str, metadata: Mapping[str, Any], project: Path) -> str:
    kind = path.parts[-3]
    if metadata.get("key") != key:
        return f"{path}: holds the {kind} of another key"
    return stale_reason(f"{kind} of {metadata.get('label')}", metadata, project)


def stale_reason(subject: str, metadata: Mapping[str, Any], project: Path) -> str:
    """Return a clause about source files or distributions that have changed since the subject was made, or ""."""
    if other := source_files.changed_files(metadata.get("sources", {}), project):
        return f"{subject} is older than {', '.join(other)}"
    if other := source_files.changed_distributions(metadata.get("distributions", {})):
        return f"{subject} was made with another version of {', '.join(other)}"
    return ""
