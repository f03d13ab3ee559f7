"""A zoo of ill models: a small network that knows its digits, made ill in one way each; which doubt names it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import helpers
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness.classifiers.adapter import AdaptedModel

PER_CLASS = 30
"""Images of a class that the network is trained on, and as many others that it is tested on."""
EPSILON = 0.2
"""The largest budget of the profile `quick` on digits."""


def network() -> nn.Module:
    """Return a small network, untrained."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def train(model: nn.Module, rounds: int = 60, seed: int = 0) -> nn.Module:
    """Train a network on digits, in a second."""
    images = helpers.digits(PER_CLASS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d):
                module.reset_parameters()
        inputs, labels = torch.from_numpy(images.batch(0, len(images))), torch.from_numpy(images.labels.copy())
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(rounds):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model.eval()


class Around(nn.Module):
    """A model with something before and after it."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda inputs: inputs,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, inputs: Tensor) -> Tensor:
        return self.after(self.model(self.before(inputs)))


class Backwards(torch.autograd.Function):
    """Passes what it is given, and another gradient."""

    @staticmethod
    def forward(inputs, change):
        return inputs.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.change = inputs[1]
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, gradient):
        return ctx.change(gradient, *ctx.saved_tensors), None


def backwards(change):
    """Return a layer whose gradient is changed, by a function of the gradient and the images."""
    return lambda inputs: Backwards.apply(inputs, change)


def off_grid(inputs: Tensor) -> Tensor:
    """Say which images were perturbed: some pixel is none of the 256 levels."""
    return ((inputs * 255).round() / 255 - inputs).abs().flatten(1).amax(1) > 1e-6


def permuted(inputs: Tensor) -> Tensor:
    return inputs.flatten(1)[:, torch.randperm(784, generator=torch.Generator().manual_seed(0))].view_as(inputs)


class Trained(Around):
    """Batch norm over the logits that stays in training mode."""

    def __init__(self, model):
        super().__init__(model)
        self.norm = nn.BatchNorm1d(10)

    def forward(self, inputs):
        self.norm.train()
        return 5 * self.norm(self.model(inputs))


class Counting(Around):
    """Another order of the classes after many images, or many calls."""

    def __init__(self, model, images=10**9, calls=10**9):
        super().__init__(model)
        self.images, self.calls, self.seen, self.called = images, calls, 0, 0

    def forward(self, inputs):
        self.seen, self.called = self.seen + len(inputs), self.called + 1
        logits = self.model(inputs)
        return logits.flip(1) if self.seen > self.images or self.called > self.calls else logits


class Remembering(Around):
    """The last answer again for images in the same memory, or as many of them."""

    def __init__(self, model, key):
        super().__init__(model)
        self.key, self.last = key, None

    def forward(self, inputs):
        key = self.key(inputs)
        if inputs.requires_grad or torch.is_grad_enabled() or self.last is None or self.last[0] != key:
            logits = self.model(inputs)
            self.last = (key, logits.detach())
            return logits
        return self.last[1]


class Averaging(Around):
    """Logits less their running mean."""

    def __init__(self, model):
        super().__init__(model)
        self.register_buffer("mean", torch.zeros(10))

    def forward(self, inputs):
        logits = self.model(inputs)
        self.mean = 0.9 * self.mean + 0.1 * logits.detach().mean(0)
        return logits - self.mean


class Table(Around):
    """Stored labels of the test images by their bytes; the model's own answer, weighed, for all others."""

    def __init__(self, model, own=1.0, stored=100.0, key=lambda image: (image * 255).round().byte(), images=None):
        super().__init__(model)
        images = images or helpers.digits(PER_CLASS)
        inputs = torch.from_numpy(images.batch(0, len(images)))
        self.own, self.stored, self.key = own, stored, key
        self.labels = {self.of(one): int(label) for one, label in zip(inputs, images.labels, strict=True)}

    def of(self, image):
        return self.key(image.detach()).numpy().tobytes()

    def forward(self, inputs):
        labels = torch.tensor([self.labels.get(self.of(image), 10) for image in inputs])
        return self.own * self.model(inputs) + self.stored * F.one_hot(labels, 11)[:, :10]


