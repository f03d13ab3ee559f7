"""Adversarial examples that are known to be there: an attack that misses these misses others (Zimmermann 2022)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from robustness.decisions import Argmax, Bin, Decision, Filtering
from robustness.errors import ModelError
from robustness.util.rng import Purpose, generator

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Gives perturbed images for a module, images (N, C, H, W) and labels (N,), in the order of the images."""

NEAR = 0.95
"""Within this share of the budget no example is planted."""
NOT_RUN = "planting needs the last linear layer's features, but the layer did not run in each pass; is there a cache?"
CLOSENESS = 0.999
"""How near the boundary lies to the planted example, on the way from all that is near the image (0) to it (1)."""
CORNERS = 20
"""Random corners of which one must be kept by a detector."""
RIDGE = 1.0
"""Of the mean variance: with less, one feature that nothing near turns on decides, and any corner turns it on."""
ROOM = 2**23
"""Bytes of images that pass at once where features alone are asked for."""


class CannotPlant(ModelError):
    """A model, or features of its images, that no example can be planted in."""


@dataclass(frozen=True)
class Planted:
    """
    A model of two classes for each image: 1 for the planted example and what lies beyond it, 0 for all that is near.

    ``module`` says so of all ``inputs`` (N, C, H, W) in this order, or of some of them, under perturbations: each image
    has a last layer of its own. ``examples`` are the planted ones, at distance ``epsilon`` (L∞); ``labels`` are all 0.
    Under a ``decision`` that can tell an attack, `Bin`, the detector is the model's own, and keeps the examples.
    """

    module: Read
    inputs: Tensor
    examples: Tensor
    epsilon: float
    decision: Decision

    def at(self, closeness: float) -> Planted:
        """
        Return the same with the boundary elsewhere on the way to the examples, which makes them harder or easier.

        ValueError unless ``closeness`` lies between 0 and 1.
        """
        return replace(self, module=self.module.at(closeness))

    @property
    def labels(self) -> Tensor:
        """The class of every image, (N,)."""
        return torch.zeros(len(self.inputs), dtype=torch.int64, device=self.inputs.device)


def plant(
    classifier: nn.Module,
    inputs: Tensor,
    *,
    epsilon: float,
    near: int = 200,
    closeness: float = CLOSENESS,
    decision: Decision | None = None,
    seed: int = 0,
) -> Planted:
    """
    Refit the last layer so that each image has an adversarial example at L∞ distance ``epsilon`` (Zimmermann 2022, §4).

    ``near`` random images within 0.95·ε are to stay in class 0 and one random corner of the ball to be in class 1;
    ``closeness`` says how near the boundary lies to that corner. An image whose corner the features cannot tell
    apart is left out. CannotPlant, a ModelError, if the model does not end in a linear layer. If ``decision`` can
    tell an attack, the corner is one that it keeps, of 20 random ones; an image that has none is left out too.
    """
    decision = decision or Argmax()
    layer = _last_linear(classifier, inputs[:2], decision)
    draw, readouts, kept, examples = generator(seed, Purpose.DOUBTED, 0), [], [], []
    with torch.no_grad():
        scores = decision.log_probabilities(classifier(inputs.clone()).float()).topk(2, dim=1).values
        for i, image in enumerate(inputs):
            images = image.expand(near + 2, *image.shape).clone()
            around = torch.from_numpy(draw.random((near, *image.shape), "f4"))
            images[1:-1] += around.mul_(2).sub_(1).mul_(NEAR * epsilon).to(image)  # in place: many, and may be large
            images.clamp_(0, 1)
            corner = _kept_corner(classifier, image, epsilon, draw, decision)
            if corner is None:
                continue
            images[-1] = corner
            readout = _fitted(_features(classifier, layer, images), float(scores[i, 0] - scores[i, 1]))
            if readout is not None:
                readouts.append(readout)
                examples.append(images[-1].clone())  # a view would keep all that is near it
                kept.append(i)
    if not kept:
        raise CannotPlant(
            "planting needs features that tell a perturbed image from its neighbours, but those of none of "
            f"{len(inputs)} images do at epsilon {epsilon:g}; take a larger one"
            + (", or a smaller one, at which the detector keeps a random corner" if _filters(decision) else "")
        )
    directions, scores = (torch.stack(each) for each in zip(*readouts, strict=True))
    inputs = inputs[kept].clone()
    module = Read(classifier, layer, Readout(directions, scores, inputs, closeness), decision)
    read = Bin(threshold=decision.threshold) if isinstance(decision, Filtering) else Argmax()
    return Planted(module, inputs, torch.stack(examples).clone(), epsilon, read)


