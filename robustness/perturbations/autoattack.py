"""AutoAttack (Croce and Hein 2020): four attacks in turn, each on the images that the earlier ones left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from robustness.decisions import Filtering
from robustness.perturbations.apgd import APGD, TargetedAPGD
from robustness.perturbations.attack import NormBoundedAttack
from robustness.perturbations.base import Batch, Perturb, Perturbation, draw_seeds
from robustness.perturbations.fab import FAB
from robustness.perturbations.square import Square

if TYPE_CHECKING:
    from torch import Tensor

    from robustness.perturbations.ensemble import Ladder

MISLED_BY = "misled by "
"""Begins the note on how many images a member misled."""
UNTRIED = "untried"
"""What is counted of images that resist at a larger strength."""


Member = Literal["apgd", "apgd-t", "fab", "square"]


class AutoAttack(NormBoundedAttack):
    """
    AutoAttack: APGD on cross-entropy, APGD-T on the targeted DLR, FAB-T and Square, each on the images that are left.

    With fewer than four classes, where the targeted DLR is not defined, APGD-T raises the margin. The notes of each
    strength say how many images each member misled.

    Strengths share their work: they are tried from the largest down, each on the images that the larger one misled, and
    at every larger ε an image keeps the example of its smallest. So robust accuracy never rises with ε, and an image
    costs little more than one strength at which it resists. An image that resists at ε is not tried at smaller ones.
    Without ``share_strengths`` every strength is attacked for itself.

    For models with random outputs, version ``rand`` averages gradients over ``eot`` passes: APGD on cross-entropy and
    on DLR.

    >>> [member.kind for member in AutoAttack().members(10)]
    ['apgd', 'apgd-t', 'fab', 'square']
    >>> [member.kind for member in AutoAttack(attacks=("apgd", "apgd-t"), steps=20).members(10)]
    ['apgd', 'apgd-t']
    """

    kind: Literal["autoattack"] = "autoattack"
    version: Literal["standard", "rand"] = "standard"
    """``standard``, or ``rand`` for models with random outputs."""
    attacks: Annotated[tuple[Member, ...], Field(min_length=1)] = ("apgd", "apgd-t", "fab", "square")
    """The members of ``standard``, in their order; fewer are cheaper, and the result is no longer AutoAttack's."""
    steps: PositiveInt = 100
    """Steps of each run of the attacks with gradients."""
    queries: PositiveInt = 5000
    """Queries of Square."""
    target_classes: PositiveInt = 9
    """Target classes of APGD-T and FAB-T, the likeliest wrong ones."""
    eot: PositiveInt = 20
    """Passes over which ``rand`` averages each gradient."""
    share_strengths: bool = True
    """Whether the strengths of a sweep share their work."""
    family: ClassVar[str] = "attack"
    scalable: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check(self) -> AutoAttack:
        if len(set(self.attacks)) < len(self.attacks):
            raise ValueError(f"`attacks` must name each attack once, got {list(self.attacks)}")
        if self.version == "rand" and self.attacks != type(self).model_fields["attacks"].default:
            raise ValueError('`attacks` are those of version = "standard"; remove `attacks` or version = "rand"')
        return self

    def members(self, classes: int) -> list[Perturbation]:
        """Return the attacks, in their order, on a model of so many classes."""
        if self.version == "rand":
            plain = APGD(norm=self.norm, steps=self.steps, eot=self.eot)
            return [plain, plain.model_copy(update={"loss": "dlr" if classes > 2 else "margin"})]
        targeted = {"norm": self.norm, "steps": self.steps, "target_classes": self.target_classes}
        attacks: dict[Member, Perturbation] = {
            "apgd": APGD(norm=self.norm, steps=self.steps),
            "apgd-t": TargetedAPGD(**targeted, loss="dlr" if classes > 3 else "margin"),
            "fab": FAB(**targeted),
            "square": Square(norm=self.norm, queries=self.queries),
        }
        return [attacks[name] for name in self.attacks]

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw a seed per image."""
        return draw_seeds(generator, shape[0])

    def gradients(self, strengths: Sequence[object]) -> int:
        """Return the gradients of an image that resists: every member, at the largest strength or at all."""
        return self._rounds(strengths) * sum(member.gradients([0.1]) for member in self.members(10))

    def forward_passes(self, strengths: Sequence[object]) -> int:
        """Return the other passes of an image that resists."""
        return self._rounds(strengths) * sum(member.forward_passes([0.1]) for member in self.members(10))

    def _rounds(self, strengths: Sequence[object]) -> int:
        shared = self.share_strengths and all(isinstance(strength, int | float) for strength in strengths)
        return min(1, len(strengths)) if shared else len(strengths)

    def shares(self, batch: Batch) -> bool:
        """
        Return whether strengths share their work.

        Where more than the decision counts, each strength needs its own, strongest change: a detector, or another model
        that the examples are transferred to. A random model's examples have to be tried anew.
        """
        standard = self.version == "standard" and batch.source is None
        return self.share_strengths and standard and not isinstance(batch.decision, Filtering)

    def prepare(self, batch: Batch) -> Perturb:
        """Compute the clean logits; the first strength attacks for all, if strengths share their work."""
        import torch

        from robustness.perturbations.attack import model_logits
        from robustness.perturbations.ensemble import Ensemble, Ladder

        if batch.drawn is None:
            raise ValueError("`batch.drawn` must hold the seeds of the images, got None; sweep() draws them")
        with torch.no_grad():
            logits = model_logits(batch.attacked, batch.inputs)
        if batch.source is None:
            batch.clean_logits = logits
        members = self.members(batch.decision.log_probabilities(logits).shape[1])
        run = Ensemble(batch, members, logits, self.eot if self.version == "rand" else 1)
        shared = self.shares(batch)
        levels = sorted({float(s) for s in batch.strengths if isinstance(s, int | float) and s > 0})
        ladder: list[Ladder] = []
        faults: dict[str, Tensor] = {}

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            if not shared or isinstance(strength, torch.Tensor) or strength not in levels:
                radii = torch.as_tensor(strength, dtype=out.dtype, device=out.device).flatten().expand(len(out))
                images, misled_by = run.attack(run.correct & (radii > 0), radii)
            else:
                if not ladder:
                    ladder.append(Ladder(run, levels))
                    faults.update(batch.take_marks())
                for name, flags in faults.items():  # of the one search for all strengths
                    batch.count(name, flags)
                level = levels.index(strength)
                batch.count(UNTRIED, ladder[0].untried(level))
                images, misled_by = ladder[0].at(level)
            for number, member in enumerate(members):
                batch.count(f"{MISLED_BY}{name_of(member)}", misled_by == number)
            return out.copy_(images)

        return perturb


def name_of(member: Perturbation) -> str:
    """Return the kind of a member, with the loss of the second one of `rand`."""
    return f"{member.kind} on {member.loss}" if isinstance(member, APGD) and member.eot > 1 else member.kind
