"""Checks of the forward pass that a few clean passes show."""

from __future__ import annotations

import torch
from torch import Tensor

from robustness.data.images import Images
from robustness.doubts.permuted_classes import Indices
from robustness.doubts.probe import CheckResults, ModelProbe, NotChecked, check_result, error_message
from robustness.perturbations import Clean
from robustness.sweep.batching import out_of_memory
from robustness.sweep.runner import choose_batch_size

SINGLE_IMAGES = 16
# How far the logits of one image may differ, relative to the largest: sums in another order differ in last bits.
LOGIT_TOLERANCE = 1e-3
# The most bytes of images that are passed to detect a model that counts its calls.
MAX_BYTES = 2**25
# The fraction of images whose class in the sweep may differ: near a boundary last bits decide.
MAX_CHANGED_FRACTION = 0.03
# How close the outputs of a sigmoid come to 0 and to 1.
SIGMOID_MARGIN = 0.05


def check_finite_outputs(probe: ModelProbe) -> CheckResults:
    """Check that outputs are finite: for the clean images, and for all attacked ones."""
    clean, attacked = int((~probe.logits.isfinite()).any(1).sum()), probe.non_finite_count
    kinds = "NaN" if probe.logits.isnan().any() else "infinite"
    seen = (
        f"{kinds} outputs for {probe.format_count(clean)}"
        if clean
        else f"finite outputs for all of {len(probe.inputs)} images"
    )
    if not clean and attacked:
        seen += f", but not for {probe.format_count(attacked)} when they were perturbed"
    return {"outputs that are no numbers": check_result(bool(clean or attacked), seen)}


def check_determinism(probe: ModelProbe) -> CheckResults:
    """Check that repeated passes return the same outputs."""
    count = probe.unstable_count
    return {
        "non-deterministic forward": check_result(
            count > 0, f"other logits the second time for {probe.format_count(count)}"
        )
    }


def check_input_unchanged(probe: ModelProbe) -> CheckResults:
    """Check that a pass does not change its input."""
    images = probe.inputs.clone()
    with torch.no_grad():
        probe.model(images)
    edited = int((images != probe.inputs).flatten(1).any(1).sum())
    return {
        "edits its input": check_result(edited > 0, f"the forward pass changed {probe.format_count(edited)} in place")
    }


def check_batch_independence(probe: ModelProbe, images: Images) -> CheckResults:
    """Check that an image's outputs do not depend on the batch: alone, in other batch sizes, in another order."""
    _require_determinism(probe)
    inputs, logits = probe.inputs[:SINGLE_IMAGES], probe.logits
    try:
        single_outputs = [probe.outputs(image) for image in inputs[:, None]]
    except Exception as error:  # the model's own code, which processed a larger batch
        if out_of_memory(error):
            raise
        return {"depends on the batch": check_result(True, f"an image alone raises {error_message(error)}")}
    if wrong_shapes := [tuple(output.shape) for output in single_outputs if output.shape != logits[:1].shape]:
        seen = (
            f"the classifier must return logits of shape {tuple(logits[:1].shape)} for one image alone, as for many, "
            f"got {wrong_shapes[0]}; let its forward keep the first dimension: squeeze(0) and squeeze() drop it"
        )
        return {"depends on the batch": check_result(True, seen)}
    passes = {
        "alone": torch.cat(single_outputs),
        f"in a batch of {len(inputs)}": probe.outputs(inputs),
        "in another order": probe.outputs(probe.inputs.flip(0)).flip(0),
    }
    size = min(len(images), choose_batch_size(images, Clean(), probe.model, probe.inputs.device.type))
    if size > len(logits):
        large_batch = torch.from_numpy(images.batch(0, size)).to(probe.inputs)
        passes[f"in a batch of {size}, as in the sweeps,"] = probe.outputs(large_batch)[: len(logits)]
    scale = max(1.0, float(logits[logits.isfinite()].abs().max())) if logits.isfinite().any() else 1.0
    differences = {name: _max_difference(logits[: len(outputs)], outputs) for name, outputs in passes.items()}
    worst = max(differences, key=lambda name: differences[name])
    seen = f"logits of an image {worst} differ by up to {differences[worst]:.2g} (of {scale:.3g})"
    return {"depends on the batch": check_result(differences[worst] > LOGIT_TOLERANCE * scale, seen)}


