"""Sweep one batch: compute the direction once, then run one forward pass per strength."""

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
from robustness.perturbations.attack import misleads, model_logits
from robustness.perturbations.gradients import STUCK, SURVIVED, ZERO
from robustness.perturbations.pgd import IterativeAttack
from robustness.perturbations.random_search import Draw, search
from robustness.perturbations.strength import Strength, StrengthDistribution, Unit
from robustness.sweep.batching import HostBatch, Prefetcher, out_of_memory, pad_batch
from robustness.sweep.recorder import UNREACHED, OutcomeRecorder
from robustness.util.rng import CHUNK, ChunkedDraws, Purpose, generator

# Images of the trial passes before a sweep, at most, and as a part of all images: each costs about ten passes, and more
# would show nothing new.
TRIAL_IMAGES, TRIAL_PART = 8, 1 / 16
# Parts in which a CPU differentiates a batch of a module with convolutions, and bytes of images of which one part is
# enough: autograd saves all feature maps.
GRADIENT_PARTS, GRADIENT_BYTES = 2, 2**19


@dataclass(frozen=True)
class SweepBatches:
    """A sweep of one perturbation over images at several strengths, run batch by batch."""

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
    """A precomputed direction for every image, or None."""
    first: int = 0
    """The number of the first chunk, if the images are part of a larger set."""
    draws: ChunkedDraws = field(init=False)
    prefetcher: Prefetcher = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefetcher", Prefetcher(self._load_batch))
        object.__setattr__(self, "draws", ChunkedDraws(self._draw, len(self.images)))

    def _draw(self, chunk: int) -> Callable[[int], np.ndarray]:
        count = self.perturbation.draws(self.strengths)
        generators = [generator(self.seed, Purpose.NOISE, self.first + chunk, step) for step in range(count)]

        def rows(size: int) -> np.ndarray:
            draws = [self.perturbation.draw(numbers, (size, *self.images.shape)) for numbers in generators]
            arrays = [array for array in draws if array is not None]
            if not arrays:
                return np.empty((size, 0), np.float32)
            return arrays[0] if count == 1 else np.stack(arrays, 1)

        return rows

    def drawn_strengths(self) -> np.ndarray | None:
        """Return the strength of every image, (strengths, N), or None if no strength is a distribution."""
        if not any(isinstance(strength, StrengthDistribution) for strength in self.strengths):
            return None
        rows = np.empty((len(self.strengths), len(self.images)), np.float32)
        for row, strength in zip(rows, self.strengths, strict=True):
            for chunk, start in enumerate(range(0, len(row), CHUNK)):
                part = row[start : start + CHUNK]
                draws = generator(self.seed, Purpose.STRENGTH, self.first + chunk)
                part[:] = strength.draw(draws, len(part)) if isinstance(strength, StrengthDistribution) else strength
        return rows

    def run_batch(self, models: nn.ModuleDict, start: int, stop: int, recorder: OutcomeRecorder) -> None:
        """Sweep one batch over all strengths; an exception of user code becomes the status of its strength."""
        strengths = [i for i in range(len(self.strengths)) if not recorder.already_failed(i, start)]
        if not strengths:
            self.prefetcher.drop(start)
            return
        batch = self.attack_batch(models, start, stop)
        try:
            perturb = strengths_.convert_unit(self.unit, self.perturbation.prepare(batch), batch.inputs)
        except (ModelError, MissingLibrary):
            raise
        except BaseException as error:  # preparing may run the model; if that fails, no strength has numbers
            self._reraise_out_of_memory(error)
            check_logits_dtype(batch.attacked, batch.inputs, error)
            for i in strengths:
                recorder.record_error(i, start, error)
            return
        shared_counts, buffers, finished = batch.take_marks(), self._buffers(batch), []
        for i in strengths:
            for name, flags in shared_counts.items():
                batch.count(name, flags)
            try:
                self._run_strength(batch, perturb, i, slice(start, stop), buffers, recorder)
                finished.append(i)
            except (ModelError, MissingLibrary):
                raise
            except BaseException as error:  # anything that the model raises, even SystemExit
                self._reraise_out_of_memory(error)
                check_logits_dtype(batch.attacked, batch.inputs, error)
                recorder.record_error(i, start, error)
            recorder.add_counts(i, start, {name: int(flags.sum()) for name, flags in batch.take_marks().items()})
        if finished:
            self._record_decisions(batch.labels, finished, slice(start, stop), buffers, recorder)

    def _reraise_out_of_memory(self, error: BaseException) -> None:
        """Reraise an out-of-memory error, for a retry with smaller batches; of one image it is an ordinary error."""
        if out_of_memory(error) and self.batch_size > 1:
            raise error

    def attack_batch(self, models: nn.ModuleDict, start: int, stop: int) -> Batch:
        """Return a batch of images with everything that a perturbation needs."""
        other_models = dict(models.items())
        attacked = other_models.get("source", models["classifier"])
        host = self.prefetcher.take(start, stop)
        large = 4 * host.inputs.numel() > GRADIENT_BYTES
        splits = self.device == "cpu" and large and has_convolutions(attacked)
        return Batch(
            models["classifier"],
            self._to_device(host.inputs),
            self._to_device(host.labels),
            None if host.drawn is None else self._to_device(host.drawn),
            size=stop - start,
            source=other_models.get("source"),
            decision=self.source_decision,
            generator=other_models.get("generator"),
            direction=None if host.directions is None else self._to_device(host.directions).float(),
            at_once=-(-self.batch_size // GRADIENT_PARTS) if splits else None,
            strengths=self.strengths,
        )

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    @property
    def prefetches(self) -> bool:
        """Whether batches are loaded in parallel to the device; on a CPU that would compete for cores."""
        return self.device != "cpu"

    def prefetch(self, start: int, stop: int) -> None:
        """Start loading a batch that will be needed soon."""
        self.images.prefetch(start, stop)
        if self.prefetches:
            self.prefetcher.begin(start, stop)

    def _load_batch(self, start: int, stop: int) -> HostBatch:
        """Load the images, labels, draws and directions of a batch, padded to the batch size."""
        drawn = self.draws.rows(start, stop)
        directions = None if self.directions is None else self.directions[start:stop]

        def pad(array: np.ndarray) -> Tensor:
            return pad_batch(array, self.batch_size, "cpu")

        batch = HostBatch(
            pad(self.images.batch(start, stop)),
            pad(self.images.labels[start:stop]),
            pad(drawn) if drawn.size else None,
            None if directions is None else pad(directions),
        )
        return batch.pinned() if self.device.startswith("cuda") else batch

    def _run_strength(
        self, batch: Batch, perturb: Perturb, i: int, rows: slice, buffers: BatchBuffers, recorder: OutcomeRecorder
    ) -> None:
        """Perturb a batch to one strength; store the model's logits and the size of the perturbation in the buffers."""
        if self.strengths[i] == 0 and self.unit not in strengths_.RATIOS:
            for flag in (ZERO, STUCK):  # nothing is perturbed
                batch.marked.pop(flag, None)
            if batch.clean_logits is not None:
                buffers.logits[i] = self.check_logits(batch.clean_logits)
                buffers.noise[i] = 0
                return
        with torch.no_grad():
            batch.logits = None
            perturbed = self.perturb(batch, perturb, i, rows, buffers.perturbed, recorder.drawn)
            searched = self._search(batch, perturbed, i, rows, recorder.drawn)
            if searched or not buffers.noise_known:
                buffers.noise[i] = strengths_.l2_norm(perturbed - batch.inputs)
        with torch.no_grad():  # assigned by copy: a model may return a view of its input, or one reused buffer
            certified = batch.logits
            logits = self._forward(batch.classifier, perturbed) if certified is None else certified
            buffers.logits[i] = self.check_logits(logits)

    def _search(self, batch: Batch, perturbed: Tensor, i: int, rows: slice, drawn: np.ndarray | None) -> bool:
        """
        Search without gradients for images whose gradient is zero; write successes to ``perturbed``.

        Return whether any image was searched. Only attacks in a norm ball on the swept model itself are searched.
        """
        attack, stuck = self.perturbation, batch.marked.get(STUCK)
        if (
            stuck is None
            or self.unit != "default"
            or batch.source is not None
            or not isinstance(attack, FGSM | IterativeAttack)
        ):
            return False
        remaining = batch.marked.pop(STUCK).nonzero().flatten()
        targets = attack.targets(batch)
        remaining_targets = None if targets is None else targets[remaining]
        logits = model_logits(batch.classifier, perturbed[remaining])
        remaining = remaining[
            ~misleads(logits, batch.labels[remaining], remaining_targets, batch.decision, attack.loss)
        ]
        if not len(remaining):
            return False
        first = self.first * CHUNK + rows.start
        draws = [
            Draw(generator(self.seed, Purpose.SEARCH, first + row), self.images.shape) for row in remaining.tolist()
        ]
        images, fooled = search(
            batch, remaining, attack, attack.norm, self._strength(i, rows, drawn, perturbed.dim()), draws
        )
        perturbed[remaining[fooled]] = images[fooled]
        batch.count(SURVIVED, torch.zeros_like(stuck).index_fill(0, remaining[~fooled], True))
        return True

    def _record_decisions(
        self, labels: Tensor, strengths: list[int], rows: slice, buffers: BatchBuffers, recorder: OutcomeRecorder
    ) -> None:
        """Record the decisions at several strengths; together, because one strength is many small operations."""
        n = rows.stop - rows.start
        with torch.no_grad():
            selected = strengths if len(strengths) < len(self.strengths) else slice(None)
            logits = buffers.logits[selected]
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
                "snr": strengths_.to_decibels(buffers.signal, buffers.noise[selected]),
            }
            if "probabilities" in recorder.floats:
                floats["probabilities"] = log_probabilities.exp()
            if (passed := self.decision.log_passed(logits)) is not None:
                floats["attack_probability"] = -torch.expm1(passed)
            # The sum is fast, and finite only if every logit is; which one is not needs the slow test.
            all_finite = bool(logits.sum().isfinite())
            finite = torch.ones_like(predictions, dtype=torch.bool) if all_finite else logits.isfinite().all(-1)
            arrays = {name: values[:, :n].cpu().numpy() for name, values in floats.items()}
            recorder.record(strengths, rows, predictions[:, :n].cpu().numpy(), finite[:, :n].cpu().numpy(), arrays)

    def _buffers(self, batch: Batch) -> BatchBuffers:
        """Allocate the buffers of a batch; for sign directions on bytes, compute all perturbation sizes at once."""
        count, outputs = len(self.strengths), self.decision.outputs(len(self.images.classes))
        noise = batch.inputs.new_empty(count, self.batch_size)
        sizes = [strength for strength in self.strengths if not isinstance(strength, StrengthDistribution)]
        signs = isinstance(self.perturbation, Step) and self.perturbation.signed and self.unit == "default"
        noise_known = signs and len(sizes) == count and self.images.pixels.dtype == np.uint8
        if noise_known:
            assert batch.direction is not None
            noise = strengths_.clipped_l2_distances(batch.inputs, batch.direction, sizes)
        return BatchBuffers(
            perturbed=torch.empty_like(batch.inputs),
            signal=strengths_.l2_norm(batch.inputs),
            noise=noise,
            noise_known=noise_known,
            logits=batch.inputs.new_empty(count, self.batch_size, outputs),
        )

    def perturb(
        self, batch: Batch, perturb: Perturb, i: int, rows: slice, out: Tensor, drawn: np.ndarray | None
    ) -> Tensor:
        """Perturb a batch to one strength, into ``out``; ``drawn`` are the per-image strengths, if any are drawn."""
        strength = self._strength(i, rows, drawn, out.dim())
        if self.unit not in strengths_.RATIOS:
            return perturb(strength, out)
        target = strengths_.pixel_snr(self.unit, batch.inputs, strength)
        perturbed, reached = strengths_.perturb_to_snr(perturb, batch.inputs, target, out)
        batch.count(UNREACHED, ~reached)
        return perturbed

    def _strength(self, i: int, rows: slice, drawn: np.ndarray | None, dimensions: int) -> float | Tensor:
        """Return one strength, or the strength of each image of a batch, (N, 1, 1, 1)."""
        strength = self.strengths[i]
        if not isinstance(strength, StrengthDistribution):
            return strength
        assert drawn is not None
        return pad_batch(drawn[i, rows], self.batch_size, self.device).view(-1, *(1,) * (dimensions - 1))

    def _forward(self, model: nn.Module, perturbed: Tensor) -> Tensor:
        """Return a model's outputs; ModelError if its parameters have another dtype than the images."""
        try:
            return model(perturbed)  # type: ignore[no-any-return]
        except RuntimeError as error:
            check_logits_dtype(model, perturbed, error)
            raise

    def check_logits(self, logits: Tensor, size: int | None = None) -> Tensor:
        """Return logits as float32; ModelError if their shape is not what the decision needs."""
        expected = (size or self.batch_size, self.decision.outputs(len(self.images.classes)))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            actual = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"the classifier must return logits of shape (images, outputs) = {expected} for the "
                f"{len(self.images.classes)} classes of {self.images.name}, got {actual}; "
                + output_remedy(logits, expected[1], self.images)
            )
        return logits.float()

    def accepts(self, models: nn.ModuleDict) -> bool:
        """Return whether the models of a sweep process the trial images without raising; they stay unchanged."""
        with restored_afterwards(models, self.device) as lent:
            return self.trial_forward(lent, self.trial_images()[0]) is not None

    def trial_images(self) -> tuple[Tensor, Tensor]:
        """Return two different batches of images for trial passes: state left by one must not fit the other."""
        few = max(2, int(TRIAL_PART * len(self.images)))
        count = min(TRIAL_IMAGES, few, self.batch_size, len(self.images))
        start = min(count, len(self.images) - count)
        # Reversed, because the sweep begins with these images.
        first = torch.from_numpy(self.images.batch(0, count).copy()).to(self.device).flip(0)
        others = torch.from_numpy(self.images.batch(start, start + count).copy()).to(self.device)
        return first, 1 - first if bool((first == others).flatten(1).all(1).any()) else others

    def trial_forward(self, models: nn.ModuleDict, images: Tensor, gradient: bool = False) -> Tensor | None:
        """
        Return the outputs of a sweep's models for some images, (N, outputs), with ``gradient`` their gradients too.

        None if a model raises: the sweep will run into it and record it.
        """
        try:
            with torch.inference_mode(False), torch.set_grad_enabled(gradient):
                inputs = images.clone().requires_grad_(gradient)
                outputs = [self.check_logits(self._forward(models["classifier"], inputs.clone()), len(images))]
                if "source" in models:
                    outputs.append(model_logits(models["source"], inputs))
                result = torch.cat(outputs, 1)
                if gradient and result.requires_grad:
                    # Every output has its own weight: the plain sum of probabilities has no gradient.
                    value = (result * torch.linspace(1, 2, result.shape[1]).to(result)).sum()
                    (slope,) = torch.autograd.grad(value, inputs, allow_unused=True)
                    result = result if slope is None else torch.cat([result, slope.flatten(1)], 1)
                return result.detach().clone()
        except (ModelError, KeyboardInterrupt):
            raise
        except BaseException:  # the model's own code
            return None

    @property
    def needs_gradients(self) -> bool:
        """Whether the perturbation takes gradients of a model."""
        return self.directions is None and self.perturbation.gradients(self.strengths) > 0


