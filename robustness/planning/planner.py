"""Estimates the cost of sweeps on this machine: times the first batches of each and extrapolates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from robustness.cards import Card
from robustness.classifiers import build, precision
from robustness.decisions import Filtering
from robustness.errors import ModelError, SweepError
from robustness.perturbations.strength import StrengthDistribution
from robustness.planning.costs import Cost, Plan, evidence_bytes, peak_memory, time_batches
from robustness.sweep import batching, chunks
from robustness.sweep.batch import SweepBatches
from robustness.sweep.batching import Progress
from robustness.sweep.runner import choose_batch_size, module_dict
from robustness.util import hardware, rng_state
from robustness.util.rng import CHUNK
from robustness.workspace import attack_inputs, fitting, training
from robustness.workspace.chunk_cache import StoredChunks
from robustness.workspace.jobs import SweepJob
from robustness.workspace.workspace import Workspace


@dataclass
class Planner:
    """
    Times the sweeps of some cards, each once, with one parallel batch per core.

    An untrained model is timed with random weights.
    """

    workspace: Workspace
    clock: Callable[[], float] = time.perf_counter
    _random: dict[str, nn.Module] = field(default_factory=dict)
    _planned: set[str] = field(default_factory=set)

    @property
    def threads(self) -> int:
        """The number of parallel batches on this machine, in all processes together."""
        return hardware.cpu_count() if self.workspace.device == "cpu" else 1

    def plan(self, card: Card, progress: Progress | None = None) -> Plan:
        """Plan the sweeps of one card, except those of earlier cards; ModelError if its model fails."""
        missing, stored, notes, costs = list[SweepJob](), list[str](), list[str](), list[Cost]()
        for job in self._needed(card):
            key = self._key(job)
            if key in self._planned:
                continue
            self._planned.add(key)
            if self._is_trained(*job.models) and self.workspace.store.evidence(key, job.card.project)[0]:
                stored.append(job.label)
            else:
                missing.append(job)

        def measure() -> None:
            for i, job in enumerate(missing):
                if progress is not None:
                    progress(i, len(missing))
                notes.extend(self._prerequisites(job))
                try:
                    costs.append(self._cost(job))
                except SweepError as error:
                    if job.sweep == "clean":
                        raise ModelError(
                            f"{job.card.name}: its forward pass {error}; run `robustness check` to inspect it"
                        ) from error
                    notes.append(f"{job.label} fails: {error}")

        memory = peak_memory(measure, self.workspace.device) if missing else 0
        return Plan(tuple(costs), tuple(stored), tuple(dict.fromkeys(notes)), memory)

    def _needed(self, card: Card) -> Iterator[SweepJob]:
        """Return the sweeps that `robustness sweep` computes for a card, in order, those of source models first."""
        for name in ("clean", *card.file.sweeps):
            job = self.workspace.resolve(card, name)
            if job.source is not None:
                yield from (self.workspace.resolve(job.source, sweep) for sweep in ("clean", name))
            yield job

    def _key(self, job: SweepJob) -> str:
        """Return a sweep's key by content, as far as known: equal for equal evidence."""
        card = job.card
        if self._is_trained(*job.models):
            return self.workspace.job_key(job)
        data, model = card.data("test")[0], card.file.model_dump_json(include={"model", "recipe"})
        return f"{card.path.resolve()}\n{model}\n{data.model_dump_json()}\n{card.file.sweeps.get(job.sweep)!r}"

    def _is_trained(self, *models: Card) -> bool:
        """Return whether weights exist or need no training; train nothing."""
        return all(
            (card.weights is not None and card.weights.is_file())
            or card.file.model.seed is not None
            or card.file.recipe is None
            or training.stored_weights(self.workspace, card) is not None
            for card in models
        )

    def _module(self, card: Card) -> nn.Module:
        if self._is_trained(card):
            return self.workspace.classifier(card).module
        key = f"{card.path.resolve()}\n{card.file.model.model_dump_json()}"
        if key not in self._random:
            with rng_state.isolated_rng(0):
                self._random[key] = build.build_untrained(card, self.workspace.images(card).classes).eval()
        return self._random[key]

    def _prerequisites(self, job: SweepJob) -> Iterator[str]:
        """Return what must be computed before a sweep."""
        for card in job.models:
            if not self._is_trained(card):
                yield (
                    f"{card.name} is not trained; its sweeps are timed with random weights; train it first: robustness "
                    f"train {card.name}"
                )
        attacked, perturbation = job.attacked, job.perturbation
        if perturbation.needs_fitting and not (
            self._is_trained(attacked)
            and self.workspace.store.holds(attack_inputs.generator_file(self.workspace, attacked, perturbation))
        ):
            yield f"the {fitting.product(perturbation)} of {perturbation.kind} is fitted to {attacked.name} first"

    def _cost(self, job: SweepJob) -> Cost:
        """Time the first batches of a sweep and count their passes; SweepError if code fails in them."""
        file, images, perturbation = job.card.file, job.images, job.perturbation
        device, strengths = self.workspace.device, job.strengths
        generator = fitting.unfitted(images, perturbation)
        modules = module_dict(
            self._module(job.card), None if job.source is None else self._module(job.source), generator
        )
        modules = precision.in_precision(modules, self.workspace.dtype, device)
        size = choose_batch_size(images, perturbation, modules, device)
        wanted = self._unfinished_chunks(job, size)
        batches = batching.batch_count(len(images), size, wanted)
        threads = min(self.threads, max(1, batches)) if perturbation.side_by_side else 1
        few = images.select(range(min(len(images), 2 * threads * CHUNK)), images.name)
        cells = SweepBatches(
            few, perturbation, strengths, job.unit, self.workspace.seed, device, size,
            file.model.decision, job.attacked.file.model.decision, self._directions(job, len(few)),
        )  # fmt: skip
        with precision.matmul_precision(self.workspace.dtype, device):
            measured = time_batches(
                cells, modules, threads, max(1, batches), self.clock, probabilities=file.store_probabilities
            )
        return Cost(
            job.label,
            sum(min(CHUNK, len(images) - CHUNK * chunk) for chunk in wanted),
            len(strengths),
            measured.passes["classifier"] + measured.passes["source"],
            measured.passes["backward"],
            evidence_bytes(
                len(images),
                len(strengths),
                len(images.classes),
                probabilities=file.store_probabilities,
                drawn=any(isinstance(strength, StrengthDistribution) for strength in strengths),
                detects=isinstance(file.model.decision, Filtering),
            ),
            size,
            batches,
            measured.start,
            measured.batch,
            measured.parallel,
        )

    def _unfinished_chunks(self, job: SweepJob, batch_size: int) -> list[int]:
        """Return the remaining chunks of a sweep: an interrupted one continues from those in the store."""
        finished = None
        if self._is_trained(*job.models):
            finished = StoredChunks(self.workspace.store, self._key(job), job.card.project)
        count = chunks.chunk_count(job.images)
        return chunks.load_finished_chunks(finished, count, batch_size, lambda chunk: None)

    def _directions(self, job: SweepJob, count: int) -> np.ndarray | None:
        """Return a transfer's signs from the store, else zeros; in that case a sweep computes them first."""
        if job.direction_job is None or not self._is_trained(job.attacked):
            return None
        if not self.workspace.store.holds(attack_inputs.directions_file(self.workspace, job.direction_job)):
            return None
        return np.zeros((count, *job.images.shape), np.int8)