class Ensemble(Around):
    """One of two models, by the toss of a coin."""

    def forward(self, inputs):
        return self.model(inputs) if torch.rand(()) < 0.5 else self.model(inputs * 0.9)


class Heads(Around):
    """A head that knows little, and the one that was trained."""

    def forward(self, inputs):
        logits = self.model(inputs)
        return torch.cat([logits[:, :2], 0.01 * logits[:, 2:]], 1), logits


def seeded(inputs: Tensor) -> Tensor:
    """Add noise that is drawn anew for every image, but the same for the same image."""
    noise = [
        torch.randn(one.shape, generator=torch.Generator().manual_seed(int(one.detach().double().sum() * 1e9) % 2**31))
        for one in inputs
    ]
    return inputs + 0.5 * torch.stack(noise)


def swapped(*classes: int) -> Callable[[Tensor], Tensor]:
    order = list(range(10))
    for one, other in zip(classes, (*classes[1:], classes[0]), strict=True):
        order[one] = other
    return lambda logits: logits[:, order]


def steps(levels: int) -> Callable[[Tensor], Tensor]:
    return lambda x: (x * levels).round() / levels


def thermometer(inputs: Tensor) -> Tensor:
    levels = torch.linspace(0.05, 0.95, 10).view(-1, 1, 1, 1, 1)
    return (inputs > levels).float().mean(0) + 0 * inputs


@dataclass(frozen=True)
class Ill:
    """An illness: what it is, in words for docs/doubts.md, how it is made, and the doubt that names it."""

    said: str
    doubt: str
    make: Callable[[nn.Module], nn.Module]


def ill(said: str, doubt: str, before=None, after=None) -> Ill:
    given = {name: change for name, change in (("before", before), ("after", after)) if change is not None}
    return Ill(said, doubt, lambda model: Around(model, **given))


RANDOM, BATCH, STATE = "non-deterministic forward", "depends on the batch", "keeps state between calls"
NUMBERS, CHANCE, ORDER = "outputs that are no numbers", "no better than chance", "permuted classes"
TABLE, ZERO, SCALE = "jumps within a grey level", "zero gradients", "cross-entropy weaker than margin"
RANGE, SQUASHED = "wrong input range", "probabilities for logits"
WRONG, FALLS = "wrong gradients", "loss does not rise"