@dataclass(frozen=True)
class BatchBuffers:
    """
    Buffers that the strengths of a batch share.

    ``perturbed`` is shaped as the images; ``signal`` (N,) are the norms of the images, ``noise`` (strengths, N) those
    of the perturbations, ``noise_known`` if they were computed in advance; ``logits`` is (strengths, N, outputs).
    """

    perturbed: Tensor
    signal: Tensor
    noise: Tensor
    noise_known: bool
    logits: Tensor


def output_remedy(logits: object, expected: int, images: Images) -> str:
    """Return the fix for a model that does not return ``expected`` outputs per image."""
    if not isinstance(logits, Tensor):
        return "return a tensor"
    if expected == 2 and logits.numel() == len(logits):
        bounded = bool((logits >= 0).all() and (logits <= 1).all())
        return (
            "one number per image is that of the second class: return two logits, in its forward or a factory around "
            f"it: z = outputs.flatten(){'.logit()' if bounded else ''}; return torch.stack([torch.zeros_like(z), z], 1)"
            + ("; better without its last sigmoid" if bounded else "")
        )
    surplus = int(logits.shape[1]) - expected if logits.dim() == 2 else 0
    if surplus == -1 and validation.from_one(images.labels):
        return "no image has the label 0: labels start at 1; use labels - 1"
    if surplus > 0:
        return (
            "the data have images of only some of the model's classes: name the classes of all its outputs, in their "
            "order, as classes = [...] in the card's [model] (an array file may name them all in `classes`)"
        )
    return "check the number of outputs, or the classes of the data (an array file may name them all in `classes`)"


def check_logits_dtype(model: nn.Module, inputs: Tensor, error: BaseException) -> None:
    """Raise ModelError if a model failed because its parameters have another dtype than the images."""
    dtypes = {str(p.dtype) for p in model.parameters() if p.is_floating_point() and p.dtype != inputs.dtype}
    if dtypes and isinstance(error, RuntimeError) and ("dtype" in str(error) or "type" in str(error)):
        raise ModelError(
            f"the classifier has parameters of {', '.join(sorted(dtypes))} but images are float32; "
            f"call module.float() in its factory, or convert the images in its forward ({error})"
        ) from error
