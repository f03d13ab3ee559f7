"""How long one batch takes here: what a model costs a pass, and what a sweep costs beside its model."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustness.classifiers.modules import channels_last, replicas, restored_afterwards, state_hash
from robustness.data.images import Images
from robustness.decisions import Decision
from robustness.errors import GradientError, ModelError
from robustness.metrics.evidence import OK
from robustness.perturbations import FGSM, Batch, Perturbation
from robustness.perturbations.gradients import sweep_gradient
from robustness.perturbations.strength import Strength, Unit
from robustness.sweep import batching, chunks, trials
from robustness.sweep.batch import SweepBatches
from robustness.sweep.recorder import OutcomeRecorder
from robustness.sweep.runner import module_dict
from robustness.util.rng import CHUNK

ENOUGH = 0.4
"""Seconds after which a measurement has had runs enough."""
RUNS = 8
"""The most runs, of one batch a thread, beside the one that warms the threads: of large models one takes seconds."""

Work = Callable[[nn.ModuleDict, int, int], float]
"""Works on one batch, and gives the seconds of what is timed."""


class Runs(NamedTuple):
    """What some runs gave, a batch: the median of what was timed, and the mean of all that was done."""

    timed: float
    whole: float


@dataclass(frozen=True)
class Pace:
    """What a model costs: seconds a sweep before its first batch, and a batch for each forward and each gradient."""

    start: float
    forward: float
    gradient: float
    """Of a forward with its backward; 0.0 where the model has no gradient."""


@dataclass(frozen=True)
class Rest:
    """What a sweep costs a batch beside its models, and how often it runs them: passes for each image."""

    seconds: float
    passes: Counter[str]
    """By "forward", "source" and "backward"; each backward stands beside one of the forwards."""


def pace(
    module: nn.Module, images: Images, decision: Decision, *, device: str, batch_size: int, abreast: int, gradient: bool
) -> Pace:
    """
    Time a model's passes over batches of some images, as many side by side as in a run.

    ModelError where it cannot take them.
    """
    cells = SweepBatches(images, FGSM(), (0.0,), "native", 0, device, batch_size, decision, decision)
    clock = _clock(device)
    started = clock()
    with restored_afterwards(module_dict(module, None, None), device) as lent:
        state_hash(lent["classifier"])
        channels_last(lent, lambda: cells.accepts(lent))
        models = trials.run_trials(cells, lent, abreast).models
        start = clock() - started

        def forward(batch: Batch) -> None:
            with torch.no_grad():
                cells.check_logits(batch.classifier(batch.inputs))

        def differentiate(batch: Batch) -> None:
            sweep_gradient(batch)

        def timed(work: Callable[[Batch], object]) -> float:
            def anew() -> Work:
                fresh = replace(cells)  # each row of a chunk is drawn once

                def one(each: nn.ModuleDict, start: int, stop: int) -> float:
                    batch = fresh.attack_batch(each, start, stop)
                    return _seconds(lambda: work(batch), device)

                return one

            return _runs(anew, models, images, batch_size, device).timed

        try:
            once = timed(forward)
        except ModelError:
            raise
        except Exception as error:  # the model's own code
            raise ModelError(
                f"its forward pass raised {type(error).__name__}: {error}; `robustness check` looks it over"
            ) from error
        try:
            return Pace(start, once, timed(differentiate) if gradient else 0.0)
        except GradientError:  # its attacks will error after one forward
            return Pace(start, once, 0.0)


def rest(
    images: Images,
    perturbation: Perturbation,
    strengths: Sequence[Strength],
    unit: Unit,
    decision: Decision,
    source_decision: Decision | None,
    *,
    device: str,
    batch_size: int,
    abreast: int,
    probabilities: bool = False,
    generator: nn.Module | None = None,
    directions: bool = False,
) -> Rest:
    """
    Sweep some batches with a model that costs next to nothing and is never misled; time it, and count its passes.

    ``source_decision`` is that of the source of a transfer, ``directions`` whether what is made on it is there already.
    An attack that stops where it has misled takes fewer passes than are counted here.
    """
    few = images.select(range(min(len(images), abreast * CHUNK)), images.name)
    few = replace(few, labels=np.zeros(len(few), np.int64))
    seen: list[tuple[str, int]] = []
    classifier, source = _free(few, decision, "forward", seen), None
    if source_decision is not None:
        source = _free(few, source_decision, "source", seen)
    made = np.zeros((len(few), *few.shape), np.int8) if directions else None
    cells = SweepBatches(
        few, perturbation, tuple(strengths), unit, 0, device, batch_size, decision, source_decision or decision, made
    )
    ran = list[OutcomeRecorder]()

    def anew() -> Work:
        fresh = replace(cells)
        ran.append(chunks.new_recorder(fresh, probabilities=probabilities))

        def one(each: nn.ModuleDict, start: int, stop: int) -> float:
            seen.append(("batch", batch_size))
            return _seconds(lambda: fresh.run_batch(each, start, stop, ran[-1]), device)

        return one

    with restored_afterwards(module_dict(classifier, source, generator), device) as lent:
        seconds = _runs(anew, replicas(lent, abreast), few, batch_size, device).whole
    if ran[-1].failed:
        reason = next(status for status in ran[-1].evidence({}).status if status != OK)
        raise ModelError(f"{perturbation.kind} cannot be calibrated: {reason}")
    counted: Counter[str] = Counter()
    for name, rows in seen:
        counted[name] += rows
    swept_rows = counted.pop("batch")
    return Rest(seconds, Counter({name: round(rows / swept_rows) for name, rows in counted.items()}))


class Free(nn.Module):
    """A model that takes one look at its images, says the first class of all of them, and tells what it is asked."""

    look: Tensor
    scale: Tensor
    sure: Tensor

    def __init__(self, pixels: int, outputs: int, tell: Callable[[str, int], None], name: str) -> None:
        super().__init__()
        drawn = torch.from_numpy(np.random.default_rng(0).standard_normal(pixels, np.float32))
        self.register_buffer("look", drawn / drawn.abs().sum())
        self.register_buffer("scale", torch.linspace(1, -1, outputs))
        self.register_buffer("sure", torch.tensor([5.0, *[0.0] * (outputs - 1)]))
        self.tell, self.name = tell, name

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits of which the first is the largest, whatever the images are."""
        self.tell(self.name, len(inputs))
        seen = torch.mv(inputs.flatten(1), self.look)
        logits = torch.outer(seen, self.scale) + self.sure
        if logits.requires_grad:
            logits.register_hook(lambda _: self.tell("backward", len(inputs)))  # type: ignore[no-untyped-call]
        return logits


