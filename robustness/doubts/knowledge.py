"""Doubts about what a model knows: nothing, in another range of its images, or the images of the test alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from robustness.doubts import data, permuted_classes
from robustness.doubts.planted import corners
from robustness.doubts.trial import Answers, NotLookedFor, Trial, answer
from robustness.util.rng import Purpose, generator

Indices = NDArray[np.int64]

LITTLE = 0.25
"""The share of the way from chance to all images that a model which knows something reaches in truth."""
SURE, ABOVE = 3.5, 2.0
"""Standard errors: of a model that knows little, and of one that knows nothing."""
KNOWN = 0.5
"""The share of the images that a model knows in the range that it was trained on."""
LEVEL = 1 / 255
FALL = 0.1
"""A share of the images: fewer may be lost one grey level away, or won in another range, by a healthy model."""
JUMP = 0.25
"""How far logits may move one grey level away, as a share of how far they lie from their mean."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images: what most models in colour expect."""


def of_classes(labels: Indices, predictions: Indices, names: Sequence[str], seed: int) -> Answers:
    """Look at the classes that a model says, (N,), beside the ``labels`` of the data, (N,)."""
    return {
        "no better than chance": of_chance(labels, predictions, len(names)),
        "permuted classes": permuted_classes.explained(labels, predictions, names, seed),
    }


def of_chance(labels: Indices, predictions: Indices, classes: int) -> dict[str, Any]:
    """
    Return whether a model knows nothing: by the mean recall of the classes, to which a constant answer adds nothing.

    It is doubted if recall is no more than chance allows and its interval's upper end is below what a model that
    knows a little has, so that luck makes no healthy model red.

    >>> labels = np.arange(100) % 10
    >>> of_chance(labels, 9 - labels, 10)["doubted"], of_chance(labels, labels % 5, 10)["doubted"]
    (True, False)
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.flatnonzero(counts)
    right = np.bincount(labels[labels == predictions], minlength=classes)
    recall = float((right[present] / counts[present]).mean())
    size = len(present) ** 2 / float((1 / counts[present]).sum())  # images that a mean of recalls is worth
    chance = 1 / len(present)
    share = int((labels == predictions).sum()) / len(labels)
    seen = f"clean accuracy {share:.1%} of {len(labels)} images, mean recall {recall:.1%} where chance is {chance:.1%}"
    said = np.unique(predictions)
    if len(said) == 1:
        seen += "; every image is said to be of the same class"
    if len(present) < 2:
        return {"seen": f"not looked for: all {len(labels)} images are of one class", "doubted": None}
    nothing = recall <= chance + ABOVE * sqrt(chance * (1 - chance) / size)
    if nothing and not _upper(recall, size) < chance + LITTLE * (1 - chance):
        return {"seen": f"not looked for: {seen}; too few images to tell", "doubted": None}
    return answer(nothing, seen)


def _upper(share: float, size: float) -> float:
    """Return the upper end of Wilson's interval, of ``SURE`` standard errors."""
    z2 = SURE**2
    centre = share + z2 / (2 * size)
    return (centre + SURE * sqrt(share * (1 - share) / size + z2 / (4 * size**2))) / (1 + z2 / size)


def _refuse_dim(trial: Trial) -> None:
    """Raise NotLookedFor where it is the images that are to be mended, so that nothing is said against the model."""
    if float(trial.inputs.max()) <= data.DIM:
        raise NotLookedFor("the images use hardly any of their range, see *dim images*: these are what to mend")


def of_ranges(trial: Trial) -> Answers:
    """Show the model its images in other ranges, and see whether it knows more of them."""

    def right(images: Tensor) -> Tensor:
        return trial.decision.predictions(trial.outputs(images)) == trial.labels

    _refuse_dim(trial)
    own = right(trial.inputs)
    tried = [(right(change(trial.inputs)), name) for name, change in ranges(trial.inputs)]
    best, name = max(tried, key=lambda each: int(each[0].sum()))
    seen = f"{float(own.float().mean()):.0%} of images are right as they are, {float(best.float().mean()):.0%} {name}"
    known = float(best.float().mean()) >= KNOWN  # a model whose outputs are negated gains a little in any other
    return {"wrong input range": answer(known and gained(own, best), seen)}


