"""What a sweep does with one batch: the direction once, then a forward pass a strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from robustness.classifiers.modules import has_convolutions, restored_afterwards
from robustness.data import validation
from robustness.data.images import Images
from robustness.decisions import Decision
from robustness.errors import MissingLibrary, ModelError
from robustness.perturbations import FGSM, Batch, Perturb, Perturbation, Step
from robustness.perturbations import strength as strengths_
from robustness.perturbations.gradients import STUCK, SURVIVED, ZERO
from robustness.perturbations.losses import misleads, model_logits
from robustness.perturbations.pgd import IterativeAttack
from robustness.perturbations.random_search import Draw, search
from robustness.perturbations.strength import Strength, StrengthDistribution, Unit
from robustness.sweep.batching import out_of_memory, pad_batch
from robustness.sweep.prefetch import HostBatch, Prefetcher
from robustness.sweep.recorder import UNREACHED, OutcomeRecorder
from robustness.util.rng import CHUNK, ChunkedDraws, Purpose, generator

PROBE = 8
"""Images on which a model is tried before a sweep: each costs several passes, and says the same as any other."""
PARTS = 2
"""In how many parts a batch is differentiated on a CPU, of a module with convolutions: it keeps all their maps."""


@dataclass(frozen=True)
class SweepBatches:
    """One perturbation of some images at several strengths; a cell is one of the strengths."""

    images: Images
    perturbation: Perturbation
    strengths: tuple[Strength, ...]
    unit: Unit
    seed: int
    device: str
    batch_size: int
    decision: Decision
    source_decision: Decision
    directions: np.ndarray | None = None
    """A direction for every image, made before, where there is one."""
    first: int = 0
    """The number of the images' first chunk, where they are some chunks of more."""
    draws: ChunkedDraws = field(init=False)
    ahead: Prefetcher = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ahead", Prefetcher(self._host))
        object.__setattr__(self, "draws", ChunkedDraws(self._draw, len(self.images)))

    def _draw(self, chunk: int) -> Callable[[int], np.ndarray]:
        count = self.perturbation.draws(self.strengths)
        numbers = [generator(self.seed, Purpose.NOISE, self.first + chunk, step) for step in range(count)]

        def rows(size: int) -> np.ndarray:
            drawn = [self.perturbation.draw(each, (size, *self.images.shape)) for each in numbers]
            arrays = [each for each in drawn if each is not None]
            if not arrays:
                return np.empty((size, 0), np.float32)
            return arrays[0] if count == 1 else np.stack(arrays, 1)

        return rows

    def drawn_strengths(self) -> np.ndarray | None:
        """Return the strength of every image, (strengths, N), where any is drawn."""
        if not any(isinstance(strength, StrengthDistribution) for strength in self.strengths):
            return None
        rows = np.empty((len(self.strengths), len(self.images)), np.float32)
        for row, strength in zip(rows, self.strengths, strict=True):
            for chunk, start in enumerate(range(0, len(row), CHUNK)):
                part = row[start : start + CHUNK]
                draws = generator(self.seed, Purpose.STRENGTH, self.first + chunk)
                part[:] = strength.draw(draws, len(part)) if isinstance(strength, StrengthDistribution) else strength
        return rows

    def batch(self, models: nn.ModuleDict, start: int, stop: int, outcomes: OutcomeRecorder) -> None:
        """Sweep one batch over all strengths; what the user's code raises is an error of a cell."""
        cells = [i for i in range(len(self.strengths)) if not outcomes.settled(i, start)]
        if not cells:
            self.ahead.drop(start)
            return
        batch = self.prepared(models, start, stop)
        try:
            perturb = strengths_.convert_unit(self.unit, self.perturbation.prepare(batch), batch.inputs)
        except (ModelError, MissingLibrary):
            raise
        except BaseException as error:  # preparing may run the model; without it no cell has numbers
            self._refuse_full(error)
            check_logits_dtype(batch.attacked, batch.inputs, error)
            for i in cells:
                outcomes.fail(i, start, error)
            return
        shared, scratch, cleared = batch.take_marks(), self._scratch(batch), []
        for i in cells:
            for what, marked in shared.items():
                batch.count(what, marked)
            try:
                self._cell(batch, perturb, i, slice(start, stop), scratch, outcomes)
                cleared.append(i)
            except (ModelError, MissingLibrary):
                raise
            except BaseException as error:  # anything that the model raises, SystemExit too, is an error of this cell
                self._refuse_full(error)
                check_logits_dtype(batch.attacked, batch.inputs, error)
                outcomes.fail(i, start, error)
            outcomes.count(i, start, {what: int(marked.sum()) for what, marked in batch.take_marks().items()})
        if cleared:
            self._decide(batch.labels, cleared, slice(start, stop), scratch, outcomes)

    def _refuse_full(self, error: BaseException) -> None:
        """Give up a batch for which there is no memory; of a single image that is an error of its cell."""
        if out_of_memory(error) and self.batch_size > 1:
            raise error

    def prepared(self, models: nn.ModuleDict, start: int, stop: int) -> Batch:
        """Return some images with all that a perturbation of them needs."""
        others = dict(models.items())
        attacked = others.get("source", models["classifier"])
        heavy = self.device == "cpu" and has_convolutions(attacked)
        host = self.ahead.take(start, stop)
        return Batch(
            models["classifier"],
            self._moved(host.inputs),
            self._moved(host.labels),
            None if host.drawn is None else self._moved(host.drawn),
            size=stop - start,
            source=others.get("source"),
            decision=self.source_decision,
            generator=others.get("generator"),
            made=None if host.made is None else self._moved(host.made).float(),
            at_once=-(-self.batch_size // PARTS) if heavy else None,
            strengths=self.strengths,
        )

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    @property
    def reads_ahead(self) -> bool:
        """Whether reading and drawing go on beside the device that computes; on a CPU they would take its cores."""
        return self.device != "cpu"

    def prefetch(self, start: int, stop: int) -> None:
        """Begin what the processor has to do for a batch that is soon asked for."""
        self.images.prefetch(start, stop)
        if self.reads_ahead:
            self.ahead.begin(start, stop)

    def _host(self, start: int, stop: int) -> HostBatch:
        """Read and draw what a batch needs, padded to the size of the others."""
        drawn = self.draws.rows(start, stop)
        made = None if self.directions is None else self.directions[start:stop]

        def whole(array: np.ndarray) -> Tensor:
            return pad_batch(array, self.batch_size, "cpu")

        found = HostBatch(
            whole(self.images.batch(start, stop)),
            whole(self.images.labels[start:stop]),
            whole(drawn) if drawn.size else None,
            None if made is None else whole(made),
        )
        return found.pinned() if self.device.startswith("cuda") else found

    def _cell(
        self, batch: Batch, perturb: Perturb, i: int, rows: slice, scratch: BatchBuffers, outcomes: OutcomeRecorder
    ) -> None:
        """Perturb a batch to one strength, and keep the model's logits and the size of the perturbation."""
        if self.strengths[i] == 0 and self.unit not in strengths_.RATIOS:
            for what in (ZERO, STUCK):  # nothing is perturbed
                batch.marked.pop(what, None)
        if batch.clean_logits is not None and self.strengths[i] == 0 and self.unit not in strengths_.RATIOS:
            scratch.logits[i] = self.checked(batch.clean_logits)
            scratch.noise[i] = 0
            return
        with torch.no_grad():
            perturbed = self.perturbed(batch, perturb, i, rows, scratch.out, outcomes.drawn)
            searched = self._search(batch, perturbed, i, rows, outcomes.drawn)
            if searched or not scratch.measured:
                scratch.noise[i] = strengths_.l2_norm(perturbed - batch.inputs)
        with torch.no_grad():  # copied: a model may give a view of the buffer, or one of its own again and again
            scratch.logits[i] = self.checked(self._output(batch.classifier, perturbed))

    def _search(self, batch: Batch, perturbed: Tensor, i: int, rows: slice, drawn: np.ndarray | None) -> bool:
        """
        Search the images that gave no gradient without one, and write what misleads; return whether any was searched.

        Of attacks in a ball, on the swept model itself: what others counted stays counted.
        """
        attack, stuck = self.perturbation, batch.marked.get(STUCK)
        if (
            stuck is None
            or self.unit != "native"
            or batch.source is not None
            or not isinstance(attack, FGSM | IterativeAttack)
        ):
            return False
        left = batch.marked.pop(STUCK).nonzero().flatten()
        targets = attack.targets(batch)
        chosen = None if targets is None else targets[left]
        logits = model_logits(batch.classifier, perturbed[left])
        left = left[~misleads(logits, batch.labels[left], chosen, batch.decision, attack.loss)]
        if not len(left):
            return False
        first = self.first * CHUNK + rows.start
        draws = [Draw(generator(self.seed, Purpose.SEARCH, first + row), self.images.shape) for row in left.tolist()]
        images, misled = search(
            batch, left, attack, attack.norm, self._strength(i, rows, drawn, perturbed.dim()), draws
        )
        perturbed[left[misled]] = images[misled]
        batch.count(SURVIVED, torch.zeros_like(stuck).index_fill(0, left[~misled], True))
        return True

    def _decide(
        self, labels: Tensor, cells: list[int], rows: slice, scratch: BatchBuffers, outcomes: OutcomeRecorder
    ) -> None:
        """Write down what the logits of several cells say: all at once, for there are many small steps in it."""
        n = rows.stop - rows.start
        with torch.no_grad():
            kept = cells if len(cells) < len(self.strengths) else slice(None)
            logits = scratch.logits[kept]
            log_probabilities = self.decision.log_probabilities(logits)
            predictions = self.decision.predictions(logits)
            true, predicted = (
                log_probabilities.gather(-1, classes[..., None]).squeeze(-1)
                for classes in (labels.expand_as(predictions), predictions)
            )
            floats = {
                "confidence": predicted.exp(),
                "true_probability": true.exp(),
                "loss": -true,
                "snr": strengths_.to_decibels(scratch.signal, scratch.noise[kept]),
            }
            if "probabilities" in outcomes.floats:
                floats["probabilities"] = log_probabilities.exp()
            if (passed := self.decision.log_passed(logits)) is not None:
                floats["attack_probability"] = -torch.expm1(passed)
            # The sum of all is quick, and finite only where each is; it says nothing of which is not.
            whole = bool(logits.sum().isfinite())
            finite = torch.ones_like(predictions, dtype=torch.bool) if whole else logits.isfinite().all(-1)
            told = {name: values[:, :n].cpu().numpy() for name, values in floats.items()}
            outcomes.record(cells, rows, predictions[:, :n].cpu().numpy(), finite[:, :n].cpu().numpy(), told)

    def _scratch(self, batch: Batch) -> BatchBuffers:
        """Give what the cells of a batch share; where one table has the sizes of all perturbations, they are in it."""
        count, outputs = len(self.strengths), self.decision.outputs(len(self.images.classes))
        out, noise = torch.empty_like(batch.inputs), batch.inputs.new_empty(count, self.batch_size)
        sizes = [strength for strength in self.strengths if not isinstance(strength, StrengthDistribution)]
        step = isinstance(self.perturbation, Step) and self.perturbation.signed and self.unit == "native"
        measured = step and len(sizes) == count and self.images.pixels.dtype == np.uint8
        if measured:
            assert batch.made is not None
            noise = strengths_.clipped_l2_distances(batch.inputs, batch.made, sizes)
        logits = batch.inputs.new_empty(count, self.batch_size, outputs)
        return BatchBuffers(out, strengths_.l2_norm(batch.inputs), noise, measured, logits)

    def perturbed(
        self, batch: Batch, perturb: Perturb, i: int, rows: slice, out: Tensor, drawn: np.ndarray | None
    ) -> Tensor:
        """Return a batch at one strength, written to ``out``; ``drawn`` are the strengths of all images, if any is."""
        strength = self._strength(i, rows, drawn, out.dim())
        if self.unit not in strengths_.RATIOS:
            return perturb(strength, out)
        asked = strengths_.pixel_snr(self.unit, batch.inputs, strength)
        perturbed, reached = strengths_.perturb_to_snr(perturb, batch.inputs, asked, out)
        batch.count(UNREACHED, ~reached)
        return perturbed

    def _strength(self, i: int, rows: slice, drawn: np.ndarray | None, dimensions: int) -> float | Tensor:
        """Return one strength, or that of each image of a batch, (N, 1, 1, 1)."""
        if not isinstance(chosen := self.strengths[i], StrengthDistribution):
            return chosen
        assert drawn is not None
        return self._padded(drawn[i, rows]).view(-1, *(1,) * (dimensions - 1))

    def _padded(self, array: np.ndarray) -> Tensor:
        return pad_batch(array, self.batch_size, self.device)

    def _output(self, model: nn.Module, perturbed: Tensor) -> Tensor:
        """Return what a model says; ModelError where it computes in another type than the images come in."""
        try:
            return model(perturbed)  # type: ignore[no-any-return]
        except RuntimeError as error:
            check_logits_dtype(model, perturbed, error)
            raise

    def checked(self, logits: Tensor, size: int | None = None) -> Tensor:
        """Return a model's outputs; ModelError where they are not one number an output that the decision needs."""
        due = (size or self.batch_size, self.decision.outputs(len(self.images.classes)))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != due:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"the classifier must give logits of shape (images, outputs) = {due} for the "
                f"{len(self.images.classes)} classes of {self.images.name}, got {got}; "
                + outputs_repair(logits, due[1], self.images)
            )
        return logits.float()

    def works(self, models: nn.ModuleDict) -> bool:
        """Return whether the models that run in a sweep take some images without raising; they stay as they were."""
        with restored_afterwards(models, self.device) as lent:
            return self.probed(lent, self.some()[0]) is not None

    def some(self) -> tuple[Tensor, Tensor]:
        """Return images to try a model on, and as many others: what it remembers of the first must not fit these."""
        count = min(PROBE, self.batch_size, len(self.images))
        start = min(count, len(self.images) - count)
        # In another order than in the sweep, which begins with them.
        first = torch.from_numpy(self.images.batch(0, count).copy()).to(self.device).flip(0)
        others = torch.from_numpy(self.images.batch(start, start + count).copy()).to(self.device)
        return first, 1 - first if bool((first == others).flatten(1).all(1).any()) else others

    def probed(self, models: nn.ModuleDict, images: Tensor, gradient: bool = False) -> Tensor | None:
        """
        Return what the models that run in a sweep say of some images, (N, outputs), with ``gradient`` also its slope.

        None where one raises: the sweep runs into it, and says so.
        """
        try:
            with torch.inference_mode(False), torch.set_grad_enabled(gradient):
                inputs = images.clone().requires_grad_(gradient)
                said = [self.checked(self._output(models["classifier"], inputs.clone()), len(images))]
                if "source" in models:
                    said.append(model_logits(models["source"], inputs))
                found = torch.cat(said, 1)
                if gradient and found.requires_grad:
                    # Every output at a weight of its own: their plain sum is flat where they are probabilities.
                    value = (found * torch.linspace(1, 2, found.shape[1]).to(found)).sum()
                    (slope,) = torch.autograd.grad(value, inputs, allow_unused=True)
                    found = found if slope is None else torch.cat([found, slope.flatten(1)], 1)
                return found.detach().clone()
        except (ModelError, KeyboardInterrupt):
            raise
        except BaseException:  # the model's own code
            return None

    @property
    def differentiates(self) -> bool:
        """Whether the perturbation takes gradients of a model."""
        return self.directions is None and self.perturbation.gradients(self.strengths) > 0


