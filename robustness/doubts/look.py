"""Looking for the doubts: a few cheap trials of a model and of the attacks on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustness.datasets.images import Images
from robustness.decisions import Argmax, Decision
from robustness.doubts import permuted, planted
from robustness.draws import Purpose, generator
from robustness.errors import GradientError, ModelError
from robustness.gradients import gradient
from robustness.modules import undisturbed
from robustness.perturbations import FGSM, PGD, Batch, Perturbation
from robustness.perturbations.fgsm import steepest
from robustness.perturbations.iterated import Steps
from robustness.sweep import together
from robustness.sweep.batches import one_thread
from robustness.weights import five

Found = dict[str, dict[str, Any]]
"""For each doubt what was seen, and whether that is a reason to doubt; None where it could not be looked for."""

SLACK = 0.02
"""A share of the images: what is weaker by less, or on one image alone, may be so by chance."""
FEW = 0.01
SPARED = 0.05
PLANTED, ENOUGH, CHANCE = 40, 0.95, 0.5
ALONE = 16
STEPS = 10
COUNT, LEAST, ROOM = 100, 16, 2**23
"""Images that are looked at: as many as take so many bytes as floats, so that large ones take minutes, not hours."""
AT_ONCE = 2**22
"""Bytes of images that are differentiated at once: what a forward keeps for its gradient is many times that."""


def look(
    classifier: nn.Module,
    images: Images,
    *,
    epsilon: float = 0.1,
    attacks: Mapping[str, Perturbation] | None = None,
    decision: Decision | None = None,
    source: nn.Module | None = None,
    source_decision: Decision | None = None,
    count: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    attacked: bool = True,
) -> Found:
    """
    Look for every doubt on the first ``count`` images (100, of large ones fewer), at budgets up to ``epsilon`` (L∞).

    With ``attacked`` false, for those alone that a few passes show: of the forward pass and of its gradients.

    ``attacks`` are those whose strength is tested on planted examples (default: PGD with 20 steps), ``source`` is
    another model, for transfer. Gives plain values by doubt: what was ``seen``, and whether it is ``doubted``.

    >>> import numpy as np
    >>> from robustness.datasets.images import from_arrays
    >>> spots = from_arrays(np.arange(8, dtype=np.uint8).reshape(4, 1, 2) * 30, [0, 1, 0, 1])
    >>> found = look(nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Softmax(1)), spots)
    >>> found["probabilities for logits"]["doubted"]
    True
    """
    forward, count = min(count or COUNT, len(images)), min(count or _affordable(images), len(images))
    with one_thread(), undisturbed(together(classifier, source, None), device) as lent:
        trial = _Trial(
            lent["classifier"],
            torch.from_numpy(images.batch(0, count)).to(device),
            torch.from_numpy(images.labels[:count].copy()).to(device),
            decision or Argmax(),
            epsilon,
            seed,
        )
        found = trial.of_the_forward()
        other = (lent["source"], source_decision or Argmax()) if source is not None else None
        tested = dict(attacks or {f"pgd-{2 * STEPS}": PGD(steps=2 * STEPS, random_start=False)})
        looks: dict[str, Callable[[], Found]] = {
            "zero gradients": trial.of_gradients,
            "noise beats FGSM": trial.of_one_step,
            "PGD weaker than FGSM": lambda: trial.of_many_steps(other),
            "loss does not rise": trial.of_the_loss,
            "boundless budget survived": trial.boundless,
            "misses planted examples": lambda: trial.of_attacks(tested),
            "permuted classes": lambda: {"permuted classes": permuted.look(trial.predicted, images, forward, seed)},
        }
        for name, each in looks.items():
            if not (attacked or name == "zero gradients"):
                continue
            try:
                found |= each()
            except (GradientError, ModelError) as error:
                found[name] = {"seen": f"not looked for: {error}", "doubted": None}
    return found


def _affordable(images: Images) -> int:
    """Give how many images are looked at where nobody says."""
    return min(COUNT, max(LEAST, ROOM // _bytes(images.shape)))


def _bytes(shape: Sequence[int]) -> int:
    return 4 * prod(shape)


def _said(doubted: bool, seen: str) -> dict[str, Any]:
    return {"seen": seen, "doubted": bool(doubted)}


class _Trial:
    """A model, some images, and attacks on them."""

    def __init__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, decision: Decision, epsilon: float, seed: int
    ) -> None:
        self.model, self.inputs, self.labels = model, inputs, labels
        self.decision, self.epsilon, self.seed = decision, epsilon, seed
        self.at_once = max(1, AT_ONCE // _bytes(inputs.shape[1:]))

    def of_the_forward(self) -> Found:
        """Pass images through the model: again, one by one, and look at what comes out."""
        with torch.inference_mode():
            logits, again = self.model(self.inputs).float(), self.model(self.inputs).float()
            each = [self.model(one).float() for one in self.inputs[:ALONE, None]]
        if odd := [tuple(one.shape) for one in each if one.shape != logits[:1].shape]:
            raise ModelError(
                f"the classifier must give logits of shape {tuple(logits[:1].shape)} for one image alone, as for many, "
                f"got {odd[0]}; let its forward keep the first dimension: squeeze(0) and squeeze() drop it"
            )
        alone, other = torch.cat(each), int((logits != again).any(1).sum())
        together_, scale = logits[:ALONE], max(1.0, float(logits.abs().max()))
        apart = float((together_ - alone).abs().max())
        sums = logits.sum(1)
        probabilities = bool((logits >= 0).all() and (logits <= 1).all() and ((sums - 1).abs() < 1e-3).all())
        return {
            "non-deterministic forward": _said(other > 0, f"other logits the second time for {self._of(other)}"),
            "depends on the batch": _said(
                not apart <= 1e-3 * scale, f"logits of an image alone differ by up to {apart:.2g} (of {scale:.3g})"
            ),
            "probabilities for logits": _said(
                probabilities,
                f"outputs from {logits.min():.3g} to {logits.max():.3g} with sums from {sums.min():.3g} "
                f"to {sums.max():.3g}",
            ),
        }

    def of_gradients(self) -> Found:
        """Look at cross-entropy's gradients themselves, and at probabilities that round to 1."""
        found, logits = self._gradient(self.inputs)
        size = found.flatten(1).abs().amax(1)
        zero, broken = int((size == 0).sum()), int((~size.isfinite()).sum())
        sure = int((self.decision.log_probabilities(logits).gather(1, self.labels[:, None]) == 0).sum())
        plain, margin = (self._steps(FGSM(loss=loss)) for loss in ("cross_entropy", "margin"))
        told = self._weaker("FGSM by cross-entropy", plain, "by the margin", margin)
        return {
            "zero gradients": _said(
                zero > FEW * len(size), f"cross-entropy's gradient is zero for {self._of(zero)}{self._blank(zero)}"
            ),
            "non-finite gradients": _said(broken > 0, f"gradients that are no numbers for {self._of(broken)}"),
            "saturated cross-entropy": _said(
                sure > FEW * len(size) and told["doubted"], f"p(true) rounds to 1 for {self._of(sure)}; {told['seen']}"
            ),
        }

    def _blank(self, zero: int) -> str:
        """Name layers that let nothing through, as the heads that some libraries leave for a training to fill."""
        blank = [
            name for name, module in self.model.named_modules()
            if isinstance(weight := getattr(module, "weight", None), Tensor) and weight.dim() > 1 and not weight.any()
        ]  # fmt: skip
        return f"; all weights of {five(blank)} are zero, which were never trained" if zero and blank else ""

    def of_one_step(self) -> Found:
        """Hold FGSM against random signs of the same size."""
        random = planted.corners(generator(self.seed, Purpose.DOUBTED, 1), self.inputs)
        noise = [self._misled((self.inputs + e * random).clamp(0, 1)) for e in self._budgets()]
        return {"noise beats FGSM": self._weaker("FGSM", self._steps(FGSM()), "random signs", noise)}

    def of_many_steps(self, source: tuple[nn.Module, Decision] | None) -> Found:
        """Hold PGD against FGSM, and against PGD on another model."""
        pgd = PGD(steps=STEPS, random_start=False)
        own = self._steps(pgd)
        found = {"PGD weaker than FGSM": self._weaker(f"PGD-{STEPS}", own, "FGSM", self._steps(FGSM()))}
        if source is None:
            found["transfer beats white-box"] = {"seen": "not looked for: no other model is named", "doubted": None}
        else:
            found["transfer beats white-box"] = self._weaker(
                f"PGD-{STEPS}", own, "the same on the other model", self._steps(pgd, source)
            )
        return found

    def of_the_loss(self) -> Found:
        """Go in small steps along the gradient, and look at the mean loss."""
        step, images, losses = Steps(self.inputs, self.epsilon, self.epsilon / STEPS, "linf"), self.inputs, []
        for _ in range(STEPS + 1):
            found, logits = self._gradient(images)
            losses.append(float(-self.decision.log_probabilities(logits).gather(1, self.labels[:, None]).mean()))
            images = step.along(images, steepest(found, "linf"))
        falls = sum(not after >= before - 0.01 * abs(before) for before, after in pairwise(losses))
        return {
            "loss does not rise": _said(
                falls > STEPS // 4 or not losses[-1] > losses[0],
                f"mean loss from {losses[0]:.3g} to {losses[-1]:.3g} in {STEPS} steps to ε {self.epsilon:g}, "
                f"falling in {falls}",
            )
        }

    def boundless(self) -> Found:
        """Attack with every image in reach."""
        attack = PGD(loss="margin", steps=4 * STEPS, relative_step=0.1, random_start=False, worst_case=True)
        left = 1 - self._misled(self._perturbed(attack, 1.0))
        return {"boundless budget survived": _said(left > SPARED, f"accuracy {left:.1%} under PGD-{4 * STEPS} at ε 1")}

    def of_attacks(self, attacks: Mapping[str, Perturbation]) -> Found:
        """Let attacks look for planted examples."""
        size = self._budgets()[0]  # random corners find more of them at larger ones
        there = planted.plant(self.model, self.inputs[:PLANTED], epsilon=size, seed=self.seed)

        def run(perturbation: Perturbation, module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
            return _perturbed(Batch(module, inputs, labels, self._drawn(perturbation, len(inputs))), perturbation, size)

        told, weak = [], False
        for name, perturbation in attacks.items():
            said = planted.strength(there, lambda *given, p=perturbation: run(p, *given))
            told.append(f"{name} finds {said['found']}")
            weak |= said["found"] < ENOUGH * said["planted"]
        seen = (
            f"of {said['planted']} planted examples at ε {size:g} {', '.join(told)}; random corners {said['by chance']}"
        )
        if said["by chance"] > CHANCE * said["planted"]:
            return {"misses planted examples": {"seen": f"not looked for: too easy to find: {seen}", "doubted": None}}
        return {"misses planted examples": _said(weak, seen)}

    def _gradient(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Give cross-entropy's gradient and the logits of some images, a few of them at once."""
        parts = [
            gradient(self.model, some, labels, decision=self.decision)
            for some, labels in zip(*(torch.split(each, self.at_once) for each in (images, self.labels)), strict=True)
        ]
        return torch.cat([found for found, _ in parts]), torch.cat([logits for _, logits in parts])

    def _weaker(self, one: str, mine: list[float], other: str, theirs: list[float]) -> dict[str, Any]:
        """Say whether what should be stronger misleads fewer at some budget."""
        worst = max(range(len(mine)), key=lambda i: theirs[i] - mine[i])
        seen = f"at ε {self._budgets()[worst]:g} {one} misleads {mine[worst]:.1%}, {other} {theirs[worst]:.1%}"
        return _said(theirs[worst] > mine[worst] + max(SLACK, 1 / len(self.inputs)) + 1e-9, seen)

    def _budgets(self) -> tuple[float, ...]:
        return self.epsilon / 4, self.epsilon / 2, self.epsilon

    def _steps(self, attack: Perturbation, source: tuple[nn.Module, Decision] | None = None) -> list[float]:
        """Give the share that an attack misleads at each budget."""
        return [self._misled(self._perturbed(attack, budget, source)) for budget in self._budgets()]

    def _perturbed(self, attack: Perturbation, size: float, source: tuple[nn.Module, Decision] | None = None) -> Tensor:
        other, decision = source or (None, self.decision)
        drawn = self._drawn(attack, len(self.inputs))
        return _perturbed(
            Batch(self.model, self.inputs, self.labels, drawn, source=other, decision=decision, at_once=self.at_once),
            attack,
            size,
        )

    def _drawn(self, attack: Perturbation, count: int) -> Tensor | None:
        drawn = attack.draw(generator(self.seed, Purpose.DOUBTED, 2), (count, *self.inputs.shape[1:]))
        return None if drawn is None else torch.from_numpy(drawn).to(self.inputs)

    def _misled(self, images: Tensor) -> float:
        return float((self._predictions(images) != self.labels).float().mean())

    def predicted(self, images: NDArray[np.float32]) -> NDArray[np.int64]:
        """Give the classes that the model says of images, (N, C, H, W)."""
        parts = torch.split(torch.from_numpy(images), max(1, ROOM // _bytes(images.shape[1:])))
        return torch.cat([self._predictions(part.to(self.inputs)) for part in parts]).cpu().numpy()

    def _predictions(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.decision.predictions(self.model(images).float())

    def _of(self, count: int) -> str:
        return f"{count} of {len(self.inputs)} images"


def _perturbed(batch: Batch, attack: Perturbation, size: float) -> Tensor:
    with torch.no_grad():
        return attack.prepare(batch)(size, torch.empty_like(batch.inputs))
