"""What an engine has to make: the chunks that evidence is missing, in rounds; whoever executes them knows no cards."""

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
from robustness.perturbations import Step
from robustness.sweep import chunks
from robustness.sweep.chunk_result import ChunkResult
from robustness.sweep.runner import choose_batch_size, module_dict
from robustness.util.rng import CHUNK
from robustness.workspace import attack_inputs
from robustness.workspace.chunk_cache import StoredChunks
from robustness.workspace.workspace import Workspace, strengths_without_zero

ROUND = 64
"""Sweeps that are under way at once: each holds a lock, and workers are told of all of them at their start."""
GLANCE = 1.0
"""Seconds between two looks whether another process is done with what it makes."""

Contents = Mapping[str, Callable[[], Any]]
"""What tasks need, by name, made when it is asked for."""
Execute = Callable[[Mapping[int, Task], Sequence[tuple[int, int]], Contents], Iterable[Mapping[str, Any]]]
"""Return the result of every chunk of every task (`worker.one`), each once, in any order."""


@dataclass
class PendingSweep:
    """One sweep that is to be made, or the directions of one; ``left`` are the chunks that are missing."""

    card: Card
    sweep: str
    key: str
    label: str
    directions: bool
    kept: StoredChunks
    size: int
    count: int
    left: set[int] = field(default_factory=set)
    lock: ExitStack = field(default_factory=ExitStack)

    @property
    def name(self) -> str:
        """What the lock is called, by which one process at a time makes it."""
        return f"{'directions' if self.directions else 'evidence'}-{self.key}"


