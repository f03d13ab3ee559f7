"""What every perturbation of a card must keep, tried on its model: ball, box, identity, determinism, no trace."""

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
from robustness.perturbations import STG, AdvGAN, Normal, Perturbation, Uniform
from robustness.sweep.batch import SweepBatches
from robustness.sweep.batching import single_threaded
from robustness.sweep.runner import module_dict
from robustness.workspace import attack_inputs

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.workspace.workspace import Workspace

CONTRACTS = {
    "inside [0, 1]": 8, "inside its ball": 8, "identity at strength 0": 2, "deterministic": 4, "leaves no trace": 8,
}  # fmt: skip
"""
How many cases are tried for each contract. All contracts share their cases; strength 0 and the repetition cost passes
of their own, and are tried on the first of these.
"""
SLACK = 1e-5
COUNT = 8


def broken(harness: Workspace, card: Card, sweep: str) -> dict[str, str]:
    """
    Look with Hypothesis for a strength and a seed at which a sweep's perturbation breaks a contract.

    Gives one sentence for each contract that is broken; on the first 8 test images.
    """
    tried = _Tried(harness, card, sweep)
    with single_threaded(), restored_afterwards(tried.modules, harness.device) as lent:
        channels_last(lent, lambda: tried.cells((0.0,), 0).works(lent))
        return _broken(tried)


def _broken(tried: _Tried) -> dict[str, str]:
    found: dict[str, str] = {}
    for contract, examples in CONTRACTS.items():

        def breaks(case: tuple[float, int], contract: str = contract) -> bool:
            return bool(tried.breaks(contract, *case))

        cases = st.tuples(tried.strengths(), st.integers(0, 1000))
        quiet = settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        try:
            strength, seed = find(cases, breaks, settings=quiet, random=random.Random(0))
        except NoSuchExample:
            continue
        found[contract] = f"at strength {strength:g} with seed {seed}: {tried.breaks(contract, strength, seed)}"
    return found


class _Tried:
    """One perturbation on a few images, at any strength and seed."""

    def __init__(self, harness: Workspace, card: Card, sweep: str) -> None:
        images = harness.images(card)
        self._images = images.select(list(range(min(COUNT, len(images)))), images.name)
        self._perturbation, self._device = card.perturbation(sweep), harness.device
        given = attack_inputs.attack_inputs(harness, card, sweep).arguments
        directions = given.get("directions")
        self._directions = None if directions is None else directions[:COUNT]
        self._source_decision = given.get("source_decision") or card.file.model.decision
        self._decision = card.file.model.decision
        self.modules = module_dict(harness.classifier(card).module, given.get("source"), given.get("generator"))
        self._kept: dict[tuple[float, int], tuple[Tensor, Tensor, str]] = {}

    def strengths(self) -> st.SearchStrategy[float]:
        """Draw strengths that the perturbation takes."""
        low, high = self._perturbation.strength_range
        if isinstance(self._perturbation, STG):
            return st.integers(0, 20).map(float)
        return st.floats(max(low, -10.0), min(high, 10.0), width=32)

    def breaks(self, contract: str, strength: float, seed: int) -> str:
        """Say how a contract is broken; nothing where it is kept."""
        inputs, perturbed, left = self._once(0.0 if contract.startswith("identity") else strength, seed)
        if contract == "leaves no trace":
            return left
        if contract == "deterministic":
            again = self._perturbed(strength, seed)[1]
            return "" if torch.equal(perturbed, again) else "the same seed gave other images"
        if contract == "inside [0, 1]":
            if not getattr(self._perturbation, "clip", True):  # the card says so
                return ""
            outside = not bool(((perturbed >= 0) & (perturbed <= 1)).all())
            return f"values from {perturbed.min():g} to {perturbed.max():g}" if outside else ""
        if contract == "identity at strength 0":
            return "" if torch.equal(inputs, perturbed) else "the images changed"
        size, radius = _size(self._perturbation, perturbed - inputs), _radius(self._perturbation, strength)
        return f"changed by {size:g}, more than {radius:g}" if size > radius * (1 + SLACK) + SLACK else ""

    def _once(self, strength: float, seed: int) -> tuple[Tensor, Tensor, str]:
        """Perturb, and say what was left behind; once for all contracts, which are tried at the same cases."""
        if (strength, seed) not in self._kept:
            before = state_hash(self.modules), [m.training for m in self.modules.modules()]
            inputs, perturbed = self._perturbed(strength, seed)
            after = state_hash(self.modules), [m.training for m in self.modules.modules()]
            left = [name for name, p in self.modules.named_parameters() if p.grad is not None]
            said = "weights, buffers or modes changed" if before != after else ", ".join(left)
            self._kept[strength, seed] = inputs, perturbed, said
        return self._kept[strength, seed]

    def cells(self, strengths: tuple[float, ...], seed: int) -> SweepBatches:
        """Return what prepares the images for a sweep of some strengths."""
        return SweepBatches(
            self._images, self._perturbation, strengths, "native", seed, self._device, len(self._images),
            self._decision or Argmax(), self._source_decision, self._directions,
        )  # fmt: skip

    def _perturbed(self, strength: float, seed: int) -> tuple[Tensor, Tensor]:
        with restored_afterwards(self.modules, self._device) as lent:
            batch = self.cells((strength,), seed).prepared(lent, 0, len(self._images))
            perturb = self._perturbation.prepare(batch)
            with torch.no_grad():
                return batch.inputs, perturb(strength, torch.empty_like(batch.inputs))


def _radius(perturbation: Perturbation, strength: float) -> float:
    """Return the radius of the ball that a strength stands for; infinite where it stands for none."""
    if isinstance(perturbation, Normal):
        return math.inf if perturbation.bound is None else strength * perturbation.bound
    return strength if isinstance(perturbation, Uniform | AdvGAN | STG) or hasattr(perturbation, "norm") else math.inf


def _size(perturbation: Perturbation, delta: Tensor) -> float:
    """Return the largest change of an image, in the norm of the perturbation's budget."""
    flat = delta.flatten(1)
    if isinstance(perturbation, STG):
        return float((flat != 0).sum(1).max())
    if getattr(perturbation, "norm", "linf") == "l2":
        return float(torch.linalg.vector_norm(flat, dim=1).max())
    return float(flat.abs().max())
