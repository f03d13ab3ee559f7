"""A common corruption as a perturbation: its strengths are the severities 1 to 5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator

from robustness.errors import nearest
from robustness.perturbations.base import Batch, Perturb, Perturbation, draw_seeds
from robustness.perturbations.common_corruptions.severities import NAMES, parameters

if TYPE_CHECKING:
    from torch import Tensor

WORST = 5
"""The largest severity."""
DRAWN_ONCE = ("gaussian-noise", "impulse-noise", "speckle-noise")
"""Those that draw a single array, whose numbers do not depend on the severity."""


def _known(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"`name` must be one of {', '.join(NAMES)}, got {name!r}{nearest(name, NAMES)}")
    return name


Name = Annotated[str, AfterValidator(_known)]


def corrupt(inputs: Tensor, name: str, severity: int, *, seed: int = 0) -> Tensor:
    """
    Corrupt images as a camera, the weather or a file format would (Hendrycks and Dietterich 2019).

    Args:
        inputs: Images (N, C, H, W) in [0, 1].
        name: One of the 19 corruptions of `severities.NAMES`.
        severity: 0 (the images themselves) to 5.
        seed: The seed of the random numbers. Those of an image depend on its position.

    Returns:
        The corrupted images, (N, C, H, W) in [0, 1].

    Raises:
        ValueError: If there is no such corruption or severity.

    >>> import torch
    >>> image = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2)
    >>> corrupt(image, "contrast", 2).flatten().tolist()  # half as far from the mean, 0.4
    [0.30000001192092896, 0.5]
    """
    import torch

    from robustness.util.rng import Purpose, generator

    corruption = CommonCorruption(name=_known(name))
    drawn = torch.from_numpy(draw_seeds(generator(seed, Purpose.NOISE), len(inputs))).to(inputs.device)
    batch = Batch(torch.nn.Identity(), inputs, torch.zeros(len(inputs), dtype=torch.long), drawn)
    return corruption.prepare(batch)(severity, torch.empty_like(inputs))


class CommonCorruption(Perturbation):
    """
    One of the 19 corruptions of CIFAR-10-C and ImageNet-C (Hendrycks and Dietterich 2019) at severities 1 to 5.

    Images whose shorter side is below 64 pixels are corrupted with CIFAR-10-C's parameters, larger ones with
    ImageNet-C's. Each image has its own random numbers, the same at every severity. The result is not rounded to bytes.

    >>> CommonCorruption(name="fog").strength_range
    (0.0, 5.0)
    """

    kind: Literal["corruption"] = "corruption"
    name: Name
    """Which corruption: ``fog``, ``jpeg-compression``, …"""
    family: ClassVar[str] = "corruption"
    limits: ClassVar[tuple[float, float]] = (0.0, float(WORST))
    strength_name: ClassVar[str] = "severity"
    meaning: ClassVar[str] = "is 1 to 5, or 0 for the image itself"
    whole: ClassVar[bool] = True
    uses_model: ClassVar[bool] = False

    def distributions(self) -> set[str]:
        """Pillow, where it resizes or compresses."""
        return {"PIL"} if self.name in ("pixelate", "jpeg-compression") else set()

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw a seed per image."""
        return draw_seeds(generator, shape[0])

    def prepare(self, batch: Batch) -> Perturb:
        """Severities share the seeds, and what is drawn once."""
        import torch

        from robustness.perturbations.common_corruptions.draws import Draws, SharedDraws
        from robustness.perturbations.common_corruptions.functions import FUNCTIONS

        if batch.drawn is None:
            raise ValueError("`batch.drawn` must hold the seeds of the images, got None; sweep() draws them")
        seeds, inputs = batch.drawn.long().tolist(), batch.inputs
        shared = SharedDraws(seeds, inputs.device) if self.name in DRAWN_ONCE else None

        def corrupted(severity: int, rows: list[int]) -> Tensor:
            arguments = parameters(self.name, severity, *inputs.shape[-2:])
            draws = Draws([seeds[row] for row in rows], inputs.device)
            if shared is not None and len(rows) == len(seeds):
                draws = shared
            return FUNCTIONS[self.name](inputs[rows], draws, *arguments).clamp(0, 1)

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            severities = torch.as_tensor(strength).flatten().expand(len(out)).tolist()
            out.copy_(inputs)
            for severity in sorted(set(severities) - {0}):
                if severity not in range(1, WORST + 1):
                    raise ValueError(
                        f"`strengths` of corruption must be whole numbers from 0 to {WORST}, got {severity:g}; each is "
                        "a severity"
                    )
                rows = [row for row, each in enumerate(severities) if each == severity]
                out[rows] = corrupted(int(severity), rows)
            return out

        return perturb
