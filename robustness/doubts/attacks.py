"""Checks of attacks: gradients that mislead, and attacks that find less than weaker ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isnan, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from robustness.classifiers.weights import abbreviate
from robustness.decisions import Decision, Filtering
from robustness.doubts import planted
from robustness.doubts.probe import TOLERANCE, CheckResults, ModelProbe, NotChecked, apply_attack, check_result
from robustness.perturbations import APGD, FGSM, PGD, AdaptivePGD, Batch, Perturbation
from robustness.perturbations.attack import DETECTOR_LOSSES, Loss
from robustness.perturbations.fgsm import steepest_direction
from robustness.perturbations.pgd import Steps
from robustness.util.rng import Purpose, generator

MAX_BAD_GRADIENTS = 0.01
LOSSES: tuple[Loss, Loss] = "cross_entropy", "margin"
# The fraction of images, and the standard errors, by which margin attacks may beat cross-entropy attacks on models
# with logits of a usual scale.
MARGIN_ADVANTAGE, STANDARD_ERRORS = 0.15, 2.5
# Probabilities are flat if confidence exceeds chance by less than this fraction of accuracy's excess; the advantage of
# margin attacks on such models.
FLAT_CONFIDENCE, FLAT_ADVANTAGE = 0.1, 0.04
MAX_UNBOUNDED_ACCURACY = 0.05
PLANTED_COUNT, MIN_FOUND, MAX_BY_CHANCE = 40, 0.95, 0.5
# Positions of the boundary on the way to the planted examples, in the order of difficulty.
CLOSENESS = (0.5, 0.75, 0.9, 0.999)
HALVINGS = 3
STEPS = 10
# Step sizes of the finite differences, and the relative error that gradients may have.
DIFFERENCE_STEPS, MAX_GRADIENT_ERROR = (0.1 / 255, 0.5 / 255, 2 / 255, 8 / 255), 0.5
# Finds all planted examples unless gradients are masked. It follows gradients alone: a random search, such as Square,
# would find them in spite of a mask.
STRONG_ATTACK = APGD(steps=4 * STEPS)
NO_ATTACK = "the card has no iterative attack of its own (L∞, native strengths)"


def check_gradients(probe: ModelProbe) -> CheckResults:
    """Check the gradients of cross-entropy, and for probabilities that round to 1."""
    gradients, logits = probe.gradient(probe.inputs)
    magnitude = gradients.flatten(1).abs().amax(1)
    zero, non_finite = int((magnitude == 0).sum()), int((~magnitude.isfinite()).sum())
    saturated = int((probe.decision.log_probabilities(logits).gather(1, probe.labels[:, None]) == 0).sum())
    comparison = _compare_with_margin(probe, "FGSM", [FGSM(loss=loss) for loss in LOSSES], TOLERANCE)
    return {
        "zero gradients": check_result(
            zero > MAX_BAD_GRADIENTS * len(magnitude),
            f"cross-entropy's gradient is zero for {probe.format_count(zero)}"
            + (_untrained_layers(probe.model) if zero else ""),
        ),
        "non-finite gradients": check_result(
            non_finite > 0, f"gradients are not finite for {probe.format_count(non_finite)}"
        ),
        "saturated cross-entropy": check_result(
            saturated > MAX_BAD_GRADIENTS * len(magnitude) and comparison["doubted"],
            f"p(true) rounds to 1 for {probe.format_count(saturated)}; {comparison['seen']}",
        ),
    }


def compare_losses(probe: ModelProbe) -> CheckResults:
    """Compare attacks by cross-entropy to attacks by the margin, which does not depend on the scale of the logits."""
    pgd = [PGD(steps=STEPS, random_start=False, loss=loss) for loss in LOSSES]
    fgsm = [FGSM(loss=loss) for loss in LOSSES]
    scores = probe.decision.log_probabilities(probe.logits)
    accuracy = float((probe.decision.predictions(probe.logits) == probe.labels).float().mean())
    chance = 1 / scores.shape[1]
    flat = float(scores.amax(1).exp().mean()) - chance < FLAT_CONFIDENCE * (accuracy - chance)
    advantage = FLAT_ADVANTAGE if flat else MARGIN_ADVANTAGE
    results = [
        _compare_with_margin(probe, f"PGD-{STEPS}", pgd, advantage),
        _compare_with_margin(probe, "FGSM", fgsm, advantage),
    ]
    return {"cross-entropy weaker than margin": max(results, key=lambda result: bool(result["doubted"]))}


def _compare_with_margin(
    probe: ModelProbe, name: str, attacks: Sequence[Perturbation], advantage: float
) -> dict[str, Any]:
    """Compare two attacks image by image, at each budget at which the first leaves enough images."""
    doubted, worst = False, (-1.0, f"at ε {probe.epsilon / 4:g} {name} by cross-entropy misleads all images")
    for budget in probe.budgets:
        cross_entropy = probe.misled(attacks[0], budget)
        if (rate := float(cross_entropy.float().mean())) > 1 - advantage:
            continue
        margin = probe.misled(attacks[1], budget)
        margin_rate, differing = float(margin.float().mean()), int((cross_entropy != margin).sum())
        additional = int(margin.sum()) - int(cross_entropy.sum())
        doubted |= additional >= advantage * len(cross_entropy) and additional > STANDARD_ERRORS * sqrt(differing)
        seen = f"at ε {budget:g} {name} by cross-entropy misleads {rate:.1%}, by the margin {margin_rate:.1%}"
        worst = max(worst, (margin_rate - rate, seen))
    return check_result(doubted, worst[1])


def _untrained_layers(model: nn.Module) -> str:
    """Name layers whose weights are all zero: heads that a library leaves to be trained."""
    names = [
        name for name, module in model.named_modules()
        if isinstance(weight := getattr(module, "weight", None), Tensor) and weight.dim() > 1 and not weight.any()
    ]  # fmt: skip
    return f"; all weights of {abbreviate(names)} are zero: they were never trained" if names else ""


def compare_with_differences(probe: ModelProbe) -> CheckResults:
    """
    Compare gradients of the margin to finite differences along random directions.

    They agree at some step size for any piecewise smooth model: smaller steps are lost in rounding, larger ones leave
    the linear region.
    """
    if probe.unstable_count or not probe.logits.isfinite().all():
        raise NotChecked("the forward pass is not deterministic, or its outputs are not finite")
    gradients, _ = probe.gradient(probe.inputs, "margin")
    draws, errors = generator(probe.seed, Purpose.DOUBTED, 5), {}
    inward = torch.where(probe.inputs > 0.5, -1.0, 1.0)  # steps stay in [0, 1]
    directions = [inward * (planted.random_signs(draws, probe.inputs) > 0) for _ in range(2)]
    scores = probe.decision.log_probabilities(probe.logits)
    runner_up = scores.scatter(1, probe.labels[:, None], -torch.inf).argmax(1)

    def margin(images: Tensor) -> Tensor:
        scores = probe.decision.log_probabilities(probe.outputs(images)).double()
        return (scores.gather(1, runner_up[:, None]) - scores.gather(1, probe.labels[:, None])).squeeze(1)

    before = margin(probe.inputs)
    for size in DIFFERENCE_STEPS:
        differences = torch.stack(
            [(margin(probe.inputs + size * direction) - before) / size for direction in directions]
        )
        expected = torch.stack([(gradients * direction).flatten(1).double().sum(1) for direction in directions])
        error = (differences - expected).square().mean(0)
        total = differences.square().mean(0) + expected.square().mean(0)
        errors[size] = float((2 * error / total.clamp(min=1e-300)).median())
    size = min(errors, key=lambda step: errors[step])
    if isnan(errors[size]):
        raise NotChecked("outputs are not finite a few grey levels away")
    message = (
        f"gradients differ by {errors[size]:.2g} from finite differences with steps of {size * 255:.2g} grey levels"
    )
    return {"wrong gradients": check_result(errors[size] > MAX_GRADIENT_ERROR, message)}


def compare_fgsm_with_noise(probe: ModelProbe) -> CheckResults:
    """Compare FGSM to random signs of the same size."""
    random = planted.random_signs(generator(probe.seed, Purpose.DOUBTED, 1), probe.inputs)
    noise = [probe.error_rate((probe.inputs + e * random).clamp(0, 1)) for e in probe.budgets]
    return {"noise beats FGSM": probe.compare("FGSM", probe.misled_fractions(FGSM()), "random signs", noise)}


def compare_pgd_with_fgsm(probe: ModelProbe) -> CheckResults:
    """Compare PGD to FGSM."""
    rates = probe.misled_fractions(PGD(steps=STEPS, random_start=False))
    return {"PGD weaker than FGSM": probe.compare(f"PGD-{STEPS}", rates, "FGSM", probe.misled_fractions(FGSM()))}


def compare_pgd_with_transfer(probe: ModelProbe, source: tuple[nn.Module, Decision] | None) -> CheckResults:
    """Compare PGD to PGD transferred from another model."""
    if source is None:
        raise NotChecked("the card names no source model")
    pgd = PGD(steps=STEPS, random_start=False)
    rates, transfer_rates = probe.misled_fractions(pgd), probe.misled_fractions(pgd, source)
    return {
        "transfer beats white-box": probe.compare(f"PGD-{STEPS}", rates, "the same on the source model", transfer_rates)
    }


def check_loss_rises(probe: ModelProbe) -> CheckResults:
    """Check that the mean loss rises in small steps along the gradient."""
    step, images, losses = Steps(probe.inputs, probe.epsilon, probe.epsilon / STEPS, "linf"), probe.inputs, []
    for _ in range(STEPS + 1):
        gradients, logits = probe.gradient(images)
        losses.append(float(-probe.decision.log_probabilities(logits).gather(1, probe.labels[:, None]).mean()))
        images = step.along(images, steepest_direction(gradients, "linf"))
    falls = sum(not after >= before - 0.01 * abs(before) for before, after in pairwise(losses))
    return {
        "loss does not rise": check_result(
            falls > STEPS // 4 or not losses[-1] > losses[0],
            f"mean loss from {losses[0]:.3g} to {losses[-1]:.3g} in {STEPS} steps to ε {probe.epsilon:g}, "
            f"falling in {falls}",
        )
    }


def check_unbounded_attack(probe: ModelProbe) -> CheckResults:
    """Check that an attack without a bound on the perturbation succeeds."""
    attack = PGD(loss="margin", steps=4 * STEPS, relative_step_size=0.1, random_start=False, stop_when_fooled=True)
    accuracy = 1 - probe.error_rate(probe.attack(attack, 1.0))
    return {
        "boundless budget survived": check_result(
            accuracy > MAX_UNBOUNDED_ACCURACY, f"accuracy {accuracy:.1%} under PGD-{4 * STEPS} at ε 1"
        )
    }


def compare_card_attacks_with_fgsm(probe: ModelProbe, attacks: Mapping[str, Perturbation]) -> CheckResults:
    """Compare the card's own attacks to FGSM."""
    if not attacks:
        raise NotChecked(NO_ATTACK)
    subset = probe.first(PLANTED_COUNT)
    results = []
    for name, attack in attacks.items():
        evading = _evades(attack)
        rates, fgsm_rates = (subset.misled_fractions(a, evading=evading) for a in (attack, FGSM()))
        results.append(subset.compare(f"attack `{name}`", rates, "FGSM", fgsm_rates))
    reported = [result for result in results if result["doubted"]] or results
    return {
        "attack weaker than FGSM": check_result(
            reported[0]["doubted"], "; ".join(result["seen"] for result in reported)
        )
    }


