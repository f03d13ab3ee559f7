"""Checks of what a model knows: nothing, more in another range of its inputs, or only the exact test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from robustness.doubts import data, permuted_classes
from robustness.doubts.planted import random_signs
from robustness.doubts.probe import CheckResults, ModelProbe, NotChecked, check_result
from robustness.util.rng import Purpose, generator

Indices = NDArray[np.int64]

# The fraction of the way from chance to perfect recall that a model with some knowledge reaches.
MIN_KNOWLEDGE = 0.25
# Standard errors: of the upper end of recall, and of recall above chance.
UPPER_ERRORS, CHANCE_ERRORS = 3.5, 2.0
# The accuracy of a model in the range that it was trained on.
MIN_ACCURACY = 0.5
GREY_LEVEL = 1 / 255
# The fraction of images that a healthy model may lose one grey level away, or gain in another range.
MIN_GAIN = 0.1
# How far logits may move one grey level away, relative to their distance from their mean.
MAX_JUMP = 0.25

# Of ImageNet's training images, which most colour models expect.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def check_classes(labels: Indices, predictions: Indices, names: Sequence[str], seed: int) -> CheckResults:
    """Check the predicted classes, (N,), against the ``labels``, (N,)."""
    return {
        "no better than chance": check_chance(labels, predictions, len(names)),
        "permuted classes": permuted_classes.explain_by_permutation(labels, predictions, names, seed),
    }


def check_chance(labels: Indices, predictions: Indices, classes: int) -> dict[str, Any]:
    """
    Check by the mean recall of the classes, which a constant prediction cannot raise, that a model beats chance.

    It is doubted if recall is within what chance allows, and the upper end of its interval is below the recall of a
    model with little knowledge, so that bad luck does not fail a healthy model.

    >>> labels = np.arange(100) % 10
    >>> check_chance(labels, 9 - labels, 10)["doubted"], check_chance(labels, labels % 5, 10)["doubted"]
    (True, False)
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.flatnonzero(counts)
    correct = np.bincount(labels[labels == predictions], minlength=classes)
    recall = float((correct[present] / counts[present]).mean())
    size = len(present) ** 2 / float((1 / counts[present]).sum())  # the effective sample size of a mean of recalls
    chance = 1 / len(present)
    accuracy = int((labels == predictions).sum()) / len(labels)
    seen = (
        f"clean accuracy {accuracy:.1%} of {len(labels)} images, mean recall {recall:.1%} where chance is {chance:.1%}"
    )
    predicted = np.unique(predictions)
    if len(predicted) == 1:
        seen += "; all predictions are the same class"
    if len(present) < 2:
        return {"seen": f"not checked: all {len(labels)} images are of one class", "doubted": None}
    is_chance = recall <= chance + CHANCE_ERRORS * sqrt(chance * (1 - chance) / size)
    if is_chance and not _wilson_upper(recall, size) < chance + MIN_KNOWLEDGE * (1 - chance):
        return {"seen": f"not checked: {seen}; too few images to tell", "doubted": None}
    return check_result(is_chance, seen)


def _wilson_upper(rate: float, size: float) -> float:
    """Return the upper end of Wilson's interval at ``UPPER_ERRORS`` standard errors."""
    z2 = UPPER_ERRORS**2
    centre = rate + z2 / (2 * size)
    return (centre + UPPER_ERRORS * sqrt(rate * (1 - rate) / size + z2 / (4 * size**2))) / (1 + z2 / size)


def _require_bright_images(probe: ModelProbe) -> None:
    """Raise NotChecked if the images use too little of their range: then the images need fixing, not the model."""
    if float(probe.inputs.max()) <= data.DIM_MAXIMUM:
        raise NotChecked("the images use hardly any of their range, see *dim images*: fix the images first")


def check_input_ranges(probe: ModelProbe) -> CheckResults:
    """Check whether the model is more accurate if its images are scaled to another range."""

    def correct(images: Tensor) -> Tensor:
        return probe.decision.predictions(probe.outputs(images)) == probe.labels

    _require_bright_images(probe)
    original = correct(probe.inputs)
    candidates = [(correct(change(probe.inputs)), name) for name, change in candidate_ranges(probe.inputs)]
    best, name = max(candidates, key=lambda candidate: int(candidate[0].sum()))
    accuracy, best_accuracy = float(original.float().mean()), float(best.float().mean())
    seen = f"{accuracy:.0%} of images are correct as they are, {best_accuracy:.0%} {name}"
    is_accurate = best_accuracy >= MIN_ACCURACY  # a model with negated outputs gains a little in any other range
    return {"wrong input range": check_result(is_accurate and is_improved(original, best), seen)}