def check_outputs_are_logits(probe: ModelProbe) -> CheckResults:
    """Check that outputs look like logits, not like probabilities."""
    logits = probe.logits
    low, high, sums = float(logits.min()), float(logits.max()), logits.sum(1)
    within = 0 <= low and high <= 1
    summed = within and bool(((sums - 1).abs() < 1e-3).all())
    # Unbounded logits exceed 0 or 1, or stay well inside.
    squashed = within and low < SIGMOID_MARGIN and high > 1 - SIGMOID_MARGIN
    seen = f"outputs from {low:.3g} to {high:.3g} with sums from {sums.min():.3g} to {sums.max():.3g}"
    return {"probabilities for logits": check_result(summed or squashed, seen)}


def check_statelessness(probe: ModelProbe, predictions: Indices | None, many: int) -> CheckResults:
    """
    Check that outputs are the same after ``many`` images, and in a buffer that held other images.

    ``predictions`` are the classes that a clean sweep predicted for all images, (N,), -1 if none.
    """
    _require_determinism(probe)
    if predictions is not None:
        swept = torch.from_numpy(predictions[: len(probe.inputs)].copy()).to(probe.labels)
        count = int(((probe.decision.predictions(probe.logits) != swept) & (swept >= 0)).sum())
        if count > max(2, MAX_CHANGED_FRACTION * len(swept)):
            seen = f"the clean sweep predicted another class for {probe.format_count(count)}"
            return {"keeps state between calls": check_result(True, seen)}
    with torch.no_grad():
        buffer = probe.inputs.clone()
        probe.model(buffer)
        buffer.copy_(probe.inputs.flip(0))
        stale = probe.model(buffer).float().clone()
    fresh = probe.outputs(probe.inputs.flip(0))
    if _rows_close(probe.logits, fresh).all() and not _rows_close(probe.logits, probe.logits.flip(0)).all():
        return {"keeps state between calls": check_result(True, "the outputs of the previous images, for others")}
    if count := int((~_rows_close(fresh, stale)).sum()):
        seen = f"other logits for {probe.format_count(count)} in memory that had held other images"
        return {"keeps state between calls": check_result(True, seen)}
    for _ in range(_extra_passes(probe, many)):
        probe.outputs(probe.inputs)
    count = int((~_rows_close(probe.logits, probe.outputs(probe.inputs))).sum())
    seen = f"other logits for {probe.format_count(count)} after {probe.images_passed:,} images"
    return {"keeps state between calls": check_result(count > 0, seen)}


def _extra_passes(probe: ModelProbe, many: int) -> int:
    """Return the number of further passes until ``many`` images have passed, within the limit on bytes."""
    count = len(probe.inputs)
    return -(-min(max(0, many - probe.images_passed), MAX_BYTES // (4 * probe.inputs[0].numel())) // count)


def _require_determinism(probe: ModelProbe) -> None:
    """Raise NotChecked for a model that is not deterministic."""
    if probe.unstable_count:
        raise NotChecked("the forward pass is not deterministic")


def _rows_close(first: Tensor, second: Tensor) -> Tensor:
    """Return which rows are equal except for last bits; non-finite values must be equal."""
    scale = first.nan_to_num(0, 0, 0).abs().amax().clamp(min=1)
    return torch.isclose(first, second, rtol=0, atol=LOGIT_TOLERANCE * float(scale), equal_nan=True).all(1)


def _max_difference(first: Tensor, second: Tensor) -> float:
    """Return the largest difference of logits: infinite if only one of a pair is finite."""
    equal = (first == second) | (first.isnan() & second.isnan())
    return float((first - second).abs().masked_fill(equal, 0).nan_to_num(torch.inf).max())
