"""No perturbation: the reference of every sweep, stored once for all of them."""

from __future__ import annotations

from typing import ClassVar, Literal

from robustness.perturbations.base import Batch, Perturb, Perturbation


class Clean(Perturbation):
    """The images as they are; the only strength is 0."""

    kind: Literal["clean"] = "clean"
    family: ClassVar[str] = "clean"
    uses_model: ClassVar[bool] = False
    limits: ClassVar[tuple[float, float]] = (0.0, 0.0)
    strength_name: ClassVar[str] = "-"

    def prepare(self, batch: Batch) -> Perturb:
        """Copy: a model that edits its input in place must not reach the data."""
        return lambda strength, out: out.copy_(batch.inputs)
