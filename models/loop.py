"""The training loop of all the papers' classifiers: one device, exact resume, early stopping, a log."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from models.objectives import Minibatch, Objective
from models.parseval import constrained
from robustness.classifiers.modules import lay_out
from robustness.data.images import Images
from robustness.data.splits import held_out
from robustness.errors import TrainingError, nearest
from robustness.util.rng import Purpose, generator
from robustness.workspace.recipes import Job

Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["cosine", "constant", "steps", "restarts"]
Flip = Literal[False, True, "both"]
CHOICES = {"optimizer": Optimizer, "schedule": Schedule, "flip": Flip}


@dataclass(frozen=True)
class Plan:
    """
    What every training decides, whatever it is trained for.

    ``held_out`` is the share of the images (of whole groups, where there are groups) by which the best epoch is
    chosen; after ``patience`` epochs without a better one training stops. Over the share ``warmup`` of the training the
    rate rises from a twentieth. Every ``period`` epochs the schedule ``steps`` divides it by ten, and ``restarts``
    begins its cosine anew. ``flip`` mirrors half of the images, and half upside down too where it is "both"; ``shift``
    moves each by up to so many pixels. ``beta`` makes it the training of a Parseval network (`constrain_`).
    """

    epochs: int
    batch_size: int = 128
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    period: int = 10
    warmup: float = 0.0
    held_out: float = 0.1
    patience: int | None = None
    flip: Flip = False
    shift: int = 0
    beta: float = 0.0

    def __post_init__(self) -> None:
        # Cards come without types, and a misspelt word would do something else without a word.
        for name, choice in CHOICES.items():
            known = [str(word) for word in get_args(choice)]
            if (value := str(getattr(self, name))) not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {value!r}{nearest(value, known)}")

    def optimizer_for(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer; SGD with Nesterov's momentum of 0.9."""
        settings: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        made: torch.optim.Optimizer
        if self.optimizer == "sgd":
            made = torch.optim.SGD(module.parameters(), momentum=0.9, nesterov=True, **settings)
        else:
            kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
            made = kind(module.parameters(), fused=True, **settings)
        return constrained(made, module, self.beta) if self.beta else made

    def rate(self, done: float) -> float:
        """
        Return the learning rate when a share of the training is done.

        >>> plan = Plan(10, learning_rate=1.0, warmup=0.2)
        >>> [round(plan.rate(done), 3) for done in (0.0, 0.1, 0.2, 0.6, 1.0)]
        [0.05, 0.525, 1.0, 0.5, 0.0]
        >>> [round(Plan(20, schedule="steps", learning_rate=1.0).rate(done), 3) for done in (0.0, 0.499, 0.5)]
        [1.0, 1.0, 0.1]
        >>> [round(Plan(20, schedule="restarts", learning_rate=1.0).rate(done), 3) for done in (0.0, 0.25, 0.5)]
        [1.0, 0.5, 1.0]
        """
        if done < self.warmup:
            return self.learning_rate * (0.05 + 0.95 * done / self.warmup)
        if self.schedule == "constant":
            return self.learning_rate
        # Rounded: a share of epochs times their number may fall short of the whole number that it is.
        periods, within = divmod(round(done * self.epochs, 6), self.period)
        if self.schedule == "steps":
            return self.learning_rate * float(0.1**periods)
        if self.schedule == "restarts":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * within / self.period))
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))


def train(module: nn.Module, images: Images, job: Job, objective: Objective, plan: Plan) -> nn.Module:
    """
    Train a module in place and give it back with the weights of its best epoch, on the CPU, in evaluation mode.

    All draws depend on the seed, the epoch and the batch alone, so that a training that was interrupted gives the same
    weights. TrainingError where the loss is not finite; the checkpoint of the last good epoch stays.
    """
    # Convolutions of few channels train a third faster with the channels innermost.
    hooks = lay_out(module.to(job.device))
    objective.to(job.device)
    data = Data(images, job, plan)
    optimizer = plan.optimizer_for(module)
    state: dict[str, Any] = {"epochs": 0, "best": math.inf, "since": 0, "rows": [], "weights": {}}
    if saved := job.resume():
        module.load_state_dict(saved.pop("module"))
        optimizer.load_state_dict(saved.pop("optimizer"))
        state |= saved
    torch.set_flush_denormal(True)
    try:
        while state["epochs"] < plan.epochs and (plan.patience is None or state["since"] <= plan.patience):
            _epoch(module, objective, data, optimizer, job, state)
            job.write_log(state["rows"])
            job.save({"module": module.state_dict(), "optimizer": optimizer.state_dict(), **state})
    finally:
        torch.set_flush_denormal(False)
        for hook in hooks:
            hook.remove()
    if state["weights"]:
        module.load_state_dict(state["weights"])
    module.to("cpu").to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return module.eval()


