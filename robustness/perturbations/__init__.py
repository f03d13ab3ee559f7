"""Every perturbation: its file, and one line here."""

from __future__ import annotations

from robustness.perturbations.base import Batch, Perturb, Perturbation, Step
from robustness.perturbations.clean import Clean
from robustness.perturbations.noise import Normal, Uniform

KINDS: dict[str, type[Perturbation]] = {
    "clean": Clean,
    "normal": Normal,
    "uniform": Uniform,
}

__all__ = ["KINDS", "Batch", "Clean", "Normal", "Perturb", "Perturbation", "Step", "Uniform"]
