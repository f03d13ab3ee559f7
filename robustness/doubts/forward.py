"""Doubts about the forward pass: what a few clean passes show."""

from __future__ import annotations

import torch
from torch import Tensor

from robustness.data.images import Images
from robustness.doubts.permuted_classes import Indices
from robustness.doubts.trial import Answers, NotLookedFor, Trial, answer, sentence
from robustness.perturbations import Clean
from robustness.sweep.batching import out_of_memory
from robustness.sweep.runner import choose_batch_size

ALONE = 16
CLOSE = 1e-3
"""How far logits of one image may lie apart, as a share of the largest: sums in another order differ in last bits."""
ROOM = 2**25
"""Bytes of images that are passed to see whether a model counts them."""
OTHERS = 0.03
"""The share of images of which the sweep may have said another class: near a boundary last bits decide."""
ENDS = 0.05
"""How near the outputs of a sigmoid come to 0 and to 1."""


def of_numbers(trial: Trial) -> Answers:
    """Look whether outputs are numbers: of the images as they are, and of all that the attacks made of them."""
    clean, attacked = int((~trial.logits.isfinite()).any(1).sum()), trial.without_numbers
    kinds = "NaN" if trial.logits.isnan().any() else "infinite"
    seen = f"{kinds} outputs for {trial.of(clean)}" if clean else f"numbers for all of {len(trial.inputs)} images"
    if not clean and attacked:
        seen += f", but not for {trial.of(attacked)} when they were perturbed"
    return {"outputs that are no numbers": answer(bool(clean or attacked), seen)}


def of_repetition(trial: Trial) -> Answers:
    """Pass the images twice."""
    other = trial.random
    return {"non-deterministic forward": answer(other > 0, f"other logits the second time for {trial.of(other)}")}


def of_its_input(trial: Trial) -> Answers:
    """Look at the images after a pass."""
    images = trial.inputs.clone()
    with torch.no_grad():
        trial.model(images)
    edited = int((images != trial.inputs).flatten(1).any(1).sum())
    return {"edits its input": answer(edited > 0, f"the forward pass changed {trial.of(edited)} in place")}


def of_the_batch(trial: Trial, images: Images) -> Answers:
    """Pass images one by one, in smaller and larger batches, and beside others."""
    _refuse_random(trial)
    some, logits = trial.inputs[:ALONE], trial.logits
    try:
        each = [trial.outputs(one) for one in some[:, None]]
    except Exception as error:  # the model's own code, which took many images
        if out_of_memory(error):
            raise
        return {"depends on the batch": answer(True, f"an image alone raises {sentence(error)}")}
    if odd := [tuple(one.shape) for one in each if one.shape != logits[:1].shape]:
        seen = (
            f"the classifier must give logits of shape {tuple(logits[:1].shape)} for one image alone, as for many, "
            f"got {odd[0]}; let its forward keep the first dimension: squeeze(0) and squeeze() drop it"
        )
        return {"depends on the batch": answer(True, seen)}
    passes = {
        "alone": torch.cat(each),
        f"in a batch of {len(some)}": trial.outputs(some),
        "in another order": trial.outputs(trial.inputs.flip(0)).flip(0),
    }
    if (size := min(len(images), choose_batch_size(images, Clean(), trial.model, trial.inputs.device.type))) > len(
        logits
    ):
        whole = torch.from_numpy(images.batch(0, size)).to(trial.inputs)
        passes[f"in a batch of {size}, as in the sweeps,"] = trial.outputs(whole)[: len(logits)]
    scale = max(1.0, float(logits[logits.isfinite()].abs().max())) if logits.isfinite().any() else 1.0
    apart = {how: _apart(logits[: len(other)], other) for how, other in passes.items()}
    worst = max(apart, key=lambda how: apart[how])
    seen = f"logits of an image {worst} differ by up to {apart[worst]:.2g} (of {scale:.3g})"
    return {"depends on the batch": answer(apart[worst] > CLOSE * scale, seen)}


def of_outputs(trial: Trial) -> Answers:
    """Look at the values that come out."""
    logits = trial.logits
    low, high, sums = float(logits.min()), float(logits.max()), logits.sum(1)
    within = 0 <= low and high <= 1
    summed = within and bool(((sums - 1).abs() < 1e-3).all())
    # Of logits that are not bounded some lie beyond 0 or 1, or all stay well inside.
    squashed = within and low < ENDS and high > 1 - ENDS
    seen = f"outputs from {low:.3g} to {high:.3g} with sums from {sums.min():.3g} to {sums.max():.3g}"
    return {"probabilities for logits": answer(summed or squashed, seen)}


def of_state(trial: Trial, predictions: Indices | None, many: int) -> Answers:
    """
    Ask again after ``many`` images, and in a buffer that held others, whether the model says the same.

    ``predictions`` are the classes that a clean sweep has said of all images, (N,), −1 if none.
    """
    _refuse_random(trial)
    if predictions is not None:
        said = torch.from_numpy(predictions[: len(trial.inputs)].copy()).to(trial.labels)
        other = int(((trial.decision.predictions(trial.logits) != said) & (said >= 0)).sum())
        if other > max(2, OTHERS * len(said)):
            seen = f"the clean sweep said another class for {trial.of(other)}"
            return {"keeps state between calls": answer(True, seen)}
    with torch.no_grad():
        buffer = trial.inputs.clone()
        trial.model(buffer)
        buffer.copy_(trial.inputs.flip(0))
        stale = trial.model(buffer).float().clone()
    fresh = trial.outputs(trial.inputs.flip(0))
    if _near(trial.logits, fresh).all() and not _near(trial.logits, trial.logits.flip(0)).all():
        return {"keeps state between calls": answer(True, "the answers of the images before, for others")}
    if other := int((~_near(fresh, stale)).sum()):
        seen = f"other logits for {trial.of(other)} in memory that had held other images"
        return {"keeps state between calls": answer(True, seen)}
    for _ in range(_rounds(trial, many)):
        trial.outputs(trial.inputs)
    other = int((~_near(trial.logits, trial.outputs(trial.inputs))).sum())
    seen = f"other logits for {trial.of(other)} after {trial.passed:,} images"
    return {"keeps state between calls": answer(other > 0, seen)}


def _rounds(trial: Trial, many: int) -> int:
    """Return how many more passes make it many images, or as many as there is time for."""
    count = len(trial.inputs)
    return -(-min(max(0, many - trial.passed), ROOM // (4 * trial.inputs[0].numel())) // count)


def _refuse_random(trial: Trial) -> None:
    """Raise NotLookedFor for a model that says something else each time."""
    if trial.random:
        raise NotLookedFor("the forward is not deterministic")


def _near(one: Tensor, other: Tensor) -> Tensor:
    """Return which rows are the same but for last bits; what is no number must be the same."""
    scale = one.nan_to_num(0, 0, 0).abs().amax().clamp(min=1)
    return torch.isclose(one, other, rtol=0, atol=CLOSE * float(scale), equal_nan=True).all(1)


def _apart(one: Tensor, other: Tensor) -> float:
    """Return how far logits lie apart: infinitely if one is a number and the other none."""
    same = (one == other) | (one.isnan() & other.isnan())
    return float((one - other).abs().masked_fill(same, 0).nan_to_num(torch.inf).max())
