"""One perturbation, many strengths, one classifier: the direction once a batch, then a forward pass a strength."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustness import hardware
from robustness import strengths as strengths_
from robustness.datasets.images import Images
from robustness.decisions import Argmax
from robustness.draws import CHUNK, ChunkedDraws, Purpose, generator
from robustness.errors import ModelError
from robustness.evidence import OK, RAISED, SEMANTICS, Evidence
from robustness.modules import replicas, state_hash, undisturbed
from robustness.perturbations import Batch, Clean, Perturbation
from robustness.strengths import Spread, Strength, Unit

UNREACHED_SHARE = 0.01
"""Above this share of images at which a strength cannot be had, its cell errors."""

Progress = Callable[[int, int], None]
"""Called with the images done and all images."""


def sweep(
    classifier: nn.Module,
    images: Images,
    perturbation: Perturbation,
    strengths: Sequence[Strength],
    *,
    unit: Unit = "native",
    seed: int = 0,
    device: str = "cpu",
    batch_size: int | None = None,
    threads: int | None = None,
    decision: Argmax | None = None,
    probabilities: bool = False,
    progress: Progress | None = None,
) -> Evidence:
    """
    Perturb every image at every strength and record what the classifier decides.

    ``classifier`` maps images in [0, 1], (N, C, H, W), to logits (N, classes). On CPUs every batch has the
    same size (the last is padded), is computed with one torch thread, and ``threads`` of them run side by
    side: the outcome depends on neither. A cell that fails has a status that says why; nothing is raised
    for it. ModelError where the outputs do not fit the classes.

    >>> from robustness.datasets.images import from_arrays
    >>> from robustness.perturbations import Normal
    >>> images = from_arrays(np.full((4, 1, 2), 128, np.uint8), [0, 1, 0, 1])
    >>> evidence = sweep(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), images, Normal(), [0.1, 0.2])
    >>> evidence.predictions.shape, evidence.status
    ((2, 4), ('ok', 'ok'))
    """
    decision = decision or Argmax()
    chosen = strengths_.check(strengths, perturbation, unit)
    batch_size = batch_size or hardware.batch_size(images.shape, device)
    work = list(_interleaved(len(images), batch_size))
    threads = 1 if device != "cpu" else min(threads or hardware.cores(), len(work))
    started = time.perf_counter()
    run = _Run(images, perturbation, chosen, unit, seed, device, batch_size, decision, probabilities)
    with undisturbed(classifier, device) as lent:
        run.all_batches(replicas(lent, threads), work, progress)
        doubts = ["non-deterministic forward"] if isinstance(perturbation, Clean) and run.differs(lent) else []
        weights = state_hash(lent)
    seconds = time.perf_counter() - started
    return run.evidence(
        {
            "perturbation": perturbation.model_dump(),
            "unit": unit,
            "seed": seed,
            "device": hardware.device_kind(device),
            "dtype": "float32",
            "batch_size": batch_size,
            "semantics": SEMANTICS,
            "images": {"name": images.name, "n": len(images), "fingerprint": images.fingerprint},
            "state": weights,
            "decision": decision.model_dump(),
            "versions": {"torch": torch.__version__, "numpy": np.__version__},
            "doubts": doubts,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "images_per_second": round(len(images) * len(chosen) / seconds, 1),
        }
    )


def _interleaved(total: int, batch_size: int, abreast: int = 4) -> Iterator[tuple[int, int]]:
    """Give (start, stop) of every batch, ordered so that neighbours lie in different chunks and draw side by side."""
    chunks = [
        [(s, min(s + batch_size, start + CHUNK, total)) for s in range(start, min(start + CHUNK, total), batch_size)]
        for start in range(0, total, CHUNK)
    ]
    for i in range(0, len(chunks), abreast):
        for row in zip_longest(*chunks[i : i + abreast]):
            yield from (batch for batch in row if batch)


@dataclass
class _Run:
    """The arrays that a sweep fills, batch by batch, from several threads."""

    images: Images
    perturbation: Perturbation
    strengths: tuple[Strength, ...]
    unit: Unit
    seed: int
    device: str
    batch_size: int
    decision: Argmax
    keep_probabilities: bool
    raised: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape, classes = (len(self.strengths), len(self.images)), len(self.images.classes)
        self.predictions = np.full(shape, -1, np.int32)
        self.confidence, self.true_probability, self.loss, self.snr = (
            np.full(shape, np.nan, np.float32) for _ in range(4)
        )
        self.probabilities = np.full((*shape, classes), np.nan, np.float32) if self.keep_probabilities else None
        self.non_finite = np.zeros(shape[0], int)
        self.unreached = np.zeros(shape[0], int)
        self.drawn = self._spreads()
        self.draws = ChunkedDraws(self._draw, len(self.images))
        self._counting = threading.Lock()

    def _draw(self, chunk: int, size: int) -> np.ndarray:
        drawn = self.perturbation.draw(generator(self.seed, Purpose.NOISE, chunk), (size, *self.images.shape))
        return np.empty((size, 0), np.float32) if drawn is None else drawn

    def _spreads(self) -> np.ndarray | None:
        if not any(isinstance(strength, Spread) for strength in self.strengths):
            return None
        total = len(self.images)
        rows = np.empty((len(self.strengths), total), np.float32)
        for row, strength in zip(rows, self.strengths, strict=True):
            for chunk, start in enumerate(range(0, total, CHUNK)):
                part = row[start : start + CHUNK]
                draws = generator(self.seed, Purpose.STRENGTH, chunk)
                part[:] = strength.draw(draws, len(part)) if isinstance(strength, Spread) else strength
        return rows

    def all_batches(
        self, models: list[nn.Module], work: list[tuple[int, int]], progress: Progress | None
    ) -> None:
        """Run every batch, each on one of the models, as many at once as there are models."""
        free: SimpleQueue[nn.Module] = SimpleQueue()
        for model in models:
            free.put(model)

        def one(batch: tuple[int, int]) -> int:
            model = free.get()
            try:
                self._batch(model, *batch)
            finally:
                free.put(model)
            return batch[1] - batch[0]

        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(len(models), initializer=self._one_thread)
        try:
            done = 0
            for future in as_completed([pool.submit(one, batch) for batch in work]):
                done += future.result()
                if progress:
                    progress(done, len(self.images))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)

    def _one_thread(self) -> None:
        if self.device == "cpu":  # the number holds for the calling thread
            torch.set_num_threads(1)

    def _padded(self, array: np.ndarray) -> Tensor:
        """Bring a last, smaller batch to the size of the others: another size would give other last bits."""
        missing = self.batch_size - len(array)
        if missing:
            array = np.concatenate([array, np.repeat(array[:1], missing, axis=0)])
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _inputs(self, start: int, stop: int) -> Tensor:
        return self._padded(self.images.batch(start, stop))

    def _batch(self, model: nn.Module, start: int, stop: int) -> None:
        """Sweep one batch over all strengths."""
        drawn = self.draws.rows(start, stop)
        inputs = self._inputs(start, stop)
        labels = self._padded(self.images.labels[start:stop])
        out = torch.empty_like(inputs)
        try:
            batch = Batch(model, inputs, labels, self._padded(drawn) if drawn.size else None)
            perturb = self.perturbation.prepare(batch)
        except Exception as error:  # the perturbation runs the user's model; no cell of it has numbers
            self.raised.update(dict.fromkeys(range(len(self.strengths)), _described(error)))
            return
        for i in range(len(self.strengths)):
            if i in self.raised:
                continue
            try:
                self._cell(model, perturb, inputs, labels, i, slice(start, stop), out)
            except ModelError:
                raise
            except Exception as error:  # anything that the user's model raises is an error of this cell
                self.raised[i] = _described(error)

    def _cell(
        self, model: nn.Module, perturb: Any, inputs: Tensor, labels: Tensor, i: int, rows: slice, out: Tensor
    ) -> None:
        """Decide one batch at one strength and write the outcome into its rows."""
        n = rows.stop - rows.start
        with torch.no_grad():
            perturbed, reached = self._perturbed(perturb, inputs, i, rows, out)
            snr = strengths_.signal_to_noise_ratio(inputs, perturbed)[:n]
        with torch.inference_mode():
            logits = self._logits(model, perturbed)
            log_probabilities = self.decision.log_probabilities(logits)[:n]
            finite = logits[:n].isfinite().all(1)
            best, predictions = log_probabilities.max(1)
            true = log_probabilities.gather(1, labels[:n, None]).squeeze(1)
        good = finite.cpu().numpy()
        everything = bool(good.all())
        for array, values in (
            (self.predictions, predictions),
            (self.confidence, best.exp()),
            (self.true_probability, true.exp()),
            (self.loss, -true),
        ):
            array[i, rows] = values.cpu().numpy()
            if not everything:
                array[i, rows][~good] = -1 if array is self.predictions else np.nan
        self.snr[i, rows] = snr.cpu().numpy()
        if self.probabilities is not None:
            self.probabilities[i, rows] = log_probabilities.exp().cpu().numpy()
        with self._counting:
            self.non_finite[i] += n - int(good.sum())
            self.unreached[i] += 0 if reached is None else n - int(reached[:n].sum())

    def _perturbed(
        self, perturb: Any, inputs: Tensor, i: int, rows: slice, out: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        strength: float | Tensor
        chosen = self.strengths[i]
        if isinstance(chosen, Spread):
            assert self.drawn is not None
            strength = self._padded(self.drawn[i, rows]).view(-1, *(1,) * (inputs.dim() - 1))
        else:
            strength = chosen
        if self.unit == "snr":
            return strengths_.at_ratio(perturb, inputs, strength, out)
        return perturb(strength, out), None

    def _logits(self, model: nn.Module, perturbed: Tensor) -> Tensor:
        logits = model(perturbed)
        due = (self.batch_size, self.decision.outputs(len(self.images.classes)))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != due:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"the classifier must give logits of shape (images, outputs) = {due} for the "
                f"{len(self.images.classes)} classes of {self.images.name}, got {got}; "
                "check the number of outputs, or the classes of the data"
            )
        return logits.float()

    def differs(self, model: nn.Module) -> bool:
        """Say whether two passes over the first batch give different logits."""
        if self.raised:
            return False

        def twice() -> bool:
            with torch.inference_mode():
                inputs = self._inputs(0, min(self.batch_size, len(self.images)))
                first, second = (self._logits(model, inputs.clone()).clone() for _ in range(2))
                return not torch.equal(first, second)

        before = torch.get_num_threads()
        with ThreadPoolExecutor(1, initializer=self._one_thread) as pool:
            try:
                return pool.submit(twice).result()
            finally:
                torch.set_num_threads(before)

    def _status(self, i: int) -> str:
        total = len(self.images)
        if i in self.raised:
            return RAISED + self.raised[i]
        if bad := int(self.non_finite[i]):
            return f"non-finite logits for {bad} of {total} images ({bad / total:.1%})"
        missed = int(self.unreached[i])
        if missed > UNREACHED_SHARE * total:
            return f"the ratio cannot be reached within [0, 1] for {missed} of {total} images ({missed / total:.1%})"
        return OK

    def evidence(self, provenance: dict[str, Any]) -> Evidence:
        """Give what was recorded; a cell whose code failed keeps no numbers."""
        for i in self.raised:
            self.predictions[i] = -1
            for array in (self.confidence, self.true_probability, self.loss, self.snr, self.probabilities):
                if array is not None:
                    array[i] = np.nan
        notes = {
            strengths_.name(s): f"ratio not reached for {int(self.unreached[i])} images"
            for i, s in enumerate(self.strengths)
            if self.unreached[i]
        }
        return Evidence(
            labels=self.images.labels.astype(np.int32),
            classes=self.images.classes,
            strengths=tuple(strengths_.name(s) for s in self.strengths),
            predictions=self.predictions,
            confidence=self.confidence,
            true_probability=self.true_probability,
            loss=self.loss,
            snr=self.snr,
            status=tuple(self._status(i) for i in range(len(self.strengths))),
            provenance=provenance | {"notes": notes},
            probabilities=self.probabilities,
            drawn=self.drawn,
        )


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"[:300]