@dataclass(frozen=True)
class BatchBuffers:
    """
    What the cells of a batch share: a buffer for its images, and the images' sizes.

    ``noise`` (strengths, N) has the sizes of the perturbations, ``measured`` before any is made or cell by cell;
    ``logits`` is (strengths, N, outputs).
    """

    out: Tensor
    signal: Tensor
    noise: Tensor
    measured: bool
    logits: Tensor


def outputs_repair(logits: object, due: int, images: Images) -> str:
    """Say what to write where a model's outputs are not ``due`` numbers an image."""
    if not isinstance(logits, Tensor):
        return "give a tensor"
    if due == 2 and logits.numel() == len(logits):
        inside = bool((logits >= 0).all() and (logits <= 1).all())
        return (
            "one number an image is that of the second class: give two logits, by its forward or a factory around it: "
            f"z = outputs.flatten(){'.logit()' if inside else ''}; return torch.stack([torch.zeros_like(z), z], 1)"
            + ("; better without its last sigmoid" if inside else "")
        )
    more = int(logits.shape[1]) - due if logits.dim() == 2 else 0
    if more == -1 and validation.from_one(images.labels):
        return "no image has the label 0: labels begin at 1; use labels - 1"
    if more > 0:
        return (
            "the data have images of some of the model's classes alone: name the classes of all its outputs, in their "
            "order, as classes = [...] in the card's [model] (an array file may name them all in `classes`)"
        )
    return "check the number of outputs, or the classes of the data (an array file may name them all in `classes`)"


def check_logits_dtype(model: nn.Module, inputs: Tensor, error: BaseException) -> None:
    """Say what to do about a model that raised because it computes in another type than the images come in."""
    other = {str(p.dtype) for p in model.parameters() if p.is_floating_point() and p.dtype != inputs.dtype}
    if other and isinstance(error, RuntimeError) and ("dtype" in str(error) or "type" in str(error)):
        raise ModelError(
            f"the classifier must take float32 images, got one with parameters of {', '.join(sorted(other))}: "
            f"call module.float() in its factory, or convert the images in its forward ({error})"
        ) from error