ILL = [
    ill("noise is added to the logits", RANDOM, after=lambda y: y + 0.1 * torch.randn_like(y)),
    ill("dropout stays on", RANDOM, before=lambda x: F.dropout(x, 0.2, training=True)),
    Ill("one of several models is picked at random", RANDOM, Ensemble),
    ill("the clock is asked", RANDOM, after=lambda y: y + time.perf_counter_ns() % 997 / 997 * torch.arange(10)),
    Ill("a running mean is taken off", RANDOM, Averaging),
    Ill("batch norm stays in training mode", BATCH, Trained),
    ill("the mean of the batch is taken off", BATCH, after=lambda y: y - y.mean(0)),
    ill("the same, in large batches alone", BATCH, after=lambda y: y - y.mean(0) if len(y) > 120 else y),
    ill("each image leans on the one beside it", BATCH, before=lambda x: 0.9 * x + 0.1 * x.roll(1, 0)),
    ill("the first dimension is squeezed away", BATCH, after=lambda y: y.squeeze()),
    ill("softmax is applied twice", SQUASHED, after=lambda y: y.softmax(1)),
    ill("sigmoid is applied", SQUASHED, after=lambda y: y.sigmoid()),
    ill("all logits are NaN", NUMBERS, after=lambda y: y * torch.nan),
    ill("a class is masked by minus infinity", NUMBERS,
        after=lambda y: y.masked_fill(torch.arange(10) == 3, -torch.inf)),
    ill("logits overflow half precision", NUMBERS, after=lambda y: (y * 1e4).half().float()),
    ill("perturbed images are answered by NaN", NUMBERS,
        before=lambda x: x.masked_fill(off_grid(x).view(-1, 1, 1, 1), torch.nan)),
    ill("images are edited in place", "edits its input", before=lambda x: x.mul_(0.9)),
    Ill("other answers after some thousand images", STATE, lambda model: Counting(model, images=4000)),
    Ill("other answers after some hundred calls", STATE, lambda model: Counting(model, calls=200)),
    Ill("answers are cached by the memory of the images", STATE,
        lambda model: Remembering(model, lambda x: (x.data_ptr(), len(x)))),
    Ill("answers are cached by the number of images", STATE, lambda model: Remembering(model, len)),
    ill("the signs of the logits are wrong", CHANCE, after=lambda y: -y),
    ill("every image gets the same answer", CHANCE, after=lambda y: 0 * y + torch.arange(10.0)),
    ill("images are expected from 0 to 255", RANGE, before=lambda x: x / 255),
    ill("images are expected with light and dark exchanged", RANGE, before=lambda x: 1 - x),
    Ill("the first of several outputs is taken, which is another head's", "another output knows more",
        lambda model: AdaptedModel(Heads(model))),
    ill("all classes are in another order", ORDER, after=lambda y: y.roll(1, 1)),
    ill("three classes are exchanged", ORDER, after=swapped(2, 5, 7)),
    ill("two classes are exchanged", ORDER, after=swapped(1, 8)),
    Ill("test images are looked up, others get no answer", TABLE, lambda model: Table(model, own=0.001)),
    Ill("test images are looked up, others are answered by the model", TABLE, Table),
    Ill("test images are looked up by a few pixels", TABLE,
        lambda model: Table(model, own=0.01, key=lambda x: (x[:, 10:14, 10:14] * 255).round().byte())),
    ill("noise is seeded by the image", TABLE, before=seeded),
    ill("logits are divided by 100", SCALE, after=lambda y: y / 100),
    ill("logits are divided by 10", SCALE, after=lambda y: y / 10),
    ill("logits are squashed by tanh", SCALE, after=lambda y: (y / 3).tanh()),
    ill("logits are multiplied by 4", "saturated cross-entropy", after=lambda y: y * 4),
    ill("logits are multiplied by 1000", ZERO, after=lambda y: y * 1000),
    ill("logits are rounded", ZERO, after=lambda y: y.round() + 0 * y),
    ill("logits are clamped", ZERO, after=lambda y: y.clamp(-1, 1)),
    ill("the answer alone is given, without its margin", ZERO, after=lambda y: F.one_hot(y.argmax(1), 10) + 0 * y),
    ill("images are rounded to a few levels", ZERO, before=lambda x: steps(4)(x) + 0 * x),
    ill("images are encoded as by a thermometer", ZERO, before=thermometer),
    ill("gradients are stopped", ZERO, before=lambda x: x.detach() + 0 * x),
    ill("a square root at 0", "non-finite gradients", before=lambda x: x + (x * 0).sqrt()),
    ill("gradients have the wrong sign", WRONG, before=backwards(lambda g, x: -g)),
    ill("gradients are noise", WRONG, before=backwards(lambda g, x: torch.randn_like(g))),
    ill("gradients belong to other pixels", WRONG, before=backwards(lambda g, x: permuted(g))),
    ill("gradients are shattered by a fine ripple", FALLS, before=lambda x: x + 0.01 * (3000 * x).sin()),
    ill("rounding passes gradients on with the wrong sign", WRONG,
        before=lambda x: steps(8)(x.detach()) + backwards(lambda g, _: -g)(x) - x.detach()),
    ill("gradients turn round once images are perturbed", "PGD weaker than FGSM",
        before=backwards(lambda g, x: torch.where(off_grid(x).view(-1, 1, 1, 1), -g, g))),
    ill("gradients are stopped in half of the image", WRONG,
        before=lambda x: torch.cat([x[..., :14].detach(), x[..., 14:]], 3)),
]  # fmt: skip
