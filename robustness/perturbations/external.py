"""Any attack of foolbox, torchattacks or ART, by name and arguments, if that library is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from robustness.errors import MissingLibrary, nearest
from robustness.perturbations.attack import Attack
from robustness.perturbations.base import Batch, Perturb

if TYPE_CHECKING:
    from torch import Tensor, nn

Library = Literal["foolbox", "torchattacks", "art"]
MODULES: dict[str, str] = {
    "foolbox": "foolbox.attacks",
    "torchattacks": "torchattacks",
    "art": "art.attacks.evasion",
}
Made = Callable[["float", "Tensor"], "Tensor"]


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    import json

    json.dumps(value, allow_nan=False)
    return value


class External(Attack):
    """
    An unmodified attack of another library: ``attack`` names its class, ``arguments`` are the class's arguments.

    The strength is the budget: foolbox's ``epsilons``, else the argument that ``budget`` names (``eps``). Its images
    are clipped to [0, 1]. Random attacks are seeded by the sweep's draws and run in one thread, because these libraries
    use the random state of the process.

    >>> External(library="torchattacks", attack="FGSM").strength_range
    (0.0, inf)
    """

    kind: Literal["external"] = "external"
    library: Library
    """Whose attack."""
    attack: str
    """The name of its class."""
    arguments: Annotated[dict[str, Any], AfterValidator(_plain)] = Field(default_factory=dict)
    """What that takes."""
    budget: str = "eps"
    """What it calls its budget, which the strength is."""
    family: ClassVar[str] = "attack"
    limits: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    strength_name: ClassVar[str] = "ε"
    meaning: ClassVar[str] = "is the budget that the library takes"
    side_by_side: ClassVar[bool] = False

    def distributions(self) -> set[str]:
        """Return the library; evidence depends on its version."""
        return {self.library}

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw a number per image; the first number of a batch is the seed."""
        return generator.integers(0, 2**24, (shape[0], 1)).astype(np.float32)

    def gradients(self, strengths: Sequence[object]) -> int:
        """Return the arguments' ``steps`` or ``max_iter`` per strength."""
        steps = self.arguments.get("steps", self.arguments.get("max_iter", 1))
        return len(strengths) * (steps if isinstance(steps, int) else 1)

    def prepare(self, batch: Batch) -> Perturb:
        """Build one attack per strength, because most take their budget in the constructor."""
        import torch

        from robustness.perturbations.gradients import InputCopier
        from robustness.util import rng_state

        make = {"foolbox": _foolbox, "torchattacks": _torchattacks, "art": _art}[self.library]
        attack = make(self, InputCopier(batch.attacked), batch, self._found())
        seed = 0 if batch.drawn is None else int(batch.drawn.flatten()[0])

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            if isinstance(strength, torch.Tensor):
                raise ValueError("`strengths` of external must be numbers for all images, got one per image; list them")
            if strength == 0:
                return out.copy_(batch.inputs)
            with rng_state.isolated_rng(seed), torch.enable_grad():
                perturbed = attack(strength, batch.inputs.clone()).detach().to(out)
            if perturbed.shape != out.shape:
                raise ValueError(
                    f"`attack` = {self.attack!r} must return images {tuple(out.shape)}, got {tuple(perturbed.shape)}"
                )
            batch.count("non-finite perturbations", ~perturbed.flatten(1).isfinite().all(1))
            return torch.clamp(perturbed.nan_to_num(0.0), 0, 1, out=out)

        return perturb

    def _found(self) -> Callable[..., Any]:
        """Find the attack's class; MissingLibrary names the extra, ValueError the nearest name."""
        # The libraries import torchvision, which needs help beside a CPU-only torch.
        import robustness.util.torchvision_compat

        try:
            _ = robustness.util.torchvision_compat.torchvision
            module = importlib.import_module(MODULES[self.library])
        except ImportError as error:
            raise MissingLibrary(
                f"the perturbation {self.library}.{self.attack} needs {self.library}, which cannot be imported "
                f'({error}); pip install "pytest-robustness[oracles]"'
            ) from error
        if callable(attack := getattr(module, self.attack, None)):
            return attack  # type: ignore[no-any-return]
        raise ValueError(
            f"`attack` must be a class of {MODULES[self.library]}, got {self.attack!r}"
            + nearest(self.attack, dir(module))
        )


def _foolbox(about: External, model: nn.Module, batch: Batch, attack: Callable[..., Any]) -> Made:
    import foolbox

    attacked = foolbox.PyTorchModel(model, bounds=(0, 1), device=batch.inputs.device)
    built = attack(**about.arguments)
    return lambda epsilon, inputs: built(attacked, inputs, batch.labels, epsilons=epsilon)[1]


def _torchattacks(about: External, model: nn.Module, batch: Batch, attack: Callable[..., Any]) -> Made:
    return lambda epsilon, inputs: attack(model, **{about.budget: epsilon}, **about.arguments)(inputs, batch.labels)


def _art(about: External, model: nn.Module, batch: Batch, attack: Callable[..., Any]) -> Made:
    import torch
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        outputs = model(batch.inputs).shape[1]
    classifier = PyTorchClassifier(
        model=model,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=tuple(batch.inputs.shape[1:]),
        nb_classes=outputs,
        clip_values=(0, 1),
        device_type="cpu" if batch.inputs.device.type == "cpu" else "gpu",
    )

    def made(epsilon: float, inputs: Tensor) -> Tensor:
        built = attack(classifier, **{about.budget: epsilon}, **about.arguments)
        return torch.from_numpy(built.generate(inputs.cpu().numpy(), batch.labels.cpu().numpy()))

    return made
