"""Doubts about attacks: gradients that lead nowhere, and attacks that find less than others."""

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
from robustness.doubts.trial import SLACK, Answers, NotLookedFor, Trial, answer, perturb
from robustness.perturbations import FGSM, PGD, AdaptivePGD, Batch, Perturbation
from robustness.perturbations.fgsm import steepest_direction
from robustness.perturbations.losses import DETECTOR_LOSSES, Loss
from robustness.perturbations.pgd import Steps
from robustness.util.rng import Purpose, generator

FEW = 0.01
LOSSES: tuple[Loss, Loss] = "cross_entropy", "margin"
SCALED, SURE = 0.15, 2.5
"""By which share of the images attacks by the margin may beat those by cross-entropy on models with logits of a usual
scale, and by how many standard errors."""
FLAT, OF_FLAT = 0.1, 0.04
"""Probabilities are flat if confidence is above chance by less than this share of what accuracy is; what they allow."""
SPARED = 0.05
PLANTED, ENOUGH, CHANCE = 40, 0.95, 0.5
CLOSENESS = (0.5, 0.75, 0.9, 0.999)
"""Where the boundary of planted examples lies, on the way to them: the examples get harder."""
HALVINGS = 3
STEPS = 10
SIZES, APART = (0.1 / 255, 0.5 / 255, 2 / 255, 8 / 255), 0.5
"""Sizes of the steps of differences, and the share of what these show that gradients may miss: each bends somewhere."""
STRONG = PGD(steps=4 * STEPS, relative_step=2.0, schedule="linear", worst_case=True)
"""What finds all planted examples unless gradients are masked: on sound networks more than 40 steps of ε/10, thrice."""
NO_ATTACK = "the card has no iterated attack of its own (L∞, native strengths)"


def of_gradients(trial: Trial) -> Answers:
    """Look at cross-entropy's gradients themselves, and at probabilities that round to 1."""
    gradients, logits = trial.gradient(trial.inputs)
    size = gradients.flatten(1).abs().amax(1)
    zero, broken = int((size == 0).sum()), int((~size.isfinite()).sum())
    sure = int((trial.decision.log_probabilities(logits).gather(1, trial.labels[:, None]) == 0).sum())
    compared = _by_margin(trial, "FGSM", [FGSM(loss=loss) for loss in LOSSES], SLACK)
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


def of_losses(trial: Trial) -> Answers:
    """Hold attacks by cross-entropy against the same by the margin, which no scale of the logits changes."""
    steps = [PGD(steps=STEPS, random_start=False, loss=loss) for loss in LOSSES]
    once = [FGSM(loss=loss) for loss in LOSSES]
    scores = trial.decision.log_probabilities(trial.logits)
    right = float((trial.decision.predictions(trial.logits) == trial.labels).float().mean())
    chance = 1 / scores.shape[1]
    flat = float(scores.amax(1).exp().mean()) - chance < FLAT * (right - chance)
    least = OF_FLAT if flat else SCALED
    tried = [_by_margin(trial, f"PGD-{STEPS}", steps, least), _by_margin(trial, "FGSM", once, least)]
    return {"cross-entropy weaker than margin": max(tried, key=lambda each: bool(each["doubted"]))}


def _by_margin(trial: Trial, name: str, attacks: Sequence[Perturbation], least: float) -> dict[str, Any]:
    """Compare two attacks image by image, at each budget that leaves the first something to find."""
    doubted, worst = False, (-1.0, f"at ε {trial.epsilon / 4:g} {name} by cross-entropy misleads all images")
    for budget in trial.budgets:
        plain = trial.hits(attacks[0], budget)
        if (before := float(plain.float().mean())) > 1 - least:
            continue
        margin = trial.hits(attacks[1], budget)
        after, differing = float(margin.float().mean()), int((plain != margin).sum())
        more = int(margin.sum()) - int(plain.sum())
        doubted |= more >= least * len(plain) and more > SURE * sqrt(differing)
        seen = f"at ε {budget:g} {name} by cross-entropy misleads {before:.1%}, by the margin {after:.1%}"
        worst = max(worst, (after - before, seen))
    return answer(doubted, worst[1])


def _blank(model: nn.Module) -> str:
    """Name layers that let nothing through, as the heads that some libraries leave for a training to fill."""
    blank = [
        name for name, module in model.named_modules()
        if isinstance(weight := getattr(module, "weight", None), Tensor) and weight.dim() > 1 and not weight.any()
    ]  # fmt: skip
    return f"; all weights of {abbreviate(blank)} are zero, which were never trained" if blank else ""


