"""Doubts about attacks: gradients that lead nowhere, and attacks that find less than others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor, nn

from robustness.decisions import Decision
from robustness.doubts import planted
from robustness.doubts.trial import Answers, NotLookedFor, Trial, answer, perturb
from robustness.draws import Purpose, generator
from robustness.perturbations import FGSM, PGD, Batch, Perturbation
from robustness.perturbations.fgsm import steepest
from robustness.perturbations.iterated import Steps
from robustness.weights import five

FEW = 0.01
SPARED = 0.05
PLANTED, ENOUGH, CHANCE = 40, 0.95, 0.5
STEPS = 10


def of_gradients(trial: Trial) -> Answers:
    """Look at cross-entropy's gradients themselves, and at probabilities that round to 1."""
    gradients, logits = trial.gradient(trial.inputs)
    size = gradients.flatten(1).abs().amax(1)
    zero, broken = int((size == 0).sum()), int((~size.isfinite()).sum())
    sure = int((trial.decision.log_probabilities(logits).gather(1, trial.labels[:, None]) == 0).sum())
    plain, margin = (trial.shares(FGSM(loss=loss)) for loss in ("cross_entropy", "margin"))
    compared = trial.weaker("FGSM by cross-entropy", plain, "by the margin", margin)
    return {
        "zero gradients": answer(
            zero > FEW * len(size),
            f"cross-entropy's gradient is zero for {trial.of(zero)}{_blank(trial.model) if zero else ''}",
        ),
        "non-finite gradients": answer(broken > 0, f"gradients that are no numbers for {trial.of(broken)}"),
        "saturated cross-entropy": answer(
            sure > FEW * len(size) and compared["doubted"],
            f"p(true) rounds to 1 for {trial.of(sure)}; {compared['seen']}",
        ),
    }


def _blank(model: nn.Module) -> str:
    """Name layers that let nothing through, as the heads that some libraries leave for a training to fill."""
    blank = [
        name for name, module in model.named_modules()
        if isinstance(weight := getattr(module, "weight", None), Tensor) and weight.dim() > 1 and not weight.any()
    ]  # fmt: skip
    return f"; all weights of {five(blank)} are zero, which were never trained" if blank else ""


def of_one_step(trial: Trial) -> Answers:
    """Hold FGSM against random signs of the same size."""
    random = planted.corners(generator(trial.seed, Purpose.DOUBTED, 1), trial.inputs)
    noise = [trial.misled((trial.inputs + e * random).clamp(0, 1)) for e in trial.budgets]
    return {"noise beats FGSM": trial.weaker("FGSM", trial.shares(FGSM()), "random signs", noise)}


def of_many_steps(trial: Trial) -> Answers:
    """Hold PGD against FGSM."""
    own = trial.shares(PGD(steps=STEPS, random_start=False))
    return {"PGD weaker than FGSM": trial.weaker(f"PGD-{STEPS}", own, "FGSM", trial.shares(FGSM()))}


def of_transfer(trial: Trial, source: tuple[nn.Module, Decision] | None) -> Answers:
    """Hold PGD against PGD on another model."""
    if source is None:
        raise NotLookedFor("no other model is named")
    pgd = PGD(steps=STEPS, random_start=False)
    own, other = trial.shares(pgd), trial.shares(pgd, source)
    return {"transfer beats white-box": trial.weaker(f"PGD-{STEPS}", own, "the same on the other model", other)}


def of_the_loss(trial: Trial) -> Answers:
    """Go in small steps along the gradient, and look at the mean loss."""
    step, images, losses = Steps(trial.inputs, trial.epsilon, trial.epsilon / STEPS, "linf"), trial.inputs, []
    for _ in range(STEPS + 1):
        gradients, logits = trial.gradient(images)
        losses.append(float(-trial.decision.log_probabilities(logits).gather(1, trial.labels[:, None]).mean()))
        images = step.along(images, steepest(gradients, "linf"))
    falls = sum(not after >= before - 0.01 * abs(before) for before, after in pairwise(losses))
    return {
        "loss does not rise": answer(
            falls > STEPS // 4 or not losses[-1] > losses[0],
            f"mean loss from {losses[0]:.3g} to {losses[-1]:.3g} in {STEPS} steps to ε {trial.epsilon:g}, "
            f"falling in {falls}",
        )
    }


def of_no_bound(trial: Trial) -> Answers:
    """Attack with every image in reach."""
    attack = PGD(loss="margin", steps=4 * STEPS, relative_step=0.1, random_start=False, worst_case=True)
    left = 1 - trial.misled(trial.perturbed(attack, 1.0))
    return {"boundless budget survived": answer(left > SPARED, f"accuracy {left:.1%} under PGD-{4 * STEPS} at ε 1")}


def of_planted(trial: Trial, attacks: Mapping[str, Perturbation]) -> Answers:
    """Let attacks look for planted examples."""
    size = trial.budgets[0]  # random corners find more of them at larger ones
    there = planted.plant(trial.model, trial.inputs[:PLANTED], epsilon=size, seed=trial.seed)

    def run(perturbation: Perturbation, module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        return perturb(Batch(module, inputs, labels, trial.drawn(perturbation, len(inputs))), perturbation, size)

    listed, weak = [], False
    for name, perturbation in attacks.items():
        counts = planted.strength(there, lambda *each, p=perturbation: run(p, *each))
        listed.append(f"{name} finds {counts['found']}")
        weak |= counts["found"] < ENOUGH * counts["planted"]
    seen = (
        f"of {counts['planted']} planted examples at ε {size:g} {', '.join(listed)}; "
        f"random corners {counts['by chance']}"
    )
    if counts["by chance"] > CHANCE * counts["planted"]:
        raise NotLookedFor(f"too easy to find: {seen}")
    return {"misses planted examples": answer(weak, seen)}
