"""What the sweeps of some cards will cost here: the first batches of each are timed, and extrapolated to all."""

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
from robustness.perturbations import Perturbation, Step
from robustness.perturbations.advgan import AdvGAN
from robustness.perturbations.strength import StrengthDistribution
from robustness.planning import timing
from robustness.planning.costs import Cost, Plan, evidence_bytes
from robustness.sweep import batching, chunks
from robustness.sweep.batch import SweepBatches
from robustness.sweep.batching import Progress
from robustness.sweep.runner import choose_batch_size, module_dict
from robustness.util import hardware, rng_state
from robustness.util.rng import CHUNK
from robustness.workspace import attack_inputs, generators, training
from robustness.workspace.chunk_cache import StoredChunks
from robustness.workspace.workspace import Workspace, strengths_without_zero


@dataclass(frozen=True)
class PlannedSweep:
    """One sweep of one model."""

    card: Card
    name: str
    source: Card | None
    """The card of the model that examples are made on, if that is another one."""

    @property
    def label(self) -> str:
        """What it is called."""
        return f"{self.card.name}:{self.name}"

    @property
    def models(self) -> list[Card]:
        """The cards of the models that run in it; the last one is attacked."""
        return [card for card in (self.card, self.source) if card is not None]

    @property
    def perturbation(self) -> Perturbation:
        """What is done to the images."""
        return self.card.perturbation(self.name)


@dataclass
class Planner:
    """
    Times the sweeps of some cards, each once, with as many batches side by side as the machine has cores.

    A model that is not trained is timed with random weights.
    """

    workspace: Workspace
    clock: Callable[[], float] = time.perf_counter
    _random: dict[str, nn.Module] = field(default_factory=dict)
    _planned: set[str] = field(default_factory=set)

    @property
    def threads(self) -> int:
        """How many batches are at work side by side on this machine, whatever processes they are of."""
        return hardware.cpu_count() if self.workspace.device == "cpu" else 1

    def plan(self, card: Card, progress: Progress | None = None) -> Plan:
        """Plan the sweeps of one card that no earlier card needs; ModelError if its model fails."""
        missing, stored, notes, costs = list[PlannedSweep](), list[str](), list[str](), list[Cost]()
        for sweep in self._needed(card):
            key = self._key(sweep)
            if key in self._planned:
                continue
            self._planned.add(key)
            if self._is_trained(*sweep.models) and self.workspace.store.evidence(key, sweep.card.project)[0]:
                stored.append(sweep.label)
            else:
                missing.append(sweep)

        def measure() -> None:
            for i, sweep in enumerate(missing):
                if progress is not None:
                    progress(i, len(missing))
                notes.extend(self._prerequisites(sweep))
                try:
                    costs.append(self._cost(sweep))
                except SweepError as error:
                    if sweep.name == "clean":
                        raise ModelError(
                            f"{sweep.card.name}: its forward pass {error}; `robustness check` looks it over"
                        ) from error
                    notes.append(f"{sweep.label} fails: {error}")

        memory = timing.peak_memory(measure, self.workspace.device) if missing else 0
        return Plan(tuple(costs), tuple(stored), tuple(dict.fromkeys(notes)), memory)

    def _needed(self, card: Card) -> Iterator[PlannedSweep]:
        """Return the sweeps that `robustness sweep` makes for a card, in its order: those of sources come first."""
        for name in ("clean", *card.file.sweeps):
            if (source := self.workspace.source(card, name)) is not None:
                yield from (PlannedSweep(source, each, None) for each in ("clean", name))
            yield PlannedSweep(card, name, source)

    def _key(self, sweep: PlannedSweep) -> str:
        """Return what a sweep is by content, as far as that is known: the same for those that are the same evidence."""
        card = sweep.card
        if self._is_trained(*sweep.models):
            return self.workspace.key(card, sweep.name)
        data, model = card.tested_on or card.file.data, card.file.model_dump_json(include={"model", "recipe"})
        return f"{card.path.resolve()}\n{model}\n{data.model_dump_json()}\n{card.file.sweeps.get(sweep.name)!r}"

    def _is_trained(self, *models: Card) -> bool:
        """Return whether weights are there, or need no training; nothing is trained."""
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

    def _prerequisites(self, sweep: PlannedSweep) -> Iterator[str]:
        """Return what must be computed before a sweep."""
        for card in sweep.models:
            if not self._is_trained(card):
                yield (
                    f"{card.name} is not trained: `robustness train {card.name}` comes first; its sweeps are timed "
                    "with random weights"
                )
        attacked, perturbation = sweep.models[-1], sweep.perturbation
        if isinstance(perturbation, AdvGAN) and not (
            self._is_trained(attacked)
            and self.workspace.store.holds(attack_inputs.generator_file(self.workspace, attacked, perturbation))
        ):
            yield f"the generator of {perturbation.kind} is fitted to {attacked.name} first"

    def _cost(self, sweep: PlannedSweep) -> Cost:
        """Time the first batches of a sweep and count their passes; SweepError if code fails in them."""
        card, perturbation, device = sweep.card, sweep.perturbation, self.workspace.device
        images, file, table = self.workspace.images(card), card.file, card.file.sweeps.get(sweep.name)
        strengths = tuple(strengths_without_zero(card, sweep.name))
        generator = generators.unfitted(images, perturbation) if isinstance(perturbation, AdvGAN) else None
        modules = module_dict(
            self._module(card), None if sweep.source is None else self._module(sweep.source), generator
        )
        modules = precision.in_precision(modules, self.workspace.dtype, device)
        size = choose_batch_size(images, perturbation, modules, device)
        wanted = self._unfinished_chunks(sweep, size)
        batches = batching.batch_count(len(images), size, wanted)
        threads = min(self.threads, max(1, batches)) if perturbation.side_by_side else 1
        few = images.select(range(min(len(images), 2 * threads * CHUNK)), images.name)
        cells = SweepBatches(
            few, perturbation, strengths, table.unit if table else "default", self.workspace.seed, device, size,
            file.model.decision, sweep.models[-1].file.model.decision, self._directions(sweep, len(few)),
        )  # fmt: skip
        with precision.matmul_precision(self.workspace.dtype, device):
            measured = timing.time_batches(
                cells, modules, threads, max(1, batches), self.clock, probabilities=file.store_probabilities
            )
        return Cost(
            sweep.label,
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

    def _unfinished_chunks(self, sweep: PlannedSweep, batch_size: int) -> list[int]:
        """Return the chunks of images that a sweep has left: one that was cut off goes on from those in the store."""
        finished = None
        if self._is_trained(*sweep.models):
            finished = StoredChunks(self.workspace.store, self._key(sweep), sweep.card.project)
        count = chunks.chunk_count(self.workspace.images(sweep.card))
        return chunks.load_finished_chunks(finished, count, batch_size, lambda chunk: None)

    def _directions(self, sweep: PlannedSweep, count: int) -> np.ndarray | None:
        """Return signs of a transfer if the store has them, zeros in their place; else a sweep computes them first."""
        if sweep.source is None or not self._is_trained(sweep.source) or not isinstance(sweep.perturbation, Step):
            return None
        file = sweep.perturbation.signed and attack_inputs.directions_file(self.workspace, sweep.source, sweep.name)
        if not file or not self.workspace.store.holds(file):
            return None
        return np.zeros((count, *self.workspace.images(sweep.card).shape), np.int8)