def of_differences(trial: Trial) -> Answers:
    """
    Hold gradients of the margin against differences in small steps along directions that are drawn.

    At some size of steps the two agree for any model that is smooth or bends in few places: steps too small are lost in
    last bits, those too large bend away.
    """
    if trial.random or not trial.logits.isfinite().all():
        raise NotLookedFor("the forward is not deterministic, or its outputs are no numbers")
    gradients, _ = trial.gradient(trial.inputs, "margin")
    draws, errors = generator(trial.seed, Purpose.DOUBTED, 5), {}
    inward = torch.where(trial.inputs > 0.5, -1.0, 1.0)  # no step leaves [0, 1]
    directions = [inward * (planted.corners(draws, trial.inputs) > 0) for _ in range(2)]
    scores = trial.decision.log_probabilities(trial.logits)
    other = scores.scatter(1, trial.labels[:, None], -torch.inf).argmax(1)

    def margin(images: Tensor) -> Tensor:
        scores = trial.decision.log_probabilities(trial.outputs(images)).double()
        return (scores.gather(1, other[:, None]) - scores.gather(1, trial.labels[:, None])).squeeze(1)

    before = margin(trial.inputs)
    for size in SIZES:
        seen = torch.stack([(margin(trial.inputs + size * each) - before) / size for each in directions])
        due = torch.stack([(gradients * each).flatten(1).double().sum(1) for each in directions])
        apart, scale = (seen - due).square().mean(0), seen.square().mean(0) + due.square().mean(0)
        errors[size] = float((2 * apart / scale.clamp(min=1e-300)).median())
    size = min(errors, key=lambda each: errors[each])
    if isnan(errors[size]):
        raise NotLookedFor("a few grey levels away outputs are no numbers")
    seen_ = f"gradients differ by {errors[size]:.2g} of what steps of {size * 255:.2g} grey levels show"
    return {"wrong gradients": answer(errors[size] > APART, seen_)}


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
        images = step.along(images, steepest_direction(gradients, "linf"))
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


def of_own_attacks(trial: Trial, attacks: Mapping[str, Perturbation]) -> Answers:
    """Hold the card's own attacks against FGSM."""
    if not attacks:
        raise NotLookedFor(NO_ATTACK)
    few = trial.of_first(PLANTED)
    each = [
        few.weaker(
            f"attack `{name}`", few.shares(attack, evading=_evades(attack)),
            "FGSM", few.shares(FGSM(), evading=_evades(attack)),
        )
        for name, attack in attacks.items()
    ]  # fmt: skip
    said = [one for one in each if one["doubted"]] or each
    return {"attack weaker than FGSM": answer(said[0]["doubted"], "; ".join(one["seen"] for one in said))}


def of_planted(trial: Trial, attacks: Mapping[str, Perturbation]) -> Answers:
    """Let a strong attack look for planted examples, and the card's own for the hardest of which that one finds all."""
    there = _planted(trial)
    strong = AdaptivePGD(steps=4 * STEPS) if isinstance(there.decision, Filtering) else STRONG

    def count(at: planted.Planted, attack: Perturbation) -> dict[str, int]:
        def run(module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
            drawn = trial.drawn(attack, len(inputs))
            return perturb(
                Batch(module, inputs, labels, drawn, decision=at.decision, at_once=trial.at_once), attack, at.epsilon
            )

        return planted.strength(at, run, evading=_evades(attack) or attack is strong)

    tested: tuple[planted.Planted, dict[str, int]] | None = None
    for closeness in CLOSENESS:
        counts = count(at := there.at(closeness), strong)
        if counts["by chance"] > CHANCE * counts["planted"]:
            continue
        if tested is None or counts["found"] == counts["planted"]:
            tested = at, counts
        if counts["found"] < counts["planted"]:
            break
    what = f"{len(there.inputs)} planted examples at ε {there.epsilon:g}"
    if tested is None:
        raise NotLookedFor(f"random corners find more than half of {what}: they are too easy to find")
    at, counts = tested
    seen = (
        f"of {what} {strong.kind}-{4 * STEPS} finds {counts['found']}, random corners {counts['by chance']} "
        f"(boundary at {at.module.readout.closeness:g} of the way)"
    )
    missed = counts["found"] < ENOUGH * counts["planted"]
    answers = {"misses planted examples": answer(missed, seen)}
    if missed or not attacks:
        why = "a strong attack misses planted examples as well" if missed else NO_ATTACK
        return {**answers, "weak attack": {"seen": f"not looked for: {why}", "doubted": None}}
    found = {name: count(at, attack)["found"] for name, attack in attacks.items()}
    weak = {name: each for name, each in found.items() if each < ENOUGH * counts["planted"]}
    listed = ", ".join(
        f"attack `{name}` {'is too weak: it ' if name in weak else ''}finds {each}" for name, each in found.items()
    )
    return {**answers, "weak attack": answer(bool(weak), f"{listed} ({seen})")}


def _planted(trial: Trial) -> planted.Planted:
    """Plant examples at the least budget; under a detector at less, until half of them have a corner that it keeps."""
    few, size = trial.inputs[:PLANTED].clone(), trial.budgets[0]  # random corners find more of them at larger ones
    sizes = [size / 2**i for i in range(HALVINGS + 1 if isinstance(trial.decision, Filtering) else 1)]
    most: planted.Planted | None = None
    for size in sizes:
        try:
            there = planted.plant(trial.model, few, epsilon=size, decision=trial.decision, seed=trial.seed)
        except planted.CannotPlant:
            if most is None and size == sizes[-1]:
                raise
            continue
        if most is None or len(there.inputs) > len(most.inputs):
            most = there
        if 2 * len(there.inputs) >= len(few):
            break
    assert most is not None
    return most


def _evades(attack: Perturbation) -> bool:
    return getattr(attack, "loss", None) in DETECTOR_LOSSES