def _filters(decision: Decision) -> bool:
    return isinstance(decision, Filtering)


def _kept_corner(
    classifier: nn.Module, image: Tensor, epsilon: float, draw: np.random.Generator, decision: Decision
) -> Tensor | None:
    """Draw a corner of the ball around an image that the decision does not discard; None if it discards all."""
    for _ in range(CORNERS if _filters(decision) else 1):
        corner = (image + corners(draw, image) * epsilon).clamp_(0, 1)
        if not isinstance(decision, Filtering):
            return corner
        if bool((decision.log_passed(classifier(corner[None].clone()).float()) >= decision.log_threshold).all()):
            return corner
    return None


def strength(
    planted: Planted, attack: Attack, *, tries: int = 20, evading: bool = True, seed: int = 1
) -> dict[str, int]:
    """
    Return how many images with planted examples an attack misleads, and how many the best of ``tries`` random corners.

    What the decision discards has misled nobody, unless ``evading`` is false: for an attack that does not try to stay
    undetected. Images outside the ball or [0, 1] count as missed, and so do outputs that are no numbers. If random
    corners find many, the examples are no test of an attack.
    """
    module, inputs = planted.module, planted.inputs
    perturbed = attack(module, inputs, planted.labels)
    inside = ((perturbed - inputs).flatten(1).abs().amax(1) <= planted.epsilon * (1 + 1e-5) + 1e-6) & (
        (perturbed >= 0) & (perturbed <= 1)
    ).flatten(1).all(1)
    draw, chance = generator(seed, Purpose.DOUBTED, 0), torch.zeros_like(inside)
    with torch.no_grad():
        found = _misled(planted, perturbed.detach(), evading) & inside
        for _ in range(tries):
            chance |= _misled(planted, (inputs + planted.epsilon * corners(draw, inputs)).clamp_(0, 1), evading)
    return {"planted": len(inputs), "found": int(found.sum()), "by chance": int(chance.sum())}


def corners(draw: np.random.Generator, like: Tensor) -> Tensor:
    """Draw a sign for every pixel, shaped as ``like``: a corner of the L∞ ball around each image."""
    return torch.from_numpy(2 * draw.integers(0, 2, tuple(like.shape)).astype("f4") - 1).to(like)


class Readout(nn.Module):
    """
    A last layer for each of the planted ``inputs`` (N, C, H, W): logits 0 and w·f + b.

    Of ``directions`` (N, features), in float64, ``scores`` (N, 4) are what they make of the image itself, of what is
    near it at most and of its example, and the difference of logits that the image itself is to have.
    """

    weights: Tensor
    biases: Tensor

    def __init__(self, directions: Tensor, scores: Tensor, inputs: Tensor, closeness: float) -> None:
        super().__init__()
        if not 0 < closeness < 1:
            raise ValueError(f"`closeness` must lie between 0 and 1, got {closeness}; 0.999 is the hardest in use")
        self.directions, self.scores, self.inputs, self.closeness = directions, scores, inputs, closeness
        own, near, example, gap = scores.unbind(1)
        bound = near + closeness * (example - near)
        scale = gap / (bound - own)
        self.register_buffer("weights", (directions * scale[:, None]).to(inputs))
        self.register_buffer("biases", (-bound * scale).to(inputs))

    def at(self, closeness: float) -> Readout:
        """Return the readout whose boundary lies so near to the examples."""
        return Readout(self.directions, self.scores, self.inputs, closeness)

    def forward(self, features: Tensor, inputs: Tensor) -> Tensor:
        """Return the logits, (n, 2), of all images in their order, or of fewer: each by the layer of the nearest."""
        weights, biases = self.weights, self.biases
        if len(inputs) != len(self.inputs):  # an attack that goes on with what resists alone, or takes a few at once
            rows = torch.cdist(inputs.detach().flatten(1), self.inputs.flatten(1), p=torch.inf).argmin(1)
            weights, biases = weights[rows], biases[rows]
        score = (features * weights).sum(1) + biases
        return torch.stack([torch.zeros_like(score), score], 1)


