"""Adversarial examples that are known to be there: an attack that misses these misses others (Zimmermann 2022)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustness.draws import Purpose, generator
from robustness.errors import ModelError

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Gives perturbed images for a module, images (N, C, H, W) and labels (N,), in the order of the images."""

NEAR = 0.95
"""Within this share of the budget no example is planted."""
NOT_RUN = "planting needs the last linear layer's features, but the layer did not run in each pass; is there a cache?"
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

    ``module`` says so of ``inputs`` (N, C, H, W) in this order only, for each image has a last layer of its own;
    ``examples`` are the planted ones, at distance ``epsilon`` (L∞); ``labels`` are all 0.
    """

    module: nn.Module
    inputs: Tensor
    examples: Tensor
    epsilon: float

    @property
    def labels(self) -> Tensor:
        """The class of every image, (N,)."""
        return torch.zeros(len(self.inputs), dtype=torch.int64, device=self.inputs.device)


def plant(
    classifier: nn.Module, inputs: Tensor, *, epsilon: float, near: int = 200, closeness: float = 0.999, seed: int = 0
) -> Planted:
    """
    Refit the last layer so that each image has an adversarial example at L∞ distance ``epsilon`` (Zimmermann 2022, §4).

    ``near`` random images within 0.95·ε are to stay in class 0 and one random corner of the ball to be in class 1;
    ``closeness`` says how near the boundary lies to that corner. An image whose corner the features cannot tell
    apart is left out. CannotPlant, a ModelError, if the model does not end in a linear layer.
    """
    layer = _last_linear(classifier, inputs[:2])
    draw, readouts, kept, examples = generator(seed, Purpose.DOUBTED, 0), [], [], []
    with torch.no_grad():
        scores = classifier(inputs.clone()).float().topk(2, dim=1).values
        for i, image in enumerate(inputs):
            images = image.expand(near + 2, *image.shape).clone()
            around = torch.from_numpy(draw.random((near, *image.shape), "f4"))
            images[1:-1] += around.mul_(2).sub_(1).mul_(NEAR * epsilon).to(image)  # in place: many, and may be large
            images[-1] += corners(draw, image) * epsilon
            images.clamp_(0, 1)
            readout = _fitted(_features(classifier, layer, images), float(scores[i, 0] - scores[i, 1]), closeness)
            if readout is not None:
                readouts.append(readout)
                examples.append(images[-1].clone())  # a view would keep all that is near it
                kept.append(i)
    if not kept:
        raise CannotPlant(
            "planting needs features that tell a perturbed image from its neighbours, but those of none of "
            f"{len(inputs)} images do at epsilon {epsilon:g}; take a larger one"
        )
    weights = torch.stack([weight for weight, _ in readouts]).to(inputs)
    biases = torch.stack([bias for _, bias in readouts]).to(inputs)
    module = Read(classifier, layer, Readout(weights, biases))
    return Planted(module, inputs[kept].clone(), torch.stack(examples).clone(), epsilon)


def strength(planted: Planted, attack: Attack, *, tries: int = 20, seed: int = 1) -> dict[str, int]:
    """
    Give how many images with planted examples an attack misleads, and how many the best of ``tries`` random corners.

    Images outside the ball or [0, 1] count as missed, and so do outputs that are no numbers. Where random corners
    find many, the examples are no test of an attack.
    """
    module, inputs = planted.module, planted.inputs
    perturbed = attack(module, inputs, planted.labels)
    inside = ((perturbed - inputs).flatten(1).abs().amax(1) <= planted.epsilon * (1 + 1e-5) + 1e-6) & (
        (perturbed >= 0) & (perturbed <= 1)
    ).flatten(1).all(1)
    draw, chance = generator(seed, Purpose.DOUBTED, 0), torch.zeros_like(inside)
    with torch.no_grad():
        found = _misled(module, perturbed.detach()) & inside
        for _ in range(tries):
            chance |= _misled(module, (inputs + planted.epsilon * corners(draw, inputs)).clamp_(0, 1))
    return {"planted": len(inputs), "found": int(found.sum()), "by chance": int(chance.sum())}


def corners(draw: np.random.Generator, like: Tensor) -> Tensor:
    """Draw a sign for every pixel, shaped as ``like``: a corner of the L∞ ball around each image."""
    return torch.from_numpy(2 * draw.integers(0, 2, tuple(like.shape)).astype("f4") - 1).to(like)


class Readout(nn.Module):
    """A last layer for each image of a batch: logits 0 and w·f + b."""

    weights: Tensor
    biases: Tensor

    def __init__(self, weights: Tensor, biases: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.register_buffer("biases", biases)

    def forward(self, features: Tensor) -> Tensor:
        """Give the logits, (N, 2), of as many images as were planted, in their order."""
        if len(features) != len(self.weights):
            raise ValueError(
                f"`inputs` must be the {len(self.weights)} images that examples were planted for, in their order, "
                f"got {len(features)}; an attack under test must leave no image out"
            )
        score = (features * self.weights).sum(1) + self.biases
        return torch.stack([torch.zeros_like(score), score], 1)


def _misled(module: nn.Module, images: Tensor) -> Tensor:
    logits = module(images)
    misled: Tensor = (logits[:, 1] > logits[:, 0]) & logits.isfinite().all(1)
    return misled


def _fitted(features: Tensor, gap: float, closeness: float) -> tuple[Tensor, Tensor] | None:
    """
    Give weights and bias that tell the last of some features from all others; None where they cannot be told apart.

    Ridge regression's direction, in float64; the first of the features gets the logit difference ``gap``, that of the
    model: an attack that fails at the model's own scale of logits is to fail here.
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
    bound = best + closeness * (reached - best)
    scale = max(gap, 1e-3) / (bound - float(scores[0]))
    return direction * scale, torch.tensor(-bound * scale, dtype=torch.float64, device=direction.device)


def _features(classifier: nn.Module, layer: nn.Linear, images: Tensor) -> Tensor:
    """Give what comes into a layer, (N, features)."""
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


def _last_linear(classifier: nn.Module, inputs: Tensor) -> nn.Linear:
    """Find the linear layer that runs last, once, on flat features."""
    called: list[nn.Linear] = []
    linears = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
    hooks = [
        m.register_forward_pre_hook(lambda m, given: called.append(m) if given[0].dim() == 2 else None) for m in linears
    ]
    try:
        with torch.no_grad():
            classifier(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not called or called.count(called[-1]) > 1:
        raise CannotPlant(
            "planting needs a model that ends in a linear layer (nn.Linear, on features of shape (N, features), run "
            "once a pass), got one without; attacks on it cannot be tried in this way"
        )
    return called[-1]


class Read(nn.Module):
    """
    A model with another last layer: what its own last one makes of the features, and all after it, is left out.

    So a prior, a mask or a mean over classes that comes later meets no other number of outputs.
    """

    def __init__(self, classifier: nn.Module, layer: nn.Linear, readout: Readout) -> None:
        super().__init__()
        self.classifier, self.layer, self.readout = classifier, layer, readout

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of the readout, (N, 2)."""
        features: list[Tensor] = []
        hook = self.layer.register_forward_pre_hook(lambda _, arguments: features.append(arguments[0].float()))
        try:
            self.classifier(inputs)
        finally:
            hook.remove()
        if not features:
            raise CannotPlant(NOT_RUN)
        return self.readout(features[-1])  # type: ignore[no-any-return]