def check_planted_examples(probe: ModelProbe, attacks: Mapping[str, Perturbation]) -> CheckResults:
    """Check that a strong attack finds planted examples, and that the card's attacks find the hardest that it finds."""
    examples = _plant_examples(probe)
    strong = AdaptivePGD(steps=4 * STEPS) if isinstance(examples.decision, Filtering) else STRONG_ATTACK

    def count(examples: planted.PlantedExamples, attack: Perturbation) -> dict[str, int]:
        def run(module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
            draws, at_once = probe.draw(attack, len(inputs)), probe.gradient_batch_size
            batch = Batch(module, inputs, labels, draws, decision=examples.decision, at_once=at_once)
            return apply_attack(batch, attack, examples.epsilon)

        return planted.attack_strength(examples, run, evading=_evades(attack) or attack is strong)

    hardest: tuple[planted.PlantedExamples, dict[str, int]] | None = None
    for closeness in CLOSENESS:
        harder = examples.with_closeness(closeness)
        counts = count(harder, strong)
        if counts["by chance"] > MAX_BY_CHANCE * counts["planted"]:
            continue
        if hardest is None or counts["found"] == counts["planted"]:
            hardest = harder, counts
        if counts["found"] < counts["planted"]:
            break
    description = f"{len(examples.inputs)} planted examples at ε {examples.epsilon:g}"
    if hardest is None:
        raise NotChecked(f"random corners find more than half of {description}: these are too easy to find")
    examples, counts = hardest
    seen = (
        f"of {description} {strong.kind}-{4 * STEPS} finds {counts['found']}, random corners {counts['by chance']} "
        f"(boundary at {examples.module.head.closeness:g} of the way)"
    )
    is_missed = counts["found"] < MIN_FOUND * counts["planted"]
    results = {"misses planted examples": check_result(is_missed, seen)}
    if is_missed or not attacks:
        reason = "a strong attack misses planted examples as well" if is_missed else NO_ATTACK
        return {**results, "weak attack": {"seen": f"not checked: {reason}", "doubted": None}}
    hits = {name: count(examples, _for_two_classes(attack))["found"] for name, attack in attacks.items()}
    weak = {name for name, number in hits.items() if number < MIN_FOUND * counts["planted"]}
    summary = ", ".join(
        f"attack `{name}` {'is too weak: it ' if name in weak else ''}finds {number}" for name, number in hits.items()
    )
    return {**results, "weak attack": check_result(bool(weak), f"{summary} ({seen})")}


def _plant_examples(probe: ModelProbe) -> planted.PlantedExamples:
    """Plant examples at the smallest budget; under a detector halve it until half of the images have an example."""
    inputs = probe.inputs[:PLANTED_COUNT].clone()
    smallest = probe.budgets[0]  # at larger budgets random corners find more
    budgets = [smallest / 2**i for i in range(HALVINGS + 1 if isinstance(probe.decision, Filtering) else 1)]
    best: planted.PlantedExamples | None = None
    for budget in budgets:
        try:
            examples = planted.plant(probe.model, inputs, epsilon=budget, decision=probe.decision, seed=probe.seed)
        except planted.CannotPlant:
            if best is None and budget == budgets[-1]:
                raise
            continue
        if best is None or len(examples.inputs) > len(best.inputs):
            best = examples
        if 2 * len(examples.inputs) >= len(inputs):
            break
    assert best is not None
    return best


def _for_two_classes(attack: Perturbation) -> Perturbation:
    """Return an attack with the margin in place of the ratio ``dlr``, which needs more classes; it is its numerator."""
    return attack.model_copy(update={"loss": "margin"}) if getattr(attack, "loss", None) == "dlr" else attack


def _evades(attack: Perturbation) -> bool:
    return getattr(attack, "loss", None) in DETECTOR_LOSSES
