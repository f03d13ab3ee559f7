"""The networks of AdvGAN (Xiao et al. 2018, section 3), and how a generator is fitted to a frozen target."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness.classifiers import weights
from robustness.classifiers.modules import channels_last, lay_out, restored_afterwards
from robustness.data.images import Images
from robustness.decisions import Argmax, Decision
from robustness.errors import ModelError, TrainingError
from robustness.perturbations.advgan import AdvGAN
from robustness.perturbations.attack import attack_loss, most_likely_wrong_class
from robustness.util import rng_state
from robustness.util.rng import Purpose, generator
from robustness.workspace.recipes import Job


class Generator(nn.Module):
    """
    Maps images (N, C, H, W) to perturbations in [-1, 1] of the same shape, whatever H and W are.

    It works at half and a quarter of the resolution: four pixels are four channels there (as fast on a CPU as it
    gets), so every pixel of the perturbation is still its own. With ``classes`` it is also given the class that each
    image is to be taken for.
    """

    def __init__(self, channels: int, width: int, classes: int = 0) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(2 * width, 2 * width, 3, padding=1) for _ in range(2))
        self.up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, 4 * channels, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(()))
        self.aim = nn.Embedding(classes, 2 * width) if classes else None

    def forward(self, inputs: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return G(x), or G(x, t)."""
        height, width = inputs.shape[-2:]
        whole = F.pad(inputs, (0, -width % 4, 0, -height % 4))
        fine = F.relu(self.enter(F.pixel_unshuffle(whole, 2)))
        coarse = F.relu(self.down(fine))
        if self.aim is not None:
            if targets is None:
                raise ValueError("`targets` must be given to a generator of x and t, got None")
            coarse = coarse + self.aim(targets)[..., None, None]
        for block in self.middle:
            coarse = coarse + F.relu(block(coarse))
        fine = fine + F.relu(self.up(F.interpolate(coarse, scale_factor=2)))
        perturbation = F.pixel_shuffle(self.leave(fine), 2)[..., :height, :width]
        # Balanced in each image: tanh would else be driven to one side everywhere, where it has no gradient left.
        balanced: Tensor = F.layer_norm(perturbation, perturbation.shape[1:])
        return (self.gain * balanced).tanh()


def discriminator(channels: int, width: int) -> nn.Sequential:
    """Return a network that tells images from perturbed ones, one logit an image."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, 1),
    )


def fit(
    classifier: nn.Module, images: Images, perturbation: AdvGAN, job: Job, decision: Decision | None = None
) -> Generator:
    """
    Fit a generator to a classifier, which stays frozen and as it was; interrupted, the next call goes on.

    The same seed gives the same generator on the same machine: it is computed on the job's device, on CPUs in one
    thread, with a random state of its own. TrainingError where the loss is not finite.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with rng_state.isolated_rng(job.seed), restored_afterwards(classifier, job.device) as target:
            return _fitted(target, images, perturbation, job, decision or Argmax())
    finally:
        torch.set_num_threads(threads)


def _fitted(target: nn.Module, images: Images, about: AdvGAN, job: Job, decision: Decision) -> Generator:
    channels, some = images.shape[0], torch.from_numpy(images.batch(0, 1)).to(job.device)
    channels_last(target, lambda: _works(target, some))
    forger, expert = unfitted(images, about), discriminator(channels, about.width)
    modules: dict[str, nn.Module] = {"generator": forger, "discriminator": expert}
    for module in modules.values():  # twice as fast on CPUs
        lay_out(module.to(job.device))
    optimizers = {
        name: torch.optim.Adam(m.parameters(), lr=about.learning_rate, fused=True) for name, m in modules.items()
    }
    done = _resumed(job, modules, optimizers)
    for step, (inputs, labels) in enumerate(_batches(images, about, job.seed)):
        if step < done:
            continue
        batch = inputs.to(job.device), labels.to(job.device)
        loss = _step(target, about, decision, forger, expert, optimizers, *batch)
        if (step + 1) % 50 == 0 or step + 1 == about.steps:
            if not math.isfinite(value := loss.item()):
                raise TrainingError(
                    f"the generator's loss became {value} in step {step + 1}; try a smaller learning_rate"
                )
            job.report(step + 1, about.steps)
            if step + 1 < about.steps:
                job.save(_state(step + 1, modules, optimizers))
    return forger.cpu().eval()


