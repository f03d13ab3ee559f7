"""What sweeps are compared with: a floor that does only what cannot be left out, and four other libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

import robustness.util.torchvision_compat
from robustness.data.images import Images

Predictions = Callable[[nn.Module, Images, Sequence[float], int, str], np.ndarray]
"""The classes, (strengths, N), of images attacked at each strength, in batches of a size, on a device."""


def floor(module: nn.Module, images: Images, strengths: Sequence[float], batch_size: int, device: str) -> np.ndarray:
    """One forward and `autograd.grad` to the images, then a forward under inference mode for each strength."""

    def attacked(inputs: Tensor, labels: Tensor) -> list[Tensor]:
        leaf = inputs.detach().requires_grad_()
        loss = nn.functional.cross_entropy(module(leaf), labels, reduction="sum")
        signs = torch.autograd.grad(loss, leaf)[0].sign()
        with torch.inference_mode():
            return [module(torch.add(inputs, signs, alpha=epsilon).clamp_(0, 1)).argmax(1) for epsilon in strengths]

    return _batched(images, batch_size, device, attacked)


def _batched(
    images: Images, batch_size: int, device: str, attacked: Callable[[Tensor, Tensor], list[Tensor]]
) -> np.ndarray:
    found = []
    for start in range(0, len(images), batch_size):
        stop = min(start + batch_size, len(images))
        inputs = torch.from_numpy(images.batch(start, stop)).to(device)
        labels = torch.from_numpy(images.labels[start:stop].copy()).to(device)
        found.append(torch.stack(attacked(inputs, labels)).cpu().numpy())
    return np.concatenate(found, 1)


def _each(make: Callable[[nn.Module, Tensor, Tensor, float, str], Tensor]) -> Predictions:
    """Attack at each strength, as a user of that library does, and predict under inference mode."""

    def run(module: nn.Module, images: Images, strengths: Sequence[float], batch_size: int, device: str) -> np.ndarray:
        def attacked(inputs: Tensor, labels: Tensor) -> list[Tensor]:
            found = []
            for epsilon in strengths:
                made = inputs if epsilon == 0 else make(module, inputs, labels, epsilon, device)
                with torch.inference_mode():
                    found.append(module(made.detach()).argmax(1))
            return found

        return _batched(images, batch_size, device, attacked)

    return run


def _foolbox(steps: int) -> Predictions:
    import foolbox

    def run(module: nn.Module, images: Images, strengths: Sequence[float], batch_size: int, device: str) -> np.ndarray:
        model = foolbox.PyTorchModel(module, bounds=(0, 1), device=device)

        def attacked(inputs: Tensor, labels: Tensor) -> list[Tensor]:
            rest = [epsilon for epsilon in strengths if epsilon]
            attack = (
                foolbox.attacks.LinfFastGradientAttack()
                if steps == 1
                else foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=steps, random_start=False)
            )
            made = iter(attack(model, inputs, labels, epsilons=rest)[1])
            with torch.inference_mode():
                return [module(next(made) if epsilon else inputs).argmax(1) for epsilon in strengths]

        return _batched(images, batch_size, device, attacked)

    return run


def _torchattacks(steps: int) -> Predictions:
    import torchattacks

    def make(module: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float, device: str) -> Tensor:
        if steps == 1:
            return torchattacks.FGSM(module, eps=epsilon)(inputs, labels)
        return torchattacks.PGD(module, eps=epsilon, alpha=epsilon / 4, steps=steps, random_start=False)(inputs, labels)

    return _each(make)


def _art(steps: int) -> Predictions:
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    def make(module: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float, device: str) -> Tensor:
        wrapped = PyTorchClassifier(
            model=module, loss=nn.CrossEntropyLoss(), input_shape=tuple(inputs.shape[1:]), nb_classes=10,
            clip_values=(0, 1), device_type="cpu" if device == "cpu" else "gpu",
        )  # fmt: skip
        size = len(inputs)
        attack = (
            FastGradientMethod(wrapped, eps=epsilon, eps_step=epsilon, batch_size=size)
            if steps == 1
            else ProjectedGradientDescent(
                wrapped, eps=epsilon, eps_step=epsilon / 4, max_iter=steps, batch_size=size, verbose=False
            )
        )
        return torch.from_numpy(attack.generate(inputs.cpu().numpy(), labels.cpu().numpy())).to(device)

    return _each(make)


def _cleverhans(steps: int) -> Predictions:
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    def make(module: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float, device: str) -> Tensor:
        kept = {"clip_min": 0, "clip_max": 1, "y": labels}
        if steps == 1:
            return fast_gradient_method(module, inputs, epsilon, np.inf, **kept)
        return projected_gradient_descent(
            module, inputs, epsilon, epsilon / 4, steps, np.inf, rand_init=False, sanity_checks=False, **kept
        )

    return _each(make)


PEERS = {"foolbox": _foolbox, "torchattacks": _torchattacks, "art": _art, "cleverhans": _cleverhans}


def installed(steps: int) -> dict[str, Predictions]:
    """Return the peers that are installed, by name, as attacks of some steps: 1 is FGSM, more are PGD."""
    names = [name for name in PEERS if importlib.util.find_spec(name) is not None]
    if names:
        _ = robustness.util.torchvision_compat.torchvision  # they import it, and it needs help beside a CPU-only torch
    return {name: PEERS[name](steps) for name in names}