def candidate_ranges(inputs: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Yield common input ranges by name, with the conversion from [0, 1]."""
    yield "from 0 to 255", lambda x: x * 255
    yield "from -1 to 1", lambda x: 2 * x - 1
    yield "with light and dark exchanged", lambda x: 1 - x
    if inputs.shape[1] == 3:
        mean, deviation = (inputs.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
        yield "standardised as ImageNet's", lambda x: (x - mean) / deviation


def check_other_outputs(probe: ModelProbe) -> CheckResults:
    """Check whether another of several outputs is more accurate than the one that is used as the logits."""
    from robustness.classifiers.adapter import AdaptedModel, extract_logits

    model, name = probe.model, "another output knows more"
    if not isinstance(model, AdaptedModel) or model.logits_key is not None:
        return {name: check_result(False, "the model returns one tensor, or its card names the logits")}
    captured: list[Any] = []
    hook = model.model.register_forward_hook(lambda _module, _inputs, outputs: captured.append(outputs))
    try:
        original = probe.decision.predictions(probe.outputs(probe.inputs)) == probe.labels
    finally:
        hook.remove()
    entries = _tensor_entries(captured[-1])
    if len(entries) < 2:
        return {name: check_result(False, "the model returns one tensor")}
    logits, accuracies, doubted = extract_logits(captured[-1]), "", False
    chosen_name = next(key for key, value in entries.items() if value is logits)
    for key, value in entries.items():
        if value is not logits and value.shape == logits.shape:
            correct = probe.decision.predictions(model.classes(value.float())) == probe.labels
            accuracies += f"; {key} {float(correct.float().mean()):.0%}"
            doubted |= is_improved(original, correct)
    shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in entries.items())
    summary = f"the model returns {len(entries)} tensors ({shapes}), of which {chosen_name} is used as the logits"
    result = check_result(
        doubted, f"{summary}: {float(original.float().mean()):.0%} of images are correct by it{accuracies}"
    )
    return {name: result | {"notice": f"{summary}; model.logits_key selects another one"}}


def _tensor_entries(outputs: Any) -> dict[str, Tensor]:
    """Return the tensors in a model's outputs by key or index."""
    if isinstance(outputs, Tensor):
        return {"it": outputs}
    parts = outputs if isinstance(outputs, Sequence) else ()
    pairs = outputs.items() if isinstance(outputs, Mapping) else enumerate(parts)
    return {f"[{key!r}]": value for key, value in pairs if isinstance(value, Tensor)}


def is_improved(before: Tensor, after: Tensor) -> bool:
    """
    Return whether more images are correct than before, (N,) booleans each: by a tenth, and more than chance explains.

    >>> import torch
    >>> wrong = torch.zeros(100, dtype=torch.bool)
    >>> [is_improved(wrong, torch.arange(100) < count) for count in (20, 9)], is_improved(wrong[:9], ~wrong[:9])
    ([True, False], False)
    """
    won, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return won - lost >= MIN_GAIN * len(before) and won - lost > UPPER_ERRORS * sqrt(won + lost)


def check_grey_level(probe: ModelProbe) -> CheckResults:
    """Check that outputs are stable if every pixel moves by one grey level: a lookup table of images is not."""
    _require_bright_images(probe)
    if probe.unstable_count or not probe.logits.isfinite().all():
        raise NotChecked("the forward pass is not deterministic, or its outputs are not finite")
    signs = random_signs(generator(probe.seed, Purpose.DOUBTED, 4), probe.inputs)
    shifted = probe.outputs((probe.inputs + GREY_LEVEL * signs).clamp(0, 1))
    before, after = (probe.decision.predictions(logits) == probe.labels for logits in (probe.logits, shifted))
    spread = (probe.logits - probe.logits.mean(0)).norm(dim=1).clamp(min=1e-12)
    jump = float(((shifted - probe.logits).norm(dim=1) / spread).median())
    seen = (
        f"one grey level away {float(after.float().mean()):.0%} of images are correct, as they are "
        f"{float(before.float().mean()):.0%}; logits move by {jump:.2g} of their spread"
    )
    return {"jumps within a grey level": check_result(is_improved(after, before) or jump > MAX_JUMP, seen)}