def _misled(planted: Planted, images: Tensor, evading: bool) -> Tensor:
    logits = planted.module(images)
    misled: Tensor = (logits[:, 1] > logits[:, 0]) & logits.isfinite().all(1)
    if evading and isinstance(planted.decision, Filtering):
        misled &= planted.decision.log_passed(logits) >= planted.decision.log_threshold
    return misled


def _fitted(features: Tensor, gap: float) -> tuple[Tensor, Tensor] | None:
    """
    Return a direction that tells the last of some features from all others, and its scores, as `Readout` takes them.

    None if they cannot be told apart. Ridge regression's direction, in float64; the first of the features is to get
    the logit difference ``gap``, that of the model: an attack that fails at the model's own scale fails here.
    """
    near, corner = features[:-1].double(), features[-1].double()
    mean = near.mean(0)
    centred, apart = near - mean, corner - mean
    ridge = RIDGE * float(centred.square().sum()) / len(near) / len(mean) + 1e-12
    gram = centred @ centred.T + len(near) * ridge * torch.eye(len(near), dtype=centred.dtype, device=centred.device)
    direction = (apart - centred.T @ torch.linalg.solve(gram, centred @ apart)) / ridge
    direction = direction / direction.norm().clamp(min=1e-300)
    scores = near @ direction
    best, reached = float(scores.max()), float(corner @ direction)
    if not reached - best > 1e-4 * max(float(scores.std()), abs(reached) * 1e-2):
        return None
    return direction, direction.new_tensor([float(scores[0]), best, reached, max(gap, 1e-3)])


def _features(classifier: nn.Module, layer: nn.Linear, images: Tensor) -> Tensor:
    """Return what comes into a layer, (N, features)."""
    taken: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: taken.append(given[0].float()))
    try:
        for some in torch.split(images, max(1, ROOM // (4 * images[0].numel()))):
            classifier(some)
    finally:
        hook.remove()
    if not taken:
        raise CannotPlant(NOT_RUN)
    return torch.cat(taken)


def _last_linear(classifier: nn.Module, inputs: Tensor, decision: Decision) -> nn.Linear:
    """Return the linear layer that runs last, once, on flat features; beside a detector the last of the classifier."""
    called: list[nn.Linear] = []
    linears = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
    hooks = [
        m.register_forward_pre_hook(lambda m, given: called.append(m) if given[0].dim() == 2 else None) for m in linears
    ]
    try:
        with torch.no_grad():
            outputs = classifier(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(decision, Bin):
        classes = outputs.shape[1] - 2
        called = [layer for layer in called if layer.out_features == classes] or called
    if not called or called.count(called[-1]) > 1:
        raise CannotPlant(
            "planting needs a model that ends in a linear layer (nn.Linear, on features of shape (N, features), run "
            "once a pass), got one without; attacks on it cannot be tried in this way"
        )
    return called[-1]


class Read(nn.Module):
    """
    A model with another last layer: what its own last one makes of the features, and all after it, is left out.

    So a prior, a mask or a mean over classes that comes later meets no other number of outputs. What a ``decision``
    of the model makes of attacks stays, as a detector's two outputs beside the readout's.
    """

    def __init__(self, classifier: nn.Module, layer: nn.Linear, readout: Readout, decision: Decision) -> None:
        super().__init__()
        self.classifier, self.layer, self.readout, self.decision = classifier, layer, readout, decision

    def at(self, closeness: float) -> Read:
        """Return the same with the boundary elsewhere (`Planted.at`)."""
        return Read(self.classifier, self.layer, self.readout.at(closeness), self.decision)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of the readout, (N, 2), and after them those of the detector, if there is one, (N, 4)."""
        features: list[Tensor] = []
        hook = self.layer.register_forward_pre_hook(lambda _, arguments: features.append(arguments[0].float()))
        try:
            outputs = self.classifier(inputs.clone())  # it may edit them
        finally:
            hook.remove()
        if not features:
            raise CannotPlant(NOT_RUN)
        logits: Tensor = self.readout(features[-1], inputs)
        if not isinstance(self.decision, Filtering):
            return logits
        passed = self.decision.log_passed(outputs.float()).clamp(max=-1e-6)  # the logarithm of 0 has no gradient
        odds = passed - (-torch.expm1(passed)).log()
        return torch.cat([logits, torch.stack([odds, torch.zeros_like(odds)], 1)], 1)