class ChunkScheduler:
    """
    Makes what is missing in a harness's store by ``execute``, on workers of so many cores with such a device.

    ``failed`` says by key what could not be made; ``progress`` is told the images that are done, and all of them.
    """

    def __init__(
        self,
        harness: Workspace,
        execute: Execute,
        *,
        device: str = "cpu",
        cores: int = 1,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.harness, self.failed = harness, dict[str, str]()
        self._execute, self._device, self._cores, self._progress = execute, device, cores, progress
        self._shipped: dict[tuple[Path, Path], ModelPackage] = {}
        self._contents: dict[str, Callable[[], Any]] = {}

    def run(self, wanted: Iterable[tuple[Card, str]]) -> None:
        """Make the evidence of these sweeps, of the clean images, and of the models that examples are made on."""
        every: dict[str, PendingSweep] = {}
        signs: dict[str, PendingSweep] = {}
        for card, sweep in wanted:
            self._add(card, sweep, every, signs)
        self._rounds(list(signs.values()))
        self._rounds(list(every.values()))

    def _add(self, card: Card, sweep: str, every: dict[str, PendingSweep], signs: dict[str, PendingSweep]) -> None:
        harness, label = self.harness, f"{card.name}:{sweep}"
        try:
            if sweep != "clean":
                self._add(card, "clean", every, signs)
            if (source := harness.source(card, sweep)) is not None:
                self._add(source, sweep, every, signs)
            key = harness.key(card, sweep)
            if key in every or harness.stored_evidence(card, key) is not None:
                return
            if source is not None and _signed(card, sweep):
                file = attack_inputs.directions_file(harness, source, sweep)
                if not file.is_file() and file.stem not in signs:
                    signs[file.stem] = self._item(source, sweep, file.stem, directions=True)
            every[key] = self._item(card, sweep, key)
        except DataMissing:
            return  # whoever asks for this evidence says so
        except RobustnessError as error:
            harness.notice(f"{label} is left to the run: {error}")

    def _item(self, card: Card, sweep: str, key: str, *, directions: bool = False) -> PendingSweep:
        harness, images = self.harness, self.harness.images(card)
        label = f"{'directions on ' if directions else ''}{card.name}:{sweep}"
        dependencies = {} if directions else harness.dependencies(card, sweep)
        kept = StoredChunks(harness.store, key, card.project, dependencies=lambda: dependencies, notice=harness.notice)
        return PendingSweep(card, sweep, key, label, directions, kept, 0, chunks.chunk_count(images))

    def _rounds(self, items: list[PendingSweep]) -> None:
        said = False
        while items:
            taken, others = self._taken(items[:ROUND])
            if taken:
                items = [item for item in [*self._round(taken), *others, *items[ROUND:]] if not self._is_there(item)]
                continue
            if not said and others:
                self.harness.store.say(f"waiting for another process: sweeping {others[0].label}")
                said = True
            time.sleep(GLANCE)
            items = [item for item in items if not self._is_there(item)]

    def _taken(self, items: list[PendingSweep]) -> tuple[list[PendingSweep], list[PendingSweep]]:
        """Lock what nobody else makes; give it, and the others."""
        taken, others = list[PendingSweep](), list[PendingSweep]()
        for item in items:
            item.lock = ExitStack()
            try:
                item.lock.enter_context(self.harness.store.exclusive(item.name, f"sweeping {item.label}", wait=False))
            except Busy:
                others.append(item)
            except RobustnessError as error:
                self.failed[item.key] = str(error)
            else:
                if self._is_there(item):
                    item.lock.close()
                else:
                    taken.append(item)
        return taken, others

    def _is_there(self, item: PendingSweep) -> bool:
        if item.key in self.failed:
            return True
        if item.directions:
            return self.harness.store.holds(self.harness.store.path("directions", item.key))
        return self.harness.stored_evidence(item.card, item.key) is not None

    def _round(self, items: list[PendingSweep]) -> list[PendingSweep]:
        """Make some sweeps; give those that must be made anew, in smaller batches."""
        with ExitStack() as locks:
            for item in items:
                locks.push(item.lock)
            tasks: dict[int, Task] = {}
            units: list[tuple[int, int]] = []
            for number, item in enumerate(items):
                try:
                    tasks[number] = self._begun(item)
                except RobustnessError as error:
                    self._fail(item, str(error))
                    continue
                units += [(number, chunk) for chunk in sorted(item.left)]
                if not item.left:  # killed after the last chunk, before the evidence was written
                    self._finish(item)
            again = list(self._heard(items, tasks, units))
        return again

    def _heard(
        self, items: list[PendingSweep], tasks: dict[int, Task], units: list[tuple[int, int]]
    ) -> Iterator[PendingSweep]:
        done, full = 0, set[int]()
        total = sum(self._images_of(items[number], chunk) for number, chunk in units)
        for told in self._execute(tasks, units, self._contents) if units else ():
            number, chunk = int(told["task"]), int(told["chunk"])
            item = items[number]
            done += self._images_of(item, chunk)
            self._progress(done, total)
            if number in full or item.key in self.failed or chunk not in item.left:
                continue
            if told["error"]:
                self._fail(item, told["error"])
            elif told["full"]:
                full.add(number)
            else:
                item.kept.write(ChunkResult.from_bytes(told["content"])[0])
                item.left.remove(chunk)
                if not item.left:
                    self._finish(item)
        for number in sorted(full):
            items[number].size //= 2
            yield items[number]

    def _images_of(self, item: PendingSweep, chunk: int) -> int:
        return min(CHUNK, len(self.harness.images(item.card)) - chunk * CHUNK)

    def _finish(self, item: PendingSweep) -> None:
        """Put the chunks together, as a sweep here would that finds them all finished."""
        try:
            if item.directions:
                made = attack_inputs.make_directions(self.harness, item.card, item.sweep)
                attack_inputs.check_degenerate(*made, item.card)
            else:
                fields = self.harness.evidence_key_fields(item.card, item.sweep)
                self.harness.make_evidence(item.card, item.sweep, fields, item.key)
        except RobustnessError as error:
            self._fail(item, str(error))
        item.lock.close()

    def _fail(self, item: PendingSweep, reason: str) -> None:
        """Note why something could not be made; its marker says so to the other processes of this run."""
        self.failed[item.key] = f"{item.label}: {reason}"
        error = SweepError(reason)
        item.lock.__exit__(SweepError, error, None)

    # What workers are told

    def _begun(self, item: PendingSweep) -> Task:
        task = self._task(item)
        item.left = {
            chunk for chunk in range(item.count)
            if (part := item.kept.get(chunk)) is None or part.batch_size != task.batch_size
        }  # fmt: skip
        for chunk in item.left:
            self._contents[f"{task.images}:{chunk}"] = partial(blocks, self.harness.images(item.card), chunk)
        return task

    def _task(self, item: PendingSweep) -> Task:
        harness, card, sweep = self.harness, item.card, item.sweep
        table, perturbation = card.file.sweeps.get(sweep), card.perturbation(sweep)
        images, source, decision = harness.images(card), harness.source(card, sweep), card.file.model.decision
        attacked = card if source is None else source
        generator, fitted = None, None
        if perturbation.family == "gan":
            fitted = attack_inputs.generator(harness, attacked, perturbation)
            file = harness.store.path("generators", attack_inputs.generator_key(harness, attacked, perturbation))
            generator = (file.stem, weights.metadata(file)["target"])
            self._contents[file.stem] = file.read_bytes
        module = harness.classifier(card).module
        modules = module_dict(module, None if source is None else harness.classifier(source).module, fitted)
        asked = choose_batch_size(images, perturbation, module if item.directions else modules, self._device)
        item.size = item.size or item.kept.batch_size(asked)
        return Task(
            directions=item.directions,
            classifier=self._model(card),
            source=None if source is None else self._model(source),
            generator=generator,
            perturbation=perturbation,
            strengths=(0.0,) if item.directions else tuple(strengths_without_zero(card, sweep)),
            unit="default" if item.directions or table is None else table.unit,
            seed=harness.seed,
            device=self._device,
            batch_size=item.size,
            dtype=harness.dtype,
            threads=self._cores if self._device == "cpu" and (perturbation.side_by_side or item.directions) else 1,
            decision=decision,
            source_decision=decision if source is None else source.file.model.decision,
            probabilities=card.file.store_probabilities and not item.directions,
            images=images.fingerprint,
            title=images.name,
            classes=images.classes,
            made=None if source is None or not _signed(card, sweep) else self._signs(source, item),
        )

    def _signs(self, source: Card, item: PendingSweep) -> str:
        """Return what the directions that were made on a source are shipped as, by chunks."""
        name = attack_inputs.directions_file(self.harness, source, item.sweep).stem
        if name in self.failed:
            raise SweepError(self.failed[name])
        found = attack_inputs.directions(self.harness, source, item.sweep)
        for chunk in range(item.count):
            self._contents[f"{name}:{chunk}"] = partial(_rows, found, chunk)
        return name

    def _model(self, card: Card) -> ModelPackage:
        file = self.harness.weights(card)
        if (card.path, file) not in self._shipped:
            shipped, files = pack_model(card, file, self.harness.classifier(card), self.harness.classes(card))
            self._shipped[card.path, file] = shipped
            self._contents |= {name: path.read_bytes for name, path in files.items()}
        return self._shipped[card.path, file]


def _rows(found: np.ndarray, chunk: int) -> np.ndarray:
    return np.ascontiguousarray(found[chunk * CHUNK : (chunk + 1) * CHUNK])


def _signed(card: Card, sweep: str) -> bool:
    perturbation = card.perturbation(sweep)
    return isinstance(perturbation, Step) and perturbation.signed
