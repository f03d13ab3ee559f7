"""Plant adversarial examples in a model: an attack that misses these misses others (Zimmermann et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from robustness.decisions import Argmax, Bin, Decision, Filtering
from robustness.errors import ModelError
from robustness.util.rng import Purpose, generator

# Maps a module, images (N, C, H, W) and labels (N,) to perturbed images in the same order.
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]

# Fraction of the budget within which images stay in class 0.
NEIGHBOUR_RADIUS = 0.95
LAYER_NOT_RUN = (
    "planting needs the last linear layer's inputs, but the layer does not run in each pass; is there a cache?"
)
# Position of the decision boundary between the neighbours of the image (0) and the planted example (1).
CLOSENESS = 0.999
# Random corners to try until the detector accepts one.
MAX_CORNERS = 20
# Ridge penalty relative to the mean variance: with less, a single feature that is inactive nearby would decide.
RIDGE = 1.0
# Bytes of images in one pass if only features are needed.
BATCH_BYTES = 2**23


class CannotPlant(ModelError):
    """No example can be planted in this model, or with the features of these images."""


@dataclass(frozen=True)
class PlantedExamples:
    """
    A two-class model per image: class 1 is the planted example and everything beyond it, class 0 the neighbourhood.

    ``module`` classifies perturbations of all ``inputs`` (N, C, H, W) in this order, or of some of them: each image
    has its own last layer. ``examples`` are the planted ones, at distance ``epsilon`` (L∞); all ``labels`` are 0.
    Under a ``decision`` with a detector, `Bin`, the detector is the model's own, and accepts the examples.
    """

    module: PlantedModel
    inputs: Tensor
    examples: Tensor
    epsilon: float
    decision: Decision

    def with_closeness(self, closeness: float) -> PlantedExamples:
        """
        Return the examples with another position of the boundary, which makes them harder or easier to find.

        ValueError unless ``closeness`` lies between 0 and 1.
        """
        return replace(self, module=self.module.with_closeness(closeness))

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
) -> PlantedExamples:
    """
    Refit the last layer so that each image has an adversarial example at L∞ distance ``epsilon``.

    After Zimmermann et al. 2022, section 4. An image is left out if the features do not separate its corner from its
    neighbours, or if a detector accepts none of 20 random corners.

    Args:
        classifier: Ends in a linear layer.
        inputs: Images (N, C, H, W) in [0, 1].
        epsilon: L∞ distance of the examples.
        near: Random images within 0.95·ε that stay in class 0; one random corner of the ball is in class 1.
        closeness: Position of the boundary between the neighbours (0) and the corner (1).
        decision: The model's decision; a detector must accept the corner.
        seed: Seed of all draws.

    Raises:
        CannotPlant: If the model does not end in a linear layer, or no image can get an example.
    """
    decision = decision or Argmax()
    layer = _last_linear(classifier, inputs[:2], decision)
    draw, heads, planted_rows, examples = generator(seed, Purpose.DOUBTED, 0), [], [], []
    with torch.no_grad():
        scores = decision.log_probabilities(classifier(inputs.clone()).float()).topk(2, dim=1).values
        for i, image in enumerate(inputs):
            images = image.expand(near + 2, *image.shape).clone()
            noise = torch.from_numpy(draw.random((near, *image.shape), "f4"))
            images[1:-1] += noise.mul_(2).sub_(1).mul_(NEIGHBOUR_RADIUS * epsilon).to(image)  # in place, to save memory
            images.clamp_(0, 1)
            corner = _accepted_corner(classifier, image, epsilon, draw, decision)
            if corner is None:
                continue
            images[-1] = corner
            head = _fit_direction(_layer_inputs(classifier, layer, images), float(scores[i, 0] - scores[i, 1]))
            if head is not None:
                heads.append(head)
                examples.append(images[-1].clone())  # a view would hold the memory of all neighbours
                planted_rows.append(i)
    if not planted_rows:
        raise CannotPlant(
            "planting needs features that separate a perturbed image from its neighbours; those of none of "
            f"{len(inputs)} images do at epsilon {epsilon:g}; use a larger one"
            + (", or a smaller one, at which the detector accepts a random corner" if _has_detector(decision) else "")
        )
    directions, scores = (torch.stack(values) for values in zip(*heads, strict=True))
    inputs = inputs[planted_rows].clone()
    module = PlantedModel(classifier, layer, PlantedHead(directions, scores, inputs, closeness), decision)
    head_decision = Bin(threshold=decision.threshold) if isinstance(decision, Filtering) else Argmax()
    return PlantedExamples(module, inputs, torch.stack(examples).clone(), epsilon, head_decision)


def _has_detector(decision: Decision) -> bool:
    return isinstance(decision, Filtering)


def _accepted_corner(
    classifier: nn.Module, image: Tensor, epsilon: float, draw: np.random.Generator, decision: Decision
) -> Tensor | None:
    """Return a random corner of the ball around an image that the decision accepts, or None."""
    for _ in range(MAX_CORNERS if _has_detector(decision) else 1):
        corner = (image + random_signs(draw, image) * epsilon).clamp_(0, 1)
        if not isinstance(decision, Filtering):
            return corner
        if bool((decision.log_passed(classifier(corner[None].clone()).float()) >= decision.log_threshold).all()):
            return corner
    return None


def attack_strength(
    planted: PlantedExamples, attack: Attack, *, tries: int = 20, evading: bool = True, seed: int = 1
) -> dict[str, int]:
    """
    Count the planted examples that an attack finds, and those that the best of ``tries`` random corners finds.

    Images that the decision discards count as missed, unless ``evading`` is false, for an attack that does not evade
    detection. Images outside the ball or [0, 1] and non-finite outputs count as missed. If random corners find many,
    the examples are no test of an attack.
    """
    module, inputs = planted.module, planted.inputs
    perturbed = attack(module, inputs, planted.labels)
    in_ball = (perturbed - inputs).flatten(1).abs().amax(1) <= planted.epsilon * (1 + 1e-5) + 1e-6
    valid = in_ball & ((perturbed >= 0) & (perturbed <= 1)).flatten(1).all(1)
    draw, chance = generator(seed, Purpose.DOUBTED, 0), torch.zeros_like(valid)
    with torch.no_grad():
        misled = _is_misled(planted, perturbed.detach(), evading) & valid
        for _ in range(tries):
            chance |= _is_misled(planted, (inputs + planted.epsilon * random_signs(draw, inputs)).clamp_(0, 1), evading)
    return {"planted": len(inputs), "found": int(misled.sum()), "by chance": int(chance.sum())}


def random_signs(draw: np.random.Generator, like: Tensor) -> Tensor:
    """Return a random sign for every pixel, shaped as ``like``: a corner of the L∞ ball around each image."""
    return torch.from_numpy(2 * draw.integers(0, 2, tuple(like.shape)).astype("f4") - 1).to(like)


class PlantedHead(nn.Module):
    """
    A last layer for each of the planted ``inputs`` (N, C, H, W): logits 0 and w·f + b.

    ``directions`` (N, features) are float64. ``scores`` (N, 4) are the projections of the image, of its closest
    neighbour and of its example, and the logit difference that the image should have.
    """

    weights: Tensor
    biases: Tensor

    def __init__(self, directions: Tensor, scores: Tensor, inputs: Tensor, closeness: float) -> None:
        super().__init__()
        if not 0 < closeness < 1:
            raise ValueError(f"`closeness` must lie between 0 and 1, got {closeness}; 0.999 is the hardest in use")
        self.directions, self.scores, self.inputs, self.closeness = directions, scores, inputs, closeness
        original, near, example, gap = scores.unbind(1)
        bound = near + closeness * (example - near)
        scale = gap / (bound - original)
        self.register_buffer("weights", (directions * scale[:, None]).to(inputs))
        self.register_buffer("biases", (-bound * scale).to(inputs))

    def with_closeness(self, closeness: float) -> PlantedHead:
        """Return the head with another position of the boundary."""
        return PlantedHead(self.directions, self.scores, self.inputs, closeness)

    def forward(self, features: Tensor, inputs: Tensor) -> Tensor:
        """Return the logits, (n, 2), of all images in order, or of fewer, each by the layer of the nearest image."""
        weights, biases = self.weights, self.biases
        if len(inputs) != len(self.inputs):  # an attack continues with a subset, or works in parts
            rows = torch.cdist(inputs.detach().flatten(1), self.inputs.flatten(1), p=torch.inf).argmin(1)
            weights, biases = weights[rows], biases[rows]
        score = (features * weights).sum(1) + biases
        return torch.stack([torch.zeros_like(score), score], 1)


def _is_misled(planted: PlantedExamples, images: Tensor, evading: bool) -> Tensor:
    logits = planted.module(images)
    misled: Tensor = (logits[:, 1] > logits[:, 0]) & logits.isfinite().all(1)
    if evading and isinstance(planted.decision, Filtering):
        misled &= planted.decision.log_passed(logits) >= planted.decision.log_threshold
    return misled


def _fit_direction(features: Tensor, gap: float) -> tuple[Tensor, Tensor] | None:
    """
    Return the direction of a ridge regression that separates the last features from the others, and its scores.

    None if they are not separable. In float64. The first features get the model's logit difference ``gap``: an attack
    that fails at the model's own scale fails here.
    """
    near, corner = features[:-1].double(), features[-1].double()
    mean = near.mean(0)
    centred, difference = near - mean, corner - mean
    ridge = RIDGE * float(centred.square().sum()) / len(near) / len(mean) + 1e-12
    gram = centred @ centred.T + len(near) * ridge * torch.eye(len(near), dtype=centred.dtype, device=centred.device)
    direction = (difference - centred.T @ torch.linalg.solve(gram, centred @ difference)) / ridge
    direction = direction / direction.norm().clamp(min=1e-300)
    scores = near @ direction
    near_score, corner_score = float(scores.max()), float(corner @ direction)
    if not corner_score - near_score > 1e-4 * max(float(scores.std()), abs(corner_score) * 1e-2):
        return None
    return direction, direction.new_tensor([float(scores[0]), near_score, corner_score, max(gap, 1e-3)])


def _layer_inputs(classifier: nn.Module, layer: nn.Linear, images: Tensor) -> Tensor:
    """Return the inputs of a layer, (N, features)."""
    captured: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, arguments: captured.append(arguments[0].float()))
    try:
        for part in torch.split(images, max(1, BATCH_BYTES // (4 * images[0].numel()))):
            classifier(part)
    finally:
        hook.remove()
    if not captured:
        raise CannotPlant(LAYER_NOT_RUN)
    return torch.cat(captured)


def _last_linear(classifier: nn.Module, inputs: Tensor, decision: Decision) -> nn.Linear:
    """Return the linear layer that runs last, once, on flat features; with a detector, the last of the classifier."""
    called: list[nn.Linear] = []
    linears = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
    hooks = [
        m.register_forward_pre_hook(lambda m, arguments: called.append(m) if arguments[0].dim() == 2 else None)
        for m in linears
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
            "once per pass), got one without; attacks on it cannot be tested this way"
        )
    return called[-1]


class PlantedModel(nn.Module):
    """
    A model whose last layer, and everything after it, is replaced by a `PlantedHead`.

    A prior, a mask or a mean over classes after the layer would not fit two outputs. The verdict of a detector is
    kept as two further outputs.
    """

    def __init__(self, classifier: nn.Module, layer: nn.Linear, head: PlantedHead, decision: Decision) -> None:
        super().__init__()
        self.classifier, self.layer, self.head, self.decision = classifier, layer, head, decision

    def with_closeness(self, closeness: float) -> PlantedModel:
        """Return the model with another position of the boundary."""
        return PlantedModel(self.classifier, self.layer, self.head.with_closeness(closeness), self.decision)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of the head, (N, 2), followed by those of a detector, if there is one, (N, 4)."""
        features: list[Tensor] = []
        hook = self.layer.register_forward_pre_hook(lambda _, arguments: features.append(arguments[0].float()))
        try:
            outputs = self.classifier(inputs.clone())  # the model may edit its input
        finally:
            hook.remove()
        if not features:
            raise CannotPlant(LAYER_NOT_RUN)
        logits: Tensor = self.head(features[-1], inputs)
        if not isinstance(self.decision, Filtering):
            return logits
        passed = self.decision.log_passed(outputs.float()).clamp(max=-1e-6)  # log 0 has no gradient
        odds = passed - (-torch.expm1(passed)).log()
        return torch.cat([logits, torch.stack([odds, torch.zeros_like(odds)], 1)], 1)
