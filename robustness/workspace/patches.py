"""The squares of pixels of the adversarial patch (Brown et al. 2017), and how they are fitted to a frozen target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness.classifiers import weights
from robustness.classifiers.modules import restored_afterwards
from robustness.data.images import Images
from robustness.decisions import Argmax, Decision
from robustness.errors import ModelError, TrainingError
from robustness.perturbations.attack import attack_loss, model_logits
from robustness.perturbations.patch import Patch, paste, sides_in_pixels
from robustness.sweep.batching import single_threaded
from robustness.util import rng_state
from robustness.util.rng import Purpose, generator
from robustness.workspace.recipes import Job

START = 0.5
"""The grey that fitting starts from."""


class PatchPixels(nn.Module):
    """Squares of pixels (C, S, S) in [0, 1], one for each side S."""

    def __init__(self, channels: int, sides: Iterable[int]) -> None:
        super().__init__()
        self.squares = nn.ParameterDict(
            {str(side): torch.full((channels, side, side), START) for side in sorted(set(sides))}
        )

    def forward(self, side: int) -> Tensor:
        """Return the square of a side; without one, the next larger or the largest, resized (bilinear, antialiased)."""
        sides = [int(known) for known in self.squares]
        source: Tensor = self.squares[str(min((known for known in sides if known >= side), default=max(sides)))]
        if source.shape[-1] == side:
            return source
        return F.interpolate(source[None], size=(side, side), mode="bilinear", antialias=True)[0].clamp(0, 1)


def unfitted(images: Images, about: Patch) -> PatchPixels:
    """Return squares for some images, as they are before they are fitted: grey."""
    return PatchPixels(images.shape[0], sides_in_pixels(torch.tensor(about.sides), images.shape).tolist())


def fit(
    classifier: nn.Module, images: Images, perturbation: Patch, job: Job, decision: Decision | None = None
) -> PatchPixels:
    """
    Fit squares to a classifier, which stays frozen and as it was; interrupted, the next call goes on.

    The same seed gives the same squares on the same machine: they are computed on the job's device, on CPUs in one
    thread, with a random state of their own. TrainingError where the loss is not finite, or no gradient reaches a
    square.
    """
    with single_threaded(), rng_state.isolated_rng(job.seed), restored_afterwards(classifier, job.device) as target:
        return _fitted(target, images, perturbation, job, decision or Argmax())


def _fitted(target: nn.Module, images: Images, about: Patch, job: Job, decision: Decision) -> PatchPixels:
    patch = unfitted(images, about).to(job.device)
    squares = list(patch.squares.values())
    optimizer = torch.optim.Adam(squares, lr=about.learning_rate, maximize=True)
    done, steps = 0, about.steps * len(squares)
    if state := job.resume():
        patch.load_state_dict(state["patch"])
        optimizer.load_state_dict(state["optimizer"])
        done = int(state["steps"])
    for step in range(done, steps):
        square = squares[step // about.steps]
        loss = _loss(target, square, about, decision, *_drawn(images, about, job, step))
        optimizer.zero_grad()  # Adam leaves the other squares as they are: they have no gradient
        (square.grad,) = torch.autograd.grad(loss, [square])
        optimizer.step()
        with torch.no_grad():
            square.clamp_(0, 1)
        if (step + 1) % 50 == 0 or (step + 1) % about.steps == 0:
            _check(square, loss.item(), step + 1)
            job.report(step + 1, steps)
            if step + 1 < steps:
                job.save({"patch": patch.state_dict(), "optimizer": optimizer.state_dict(), "steps": step + 1})
    return patch.cpu().eval()


def _check(square: Tensor, loss: float, step: int) -> None:
    """Raise TrainingError if a square that has been fitted for some steps cannot mislead."""
    if not (math.isfinite(loss) and bool(square.isfinite().all())):
        raise TrainingError(f"the patch's loss became {loss} in step {step}; the model or its gradient is not finite")
    if bool((square == START).all()):
        raise TrainingError('no gradient reaches the patch, so that it would mislead nothing; try loss = "margin"')


def _drawn(images: Images, about: Patch, job: Job, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the images of a step, with their labels and the places of the square."""
    numbers = generator(job.seed, Purpose.ORDER, 0, step)
    chosen = images.select(numbers.integers(0, len(images), about.batch_size), images.name)
    places = torch.from_numpy(numbers.random((len(chosen), 2), np.float32))
    inputs, labels = torch.from_numpy(chosen.batch(0, len(chosen))), torch.from_numpy(chosen.labels.copy())
    return inputs.to(job.device), labels.to(job.device), places.to(job.device)


def _loss(
    target: nn.Module,
    square: Tensor,
    about: Patch,
    decision: Decision,
    inputs: Tensor,
    labels: Tensor,
    places: Tensor,
) -> Tensor:
    """Return the mean of what the attack raises, of images with the square."""
    logits = model_logits(target, paste(inputs, square, places))
    if about.target is not None and about.target >= (classes := decision.log_probabilities(logits).shape[1]):
        raise ModelError(
            f"`target` must be one of the classes 0 to {classes - 1}, got {about.target}; use the index of a class of "
            "the model"
        )
    targets = None if about.target is None else torch.full_like(labels, about.target)
    loss = attack_loss(logits, labels, about.loss, targets, decision)
    return (loss.clamp(max=1) if about.loss == "margin" else loss).mean()


def save(patch: PatchPixels, target: str, about: Mapping[str, str] | None = None) -> bytes:
    """Write squares as safetensors; ``target`` is the hash (`modules.state_hash`) of the model they were fitted to."""
    return weights.to_bytes(patch.state_dict(), {**(about or {}), "target": target})


def load(path: Path, perturbation: Patch, images: Images, target: str) -> PatchPixels:
    """Read squares; ModelError where they are torn, of another shape, or were fitted to another model."""
    state = weights.read(path)
    recorded = weights.metadata(path).get("target")
    if recorded != target:
        raise ModelError(
            f"{path}: this patch was fitted to another model ({(recorded or 'unnamed')[:12]}…) than the one that is "
            f"attacked ({target[:12]}…); fit one to this model, or name the other's card as source"
        )
    patch = unfitted(images, perturbation)
    weights.load_into(patch, state, path)
    return patch.eval()