def unfitted(images: Images, about: AdvGAN) -> Generator:
    """Return a generator for some images, as it is before it is fitted."""
    return Generator(images.shape[0], about.width, len(images.classes) if about.conditional else 0)


def _works(module: nn.Module, inputs: Tensor) -> bool:
    try:
        module(inputs)
    except RuntimeError:
        return False
    return True


def _step(
    target: nn.Module,
    about: AdvGAN,
    decision: Decision,
    forger: nn.Module,
    expert: nn.Module,
    optimizers: dict[str, torch.optim.Adam],
    inputs: Tensor,
    labels: Tensor,
) -> Tensor:
    """Take one step of the discriminator and one of the generator; give the generator's loss."""
    aims = most_likely_wrong_class(target, inputs, labels, decision) if about.conditional else None
    perturbation = forger(inputs, aims)
    perturbed = (inputs + about.bound * perturbation).clamp(0, 1)
    real, forged = expert(inputs), expert(perturbed.detach())
    verdict = F.softplus(-real).mean() + F.softplus(forged).mean()
    optimizers["discriminator"].zero_grad()
    verdict.backward()  # type: ignore[no-untyped-call]
    optimizers["discriminator"].step()
    # An image is misled enough once another class leads by one: more would cost the others.
    margin = attack_loss(target(perturbed).float(), labels, "margin", aims, decision)
    size = (perturbation.flatten(1).square().mean(1) + 1e-12).sqrt()
    loss = F.relu(1 - margin).mean() + about.discriminator_weight * F.softplus(-expert(perturbed)).mean()
    loss = loss + about.hinge_weight * F.relu(size / about.hinge_threshold - 1).mean()
    # Of the generator alone: the target's parameters are never touched.
    for parameter, gradient in zip(
        forger.parameters(), torch.autograd.grad(loss, list(forger.parameters())), strict=True
    ):
        parameter.grad = gradient
    optimizers["generator"].step()
    return loss.detach()


def _batches(images: Images, about: AdvGAN, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Return as many batches as there are steps, epoch by epoch in an order that the seed decides."""
    size = min(about.batch_size, len(images))
    each = len(images) // size
    for epoch in range(math.ceil(about.steps / each)):
        order = generator(seed, Purpose.ORDER, epoch).permutation(len(images))
        for i in range(min(each, about.steps - epoch * each)):
            chosen = images.select(order[i * size : (i + 1) * size], images.name)
            yield torch.from_numpy(chosen.batch(0, size)), torch.from_numpy(chosen.labels.copy())


def _state(done: int, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Adam]) -> dict[str, object]:
    state: dict[str, object] = {name: module.state_dict() for name, module in modules.items()}
    return state | {f"{name}_optimizer": o.state_dict() for name, o in optimizers.items()} | {"steps": done}


def _resumed(job: Job, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Adam]) -> int:
    if not (state := job.resume()):
        return 0
    for name, module in modules.items():
        module.load_state_dict(state[name])
        optimizers[name].load_state_dict(state[f"{name}_optimizer"])
    return int(state["steps"])


def save(fitted: Generator, target: str, about: Mapping[str, str] | None = None) -> bytes:
    """Write a generator as safetensors; ``target`` is the hash (`modules.state_hash`) of the model it was fitted to."""
    return weights.to_bytes(fitted.state_dict(), {**(about or {}), "target": target})


def load(path: Path, perturbation: AdvGAN, images: Images, target: str) -> Generator:
    """Read a generator; ModelError where it is torn, of another shape, or was fitted to another model."""
    state = weights.read(path)
    recorded = weights.metadata(path).get("target")
    if recorded != target:
        raise ModelError(
            f"{path}: this generator was fitted to another model ({(recorded or 'unnamed')[:12]}…) than the one that "
            f"is attacked ({target[:12]}…); fit one to this model, or name the other's card as source"
        )
    generator = unfitted(images, perturbation)
    weights.load_into(generator, state, path)
    return generator.eval()
