"""The plain training loop: cross-entropy, Adam, a new order each epoch, resumable after every one."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from robustness.datasets.images import Images
from robustness.draws import Purpose, generator
from robustness.errors import TrainingError
from robustness.recipes import Job


def fit(
    module: nn.Module, images: Images, job: Job, *, epochs: int, batch_size: int = 32, learning_rate: float = 1e-3
) -> nn.Module:
    """
    Train a module in place and give it back; interrupted, the next call goes on after the last whole epoch.

    The order of epoch e depends on the seed and e alone, so that a resumed training gives the same weights.
    TrainingError where the loss is not finite.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate, fused=True)
    done = 0
    if state := job.resume():
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epochs"]
    module.train()
    # Moments of weights behind pixels that are nearly always black decay into denormals, at half the speed.
    torch.set_flush_denormal(True)
    try:
        for epoch in range(done, epochs):
            _epoch(module, images, optimizer, job, epoch, epochs, batch_size)
            if epoch + 1 < epochs:
                state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1}
                job.save(state)
    finally:
        torch.set_flush_denormal(False)
    return module.eval()


def _epoch(
    module: nn.Module,
    images: Images,
    optimizer: torch.optim.Optimizer,
    job: Job,
    epoch: int,
    epochs: int,
    batch_size: int,
) -> None:
    shuffled = images.select(generator(job.seed, Purpose.ORDER, epoch).permutation(len(images)), images.name)
    labels = torch.from_numpy(shuffled.labels.copy())
    batches = math.ceil(len(images) / batch_size)
    for i, start in enumerate(range(0, len(images), batch_size)):
        stop = min(start + batch_size, len(images))
        loss = F.cross_entropy(module(torch.from_numpy(shuffled.batch(start, stop))), labels[start:stop])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if i % 100 == 0 or stop == len(images):
            if not math.isfinite(value := loss.item()):
                raise TrainingError(f"the loss became {value} in epoch {epoch + 1}; try a smaller learning_rate")
            job.report(epoch * batches + i + 1, epochs * batches)
