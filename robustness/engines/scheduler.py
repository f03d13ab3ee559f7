"""Schedules the missing chunks of evidence in rounds; the executor knows no cards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robustness.cards import Card
from robustness.classifiers import weights
from robustness.engines.packaging import ModelPackage, pack_model
from robustness.engines.worker import Task, blocks
from robustness.errors import Busy, DataMissing, RobustnessError, SweepError
from robustness.sweep import chunks
from robustness.sweep.recorder import ChunkResult
from robustness.sweep.runner import choose_batch_size, module_dict
from robustness.util.rng import CHUNK
from robustness.workspace import attack_inputs
from robustness.workspace.chunk_cache import StoredChunks
from robustness.workspace.jobs import SweepJob
from robustness.workspace.workspace import Workspace

ROUND = 64
"""Maximum concurrent sweeps: each holds a lock, and workers get the tasks of all of them at their start."""
GLANCE = 1.0
"""Seconds between two checks whether another process has finished."""

Contents = Mapping[str, Callable[[], Any]]
"""Inputs of tasks by name, computed on request."""
Execute = Callable[[Mapping[int, Task], Sequence[tuple[int, int]], Contents], Iterable[Mapping[str, Any]]]
"""Returns the result of every chunk of every task (`worker.one`), each once, in any order."""


@dataclass
class PendingSweep:
    """
    A sweep to compute, or its directions.

    Attributes:
        job: The sweep; for directions, the attack on the source.
        key: The key of the evidence or the directions.
        directions: Whether directions are missing, not evidence.
        finished: The chunks that are done.
        batch_size: Images per batch; 0 until it is chosen.
        missing: The numbers of the chunks that are not done.
        lock: What this process holds while it makes them.
    """

    job: SweepJob
    key: str
    directions: bool
    finished: StoredChunks
    batch_size: int = 0
    missing: set[int] = field(default_factory=set)
    lock: ExitStack = field(default_factory=ExitStack)

    @property
    def label(self) -> str:
        """The sweep as users see it."""
        return f"{'directions on ' if self.directions else ''}{self.job.label}"

    @property
    def lock_name(self) -> str:
        """The name of the lock that one process at a time holds."""
        return f"{'directions' if self.directions else 'evidence'}-{self.key}"

    @property
    def chunks(self) -> range:
        """The numbers of all chunks."""
        return range(chunks.chunk_count(self.job.images))

    def chunk_length(self, chunk: int) -> int:
        """Return how many images a chunk has."""
        return min(CHUNK, len(self.job.images) - chunk * CHUNK)


class ChunkScheduler:
    """
    Computes the evidence that is missing in a workspace's store, chunk by chunk, on an engine's workers.

    Args:
        workspace: The workspace.
        execute: Runs chunks on workers.
        device: The device of each worker, as torch names it.
        cores: The CPU cores of each worker.
        progress: Called with the numbers of finished images and of all.

    Attributes:
        failed: Failures by key.
    """

    def __init__(
        self,
        workspace: Workspace,
        execute: Execute,
        *,
        device: str = "cpu",
        cores: int = 1,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.workspace, self.failed = workspace, dict[str, str]()
        self._execute, self._device, self._cores, self._progress = execute, device, cores, progress
        self._packages: dict[tuple[Path, Path], ModelPackage] = {}
        self._contents: dict[str, Callable[[], Any]] = {}

    def run(self, sweeps: Iterable[tuple[Card, str]]) -> None:
        """Compute the evidence of these sweeps, of the clean images, and of the source models of transfer attacks."""
        evidence: dict[str, PendingSweep] = {}
        directions: dict[str, PendingSweep] = {}
        for card, sweep in sweeps:
            self._add(card, sweep, evidence, directions)
        self._run_in_rounds(list(directions.values()))
        self._run_in_rounds(list(evidence.values()))

    def _add(
        self, card: Card, sweep: str, evidence: dict[str, PendingSweep], directions: dict[str, PendingSweep]
    ) -> None:
        """Add a sweep, and the sweeps that it is compared with, to what is missing."""
        workspace = self.workspace
        try:
            if sweep != "clean":
                self._add(card, "clean", evidence, directions)
            job = workspace.resolve(card, sweep)
            if job.source is not None:
                self._add(job.source, sweep, evidence, directions)
            key = workspace.job_key(job)
            if key in evidence or workspace.stored_evidence(card, key) is not None:
                return
            if job.direction_job is not None:
                file = attack_inputs.directions_file(workspace, job.direction_job)
                if not file.is_file() and file.stem not in directions:
                    directions[file.stem] = self._pending(job.direction_job, file.stem, directions=True)
            evidence[key] = self._pending(job, key)
        except DataMissing:
            return  # the test that needs this evidence reports it
        except RobustnessError as error:
            workspace.notice(f"{card.name}:{sweep} is left to the tests: {error}")

    def _pending(self, job: SweepJob, key: str, *, directions: bool = False) -> PendingSweep:
        dependencies = {} if directions else self.workspace.dependencies(job)
        finished = StoredChunks(
            self.workspace.store, key, job.card.project, dependencies=lambda: dependencies, notice=self.workspace.notice
        )
        return PendingSweep(job, key, directions, finished)

    def _run_in_rounds(self, items: list[PendingSweep]) -> None:
        """Make all items, and wait for those that another process makes."""
        waiting_shown = False
        while items:
            locked, others = self._lock(items[:ROUND])
            if locked:
                again = self._run_round(locked)
                items = [item for item in [*again, *others, *items[ROUND:]] if not self._is_done(item)]
                continue
            if not waiting_shown and others:
                self.workspace.store.say(f"waiting for another process: sweeping {others[0].label}")
                waiting_shown = True
            time.sleep(GLANCE)
            items = [item for item in items if not self._is_done(item)]

    def _lock(self, items: list[PendingSweep]) -> tuple[list[PendingSweep], list[PendingSweep]]:
        """Lock the sweeps that no other process computes; return them, and the others."""
        locked, others = list[PendingSweep](), list[PendingSweep]()
        for item in items:
            item.lock = ExitStack()
            try:
                item.lock.enter_context(
                    self.workspace.store.exclusive(item.lock_name, f"sweeping {item.label}", wait=False)
                )
            except Busy:
                others.append(item)
            except RobustnessError as error:
                self.failed[item.key] = str(error)
            else:
                if self._is_done(item):
                    item.lock.close()
                else:
                    locked.append(item)
        return locked, others

    def _is_done(self, item: PendingSweep) -> bool:
        """Return whether an item has failed, or is in the store."""
        if item.key in self.failed:
            return True
        if item.directions:
            return self.workspace.store.holds(self.workspace.store.path("directions", item.key))
        return self.workspace.stored_evidence(item.job.card, item.key) is not None

    def _run_round(self, items: list[PendingSweep]) -> list[PendingSweep]:
        """Compute locked sweeps; return those that must be repeated in smaller batches."""
        with ExitStack() as locks:
            for item in items:
                locks.push(item.lock)
            tasks: dict[int, Task] = {}
            units: list[tuple[int, int]] = []
            for number, item in enumerate(items):
                try:
                    tasks[number] = self._begin(item)
                except RobustnessError as error:
                    self._fail(item, str(error))
                    continue
                units += [(number, chunk) for chunk in sorted(item.missing)]
                if not item.missing:  # killed after the last chunk, before the evidence was written
                    self._finish(item)
            return list(self._collect(items, tasks, units))

    def _collect(
        self, items: list[PendingSweep], tasks: dict[int, Task], units: list[tuple[int, int]]
    ) -> Iterator[PendingSweep]:
        """Store the workers' results; return the items whose batches do not fit into memory."""
        done, too_large = 0, set[int]()
        total = sum(items[number].chunk_length(chunk) for number, chunk in units)
        for result in self._execute(tasks, units, self._contents) if units else ():
            number, chunk = int(result["task"]), int(result["chunk"])
            item = items[number]
            done += item.chunk_length(chunk)
            self._progress(done, total)
            if number in too_large or item.key in self.failed or chunk not in item.missing:
                continue
            if result["error"]:
                self._fail(item, result["error"])
            elif result["full"]:
                too_large.add(number)
            else:
                item.finished.write(ChunkResult.from_bytes(result["content"])[0])
                item.missing.remove(chunk)
                if not item.missing:
                    self._finish(item)
        for number in sorted(too_large):
            items[number].batch_size //= 2
            yield items[number]

    def _finish(self, item: PendingSweep) -> None:
        """Assemble the chunks, as a local sweep does if all are finished."""
        try:
            if item.directions:
                attack_inputs.check_degenerate(*attack_inputs.make_directions(self.workspace, item.job), item.job.card)
            else:
                self.workspace.make_evidence(item.job, self.workspace.key_fields(item.job))
        except RobustnessError as error:
            self._fail(item, str(error))
        item.lock.close()

    def _fail(self, item: PendingSweep, reason: str) -> None:
        """Record a failure; its marker informs the other processes of this run."""
        self.failed[item.key] = f"{item.label}: {reason}"
        error = SweepError(reason)
        item.lock.__exit__(SweepError, error, None)

    def _begin(self, item: PendingSweep) -> Task:
        """Return the task of an item for the workers, and set its missing chunks."""
        task = self._task(item)
        item.missing = {
            chunk
            for chunk in item.chunks
            if (result := item.finished.get(chunk)) is None or result.batch_size != task.batch_size
        }
        for chunk in item.missing:
            self._contents[f"{task.images}:{chunk}"] = partial(blocks, item.job.images, chunk)
        return task

    def _task(self, item: PendingSweep) -> Task:
        workspace, job, perturbation = self.workspace, item.job, item.job.perturbation
        generator, fitted = None, None
        if perturbation.needs_fitting:
            fitted = attack_inputs.generator(workspace, job.attacked, perturbation)
            file = attack_inputs.generator_file(workspace, job.attacked, perturbation)
            generator = (file.stem, weights.metadata(file)["target"])
            self._contents[file.stem] = file.read_bytes
        module = workspace.classifier(job.card).module
        source = None if job.source is None else workspace.classifier(job.source).module
        modules = module if item.directions else module_dict(module, source, fitted)
        planned = choose_batch_size(job.images, perturbation, modules, self._device)
        item.batch_size = item.batch_size or item.finished.batch_size(planned)
        return Task(
            directions=item.directions,
            classifier=self._package(job.card),
            source=None if job.source is None else self._package(job.source),
            generator=generator,
            perturbation=perturbation,
            strengths=(0.0,) if item.directions else job.strengths,
            unit="default" if item.directions else job.unit,
            seed=workspace.seed,
            device=self._device,
            batch_size=item.batch_size,
            dtype=workspace.dtype,
            threads=self._cores if self._device == "cpu" and (perturbation.side_by_side or item.directions) else 1,
            decision=job.card.file.model.decision,
            source_decision=job.attacked.file.model.decision,
            probabilities=job.card.file.store_probabilities and not item.directions,
            images=job.images.fingerprint,
            title=job.images.name,
            classes=job.images.classes,
            directions_name=None if job.direction_job is None else self._directions(job.direction_job, item),
        )

    def _directions(self, job: SweepJob, item: PendingSweep) -> str:
        """Return the name under which workers get the directions of an attack on a source, by chunk."""
        name = attack_inputs.directions_file(self.workspace, job).stem
        if name in self.failed:
            raise SweepError(self.failed[name])
        signs = attack_inputs.directions(self.workspace, job)
        for chunk in item.chunks:
            self._contents[f"{name}:{chunk}"] = partial(_rows, signs, chunk)
        return name

    def _package(self, card: Card) -> ModelPackage:
        file = self.workspace.weights(card)
        if (card.path, file) not in self._packages:
            package, files = pack_model(card, file, self.workspace.classifier(card), self.workspace.classes(card))
            self._packages[card.path, file] = package
            self._contents |= {name: path.read_bytes for name, path in files.items()}
        return self._packages[card.path, file]


def _rows(signs: np.ndarray, chunk: int) -> np.ndarray:
    return np.ascontiguousarray(signs[chunk * CHUNK : (chunk + 1) * CHUNK])