def _epoch(
    module: nn.Module,
    objective: Objective,
    data: Data,
    optimizer: torch.optim.Optimizer,
    job: Job,
    state: dict[str, Any],
) -> None:
    epoch, plan = state["epochs"], data.plan
    module.train()
    total, batches = torch.zeros((), device=job.device), data.count
    for i, batch in enumerate(data.training(epoch)):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate((epoch + i / batches) / plan.epochs)
        optimizer.zero_grad(set_to_none=True)
        total += objective.step(module, batch)
        optimizer.step()
        if i % 20 == 0 or i + 1 == batches:
            job.report(epoch * batches + i + 1, plan.epochs * batches)
    loss = total.item() / batches
    row = {"epoch": epoch + 1, "learning_rate": f"{plan.rate(epoch / plan.epochs):.6g}", "loss": f"{loss:.6g}"}
    module.eval()
    row |= (held := _held_out(module, objective, data))
    score = float(held.get("held_out_loss", -epoch))
    if not (math.isfinite(loss) and math.isfinite(score)):
        beside = f", {score} on held-out images" if held else ""
        raise TrainingError(
            f"the loss became {loss} in epoch {epoch + 1}{beside}; {_last_good(job, epoch)}; "
            "try a smaller learning_rate"
        )
    if objective.settled(epoch):  # before, what is trained for still changes: later losses are not to be compared
        state["since"] += 1
        if score < state["best"]:
            state |= {"best": score, "weights": copy.deepcopy(module.state_dict()), "since": 0}
    state["rows"].append(row)
    state["epochs"] = epoch + 1


def _held_out(module: nn.Module, objective: Objective, data: Data) -> dict[str, str]:
    found: list[tuple[float, float, int]] = []
    for batch in data.validation():
        loss, right = objective.judge(module, batch)
        found.append((float(loss), float(right), len(batch.labels)))
    if not found:
        return {}
    losses, rights, sizes = map(np.asarray, zip(*found, strict=True))
    return {
        "held_out_loss": f"{float((losses * sizes).sum() / sizes.sum()):.6g}",
        "held_out_accuracy": f"{float((rights * sizes).sum() / sizes.sum()):.4f}",
    }


def _last_good(job: Job, epoch: int) -> str:
    if job.checkpoint is None or not epoch:
        return "no epoch was finished before"
    return f"epoch {epoch} was the last good one and is kept in {job.checkpoint}"


class Data:
    """Images on the device, in the order and with the changes that the seed and the epoch decide."""

    def __init__(self, images: Images, job: Job, plan: Plan) -> None:
        self.plan, self._seed, self._device = plan, job.seed, job.device
        # As bytes, where they are: a quarter of the memory, and the same values.
        self._pixels = torch.from_numpy(np.array(images.stored(0, len(images)), order="C")).to(job.device)
        self._labels = torch.from_numpy(images.labels.astype(np.int64)).to(job.device)
        self._train, self._held_out = _divided(images, plan.held_out, job.seed)
        self.count = math.ceil(len(self._train) / plan.batch_size)

    def training(self, epoch: int) -> Iterator[Minibatch]:
        """Return the batches of an epoch."""
        order = self._train[generator(self._seed, Purpose.ORDER, epoch).permutation(len(self._train))]
        for i in range(self.count):
            draws = generator(self._seed, Purpose.TRAINING, epoch * self.count + i)
            rows = order[i * self.plan.batch_size : (i + 1) * self.plan.batch_size]
            yield self._batch(rows, draws, epoch, augment=True)

    def validation(self) -> Iterator[Minibatch]:
        """Return the held-out images: the same draws each time, so that epochs can be compared."""
        for i, start in enumerate(range(0, len(self._held_out), 500)):
            draws = generator(self._seed, Purpose.VALIDATION, i)
            yield self._batch(self._held_out[start : start + 500], draws, self.plan.epochs, augment=False)

    def _batch(self, rows: np.ndarray, draws: np.random.Generator, epoch: int, *, augment: bool) -> Minibatch:
        index = torch.from_numpy(rows).to(self._device)
        inputs = self._pixels[index].float() / (255 if self._pixels.dtype == torch.uint8 else 1)
        alter = altering(self.plan, inputs, draws) if augment else _as_it_is
        return Minibatch(alter(inputs), self._labels[index], index, draws, epoch, alter)


def _divided(images: Images, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if not share:
        return np.arange(len(images)), np.arange(0)
    return held_out(images.labels, images.groups, share, seed)


def altering(plan: Plan, inputs: Tensor, draws: np.random.Generator) -> Callable[[Tensor], Tensor]:
    """
    Draw how a minibatch is augmented, and give what does that to its images, or to others of their shape.

    Half are mirrored, and each is moved by whole pixels; what comes in at an edge is the edge's own value.
    """
    n, channels, height, width = inputs.shape

    def drawn(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(inputs.device)

    axes = (3, 2) if plan.flip == "both" else (3,) if plan.flip else ()
    mirrored = [(axis, drawn(draws.random(n) < 0.5).view(-1, 1, 1, 1)) for axis in axes]
    moves = drawn(draws.integers(0, 2 * plan.shift + 1, (2, n))) if plan.shift else None

    def alter(images: Tensor) -> Tensor:
        for axis, chosen in mirrored:
            images = torch.where(chosen, images.flip(axis), images)
        if moves is None:
            return images
        padded = nn.functional.pad(images, (plan.shift,) * 4, mode="replicate")
        rows = (moves[0, :, None] + torch.arange(height, device=images.device))[:, None, :, None]
        columns = (moves[1, :, None] + torch.arange(width, device=images.device))[:, None, None, :]
        first = torch.arange(n, device=images.device).view(-1, 1, 1, 1)
        return padded[first, torch.arange(channels, device=images.device).view(1, -1, 1, 1), rows, columns]

    return alter


def _as_it_is(images: Tensor) -> Tensor:
    return images