def ranges(inputs: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Return by name the ranges that images in [0, 1] are wanted in, and how they get there."""
    yield "from 0 to 255", lambda x: x * 255
    yield "from -1 to 1", lambda x: 2 * x - 1
    yield "with light and dark exchanged", lambda x: 1 - x
    if inputs.shape[1] == 3:
        mean, deviation = (inputs.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
        yield "standardised as ImageNet's", lambda x: (x - mean) / deviation


def of_several(trial: Trial) -> Answers:
    """Look whether another of several outputs knows more than the one that is taken for the logits."""
    from robustness.classifiers.adapter import AdaptedModel, extract_logits

    model, name = trial.model, "another output knows more"
    if not isinstance(model, AdaptedModel) or model.output is not None:
        return {name: answer(False, "the model gives one tensor, or its card says which")}
    heard: list[Any] = []
    hook = model.model.register_forward_hook(lambda _module, _inputs, outputs: heard.append(outputs))
    try:
        own = trial.decision.predictions(trial.outputs(trial.inputs)) == trial.labels
    finally:
        hook.remove()
    entries = _entries(heard[-1])
    if len(entries) < 2:
        return {name: answer(False, "the model gives one tensor")}
    logits, known, doubted = extract_logits(heard[-1]), "", False
    chosen = next(key for key, value in entries.items() if value is logits)
    for key, value in entries.items():
        if value is not logits and value.shape == logits.shape:
            right = trial.decision.predictions(model.classes(value.float())) == trial.labels
            known += f"; {key} {float(right.float().mean()):.0%}"
            doubted |= gained(own, right)
    shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in entries.items())
    taken = f"the model gives {len(entries)} tensors ({shapes}), of which {chosen} is taken for the logits"
    said = answer(doubted, f"{taken}: {float(own.float().mean()):.0%} of images are right by it{known}")
    return {name: said | {"notice": f"{taken}; another one is named by model.output"}}


def _entries(outputs: Any) -> dict[str, Tensor]:
    """Return the tensors among what a model gives, by name or place."""
    if isinstance(outputs, Tensor):
        return {"it": outputs}
    parts = outputs if isinstance(outputs, Sequence) else ()
    pairs = outputs.items() if isinstance(outputs, Mapping) else enumerate(parts)
    return {f"[{key!r}]": value for key, value in pairs if isinstance(value, Tensor)}


def gained(before: Tensor, after: Tensor) -> bool:
    """
    Return whether more images are right than before, (N,) booleans each: a tenth, and more than luck explains.

    >>> import torch
    >>> wrong = torch.zeros(100, dtype=torch.bool)
    >>> gained(wrong, torch.arange(100) < 20), gained(wrong, torch.arange(100) < 9), gained(wrong[:9], ~wrong[:9])
    (True, False, False)
    """
    won, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return won - lost >= FALL * len(before) and won - lost > SURE * sqrt(won + lost)


def of_a_level(trial: Trial) -> Answers:
    """Move every pixel by one grey level, which no one sees and a table of images does not hold."""
    _refuse_dim(trial)
    if trial.random or not trial.logits.isfinite().all():
        raise NotLookedFor("the forward is not deterministic, or its outputs are no numbers")
    signs = corners(generator(trial.seed, Purpose.DOUBTED, 4), trial.inputs)
    beside = trial.outputs((trial.inputs + LEVEL * signs).clamp(0, 1))
    own, after = (trial.decision.predictions(logits) == trial.labels for logits in (trial.logits, beside))
    spread = (trial.logits - trial.logits.mean(0)).norm(dim=1).clamp(min=1e-12)
    jump = float(((beside - trial.logits).norm(dim=1) / spread).median())
    seen = (
        f"one grey level away {float(after.float().mean()):.0%} of images are right, as they are "
        f"{float(own.float().mean()):.0%}; logits move by {jump:.2g} of their spread"
    )
    return {"jumps within a grey level": answer(gained(after, own) or jump > JUMP, seen)}
