"""STG: one input feature at a time, the one with the largest gradient of a smooth target (Hosseini et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from robustness.perturbations.attack import Attack
from robustness.perturbations.base import Batch, Perturb

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustness.perturbations.feature_path import FeaturePath


def stg(classifier: nn.Module, inputs: Tensor, labels: Tensor, *, features: int) -> Tensor:
    """
    Change at most ``features`` features (one channel of one pixel) of each image, until its class turns.

    ``inputs`` (N, C, H, W) in [0, 1]. The target is smooth: all wrong classes alike. In each step the feature
    with the largest gradient that can still move the way that helps goes to its bound, 0 or 1; none moves twice.

    >>> import torch
    >>> linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = linear[1].weight.data.copy_(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    >>> stg(linear, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]), features=1).flatten().tolist()
    [0.5, 0.0]
    """
    import torch

    batch = Batch(classifier, inputs, labels)
    return STG().prepare(batch)(float(features), torch.empty_like(inputs))


class STG(Attack):
    """
    STG at a budget of features: the strength is how many may change, a whole number.

    All budgets share one path, which is computed once, up to the largest budget.
    """

    kind: Literal["stg"] = "stg"
    family: ClassVar[str] = "attack"
    limits: ClassVar[tuple[float, float]] = (0.0, math.inf)
    strength_name: ClassVar[str] = "features"
    meaning: ClassVar[str] = "is a number of features"

    def gradients(self, strengths: Sequence[object]) -> int:
        """Return one gradient per feature, up to the largest budget."""
        return int(max((s for s in strengths if isinstance(s, int | float)), default=1))

    def prepare(self, batch: Batch) -> Perturb:
        """Start a path at each image; each strength replays it up to its budget."""
        from robustness.perturbations.feature_path import FeaturePath

        path: FeaturePath = FeaturePath(batch)

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            import torch

            budget = torch.as_tensor(strength, dtype=out.dtype, device=out.device).flatten().expand(len(out))
            if bool((budget != budget.round()).any()):
                wrong = float(budget[budget != budget.round()][0])
                raise ValueError(f"`strengths` of stg must be whole numbers of features, got {wrong:g}; round it")
            return path.at(budget, out)

        return perturb
