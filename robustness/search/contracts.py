"""Contracts of perturbations, tested on a card's model: pixel range, ball, identity, determinism, no side effects."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import torch
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from torch import Tensor

from robustness.classifiers.modules import channels_last, restored_afterwards, state_hash
from robustness.decisions import Argmax
from robustness.perturbations import STG, AdvGAN, GaussianNoise, Perturbation, UniformNoise
from robustness.sweep.batch import SweepBatches
from robustness.sweep.batching import single_threaded
from robustness.sweep.runner import module_dict
from robustness.workspace import attack_inputs

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.workspace.workspace import Workspace

# The number of cases per contract. All contracts share their cases; strength 0 and the repetition need passes of their
# own, and are tested on the first cases.
CONTRACTS = {
    "inside [0, 1]": 5, "inside its ball": 5, "identity at strength 0": 2, "deterministic": 2, "leaves no trace": 5,
}  # fmt: skip
TOLERANCE = 1e-5
IMAGE_COUNT = 8


def find_violations(workspace: Workspace, card: Card, sweep: str) -> dict[str, str]:
    """
    Search with Hypothesis for a strength and a seed at which a sweep's perturbation violates a contract.

    Return one sentence per violated contract; uses the first 8 test images.
    """
    probe = _ContractProbe(workspace, card, sweep)
    with single_threaded(), restored_afterwards(probe.modules, workspace.device) as lent:
        channels_last(lent, lambda: probe.batches((0.0,), 0).accepts(lent))
        return _find_violations(probe)


def _find_violations(probe: _ContractProbe) -> dict[str, str]:
    violations: dict[str, str] = {}
    for contract, examples in CONTRACTS.items():

        def is_violated(case: tuple[float, int], contract: str = contract) -> bool:
            return bool(probe.violation(contract, *case))

        cases = st.tuples(probe.strengths(), st.integers(0, 1000))
        quiet = settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        try:
            strength, seed = find(cases, is_violated, settings=quiet, random=random.Random(0))
        except NoSuchExample:
            continue
        violations[contract] = f"at strength {strength:g} with seed {seed}: {probe.violation(contract, strength, seed)}"
    return violations


class _ContractProbe:
    """One perturbation on a few images, at any strength and seed."""

    def __init__(self, workspace: Workspace, card: Card, sweep: str) -> None:
        job = workspace.resolve(card, sweep)
        images = job.images
        self._images = images.select(list(range(min(IMAGE_COUNT, len(images)))), images.name)
        self._perturbation, self._device = job.perturbation, workspace.device
        extra_inputs = attack_inputs.attack_inputs(workspace, job).arguments
        directions = extra_inputs.get("directions")
        self._directions = None if directions is None else directions[:IMAGE_COUNT]
        self._source_decision = extra_inputs.get("source_decision") or card.file.model.decision
        self._decision = card.file.model.decision
        self.modules = module_dict(
            workspace.classifier(card).module, extra_inputs.get("source"), extra_inputs.get("generator")
        )
        self._cache: dict[tuple[float, int], tuple[Tensor, Tensor, str]] = {}

    def strengths(self) -> st.SearchStrategy[float]:
        """Return a strategy of the strengths that the perturbation accepts."""
        low, high = self._perturbation.strength_range
        if isinstance(self._perturbation, STG):
            return st.integers(0, 20).map(float)
        if self._perturbation.whole:
            return st.integers(int(low), int(high)).map(float)
        return st.floats(max(low, -10.0), min(high, 10.0), width=32)

    def violation(self, contract: str, strength: float, seed: int) -> str:
        """Return how a contract is violated, empty if it holds."""
        inputs, perturbed, side_effects = self._case(0.0 if contract.startswith("identity") else strength, seed)
        if contract == "leaves no trace":
            return side_effects
        if contract == "deterministic":
            repeated = self._perturbed(strength, seed)[1]
            return "" if torch.equal(perturbed, repeated) else "the same seed gave other images"
        if contract == "inside [0, 1]":
            if not getattr(self._perturbation, "clip", True):  # the card says so
                return ""
            out_of_range = not bool(((perturbed >= 0) & (perturbed <= 1)).all())
            return f"values from {perturbed.min():g} to {perturbed.max():g}" if out_of_range else ""
        if contract == "identity at strength 0":
            return "" if torch.equal(inputs, perturbed) else "the images changed"
        change, radius = _max_change(self._perturbation, perturbed - inputs), _radius(self._perturbation, strength)
        return f"changed by {change:g}, more than {radius:g}" if change > radius * (1 + TOLERANCE) + TOLERANCE else ""

    def _case(self, strength: float, seed: int) -> tuple[Tensor, Tensor, str]:
        """Perturb the images; return inputs, outputs and side effects, cached because contracts share their cases."""
        if (strength, seed) not in self._cache:
            before = state_hash(self.modules), [m.training for m in self.modules.modules()]
            inputs, perturbed = self._perturbed(strength, seed)
            after = state_hash(self.modules), [m.training for m in self.modules.modules()]
            gradients = [name for name, p in self.modules.named_parameters() if p.grad is not None]
            side_effects = "weights, buffers or modes changed" if before != after else ", ".join(gradients)
            self._cache[strength, seed] = inputs, perturbed, side_effects
        return self._cache[strength, seed]

    def batches(self, strengths: tuple[float, ...], seed: int) -> SweepBatches:
        """Return the sweep of the images at some strengths."""
        return SweepBatches(
            self._images, self._perturbation, strengths, "default", seed, self._device, len(self._images),
            self._decision or Argmax(), self._source_decision, self._directions,
        )  # fmt: skip

    def _perturbed(self, strength: float, seed: int) -> tuple[Tensor, Tensor]:
        with restored_afterwards(self.modules, self._device) as lent:
            batch = self.batches((strength,), seed).attack_batch(lent, 0, len(self._images))
            perturb = self._perturbation.prepare(batch)
            with torch.no_grad():
                return batch.inputs, perturb(strength, torch.empty_like(batch.inputs))


def _radius(perturbation: Perturbation, strength: float) -> float:
    """Return the radius of the norm ball of a strength, infinite if the perturbation has none."""
    if isinstance(perturbation, GaussianNoise):
        return math.inf if perturbation.bound is None else strength * perturbation.bound
    return (
        strength if isinstance(perturbation, UniformNoise | AdvGAN | STG) or hasattr(perturbation, "norm") else math.inf
    )


def _max_change(perturbation: Perturbation, delta: Tensor) -> float:
    """Return the largest change of an image in the perturbation's norm."""
    flat = delta.flatten(1)
    if isinstance(perturbation, STG):
        return float((flat != 0).sum(1).max())
    if getattr(perturbation, "norm", "linf") == "l2":
        return float(torch.linalg.vector_norm(flat, dim=1).max())
    return float(flat.abs().max())