def _free(images: Images, decision: Decision, name: str, seen: list[tuple[str, int]]) -> Free:
    outputs = decision.outputs(len(images.classes))
    return Free(math.prod(images.shape), outputs, lambda *what: seen.append(what), name)


def _runs(anew: Callable[[], Work], models: list[nn.ModuleDict], images: Images, batch_size: int, device: str) -> Runs:
    """Work on batches until there are enough; a first run warms the threads and is left out."""
    times, spent, count = list[float](), 0.0, 0
    abreast = len(models)
    for run in range(1 + RUNS):
        work, found = anew(), list[float]()

        def one(model: nn.ModuleDict, start: int, stop: int, work: Work = work, found: list[float] = found) -> None:
            found.append(work(model, start, stop))

        before = _clock(device)()
        batching.run_batches(
            one, models, len(images), batch_size, device, prefetch=images.prefetch, max_batches=abreast
        )
        if run:
            spent, count, times = spent + _clock(device)() - before, count + len(found), times + found
        if run and spent > ENOUGH:
            break
    return Runs(statistics.median(times), spent / count if device == "cpu" else spent / count * abreast)


def _clock(device: str, clock: Callable[[], float] = time.process_time) -> Callable[[], float]:
    """Return a clock of the processor's time on CPUs, which other work on the machine does not change much."""
    return clock if device == "cpu" else time.perf_counter


def _seconds(call: Callable[[], object], device: str) -> float:
    clock = _clock(device, time.thread_time)
    started = clock()
    call()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return clock() - started


def memory(work: Callable[[], object], device: str) -> int:
    """Do something, and give the most memory in bytes that this process, or its part of a GPU, held meanwhile."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return int(torch.cuda.max_memory_allocated(device))
    own = Path("/proc/self")
    if not own.is_dir():  # no Linux: the peak since the process began
        import resource

        work()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(OSError):  # else it is the peak since the process began
        (own / "clear_refs").write_text("5", encoding="ascii")
    work()
    status = (own / "status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
