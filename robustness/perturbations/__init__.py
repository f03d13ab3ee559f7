"""Every perturbation: its file, and one line here."""

from __future__ import annotations

from robustness.perturbations.advgan import AdvGAN, ConditionalGAN
from robustness.perturbations.base import Batch, Perturb, Perturbation, Step
from robustness.perturbations.clean import Clean
from robustness.perturbations.corruptions import Blur, Brightness, Contrast, Rotation, Shift
from robustness.perturbations.external import External
from robustness.perturbations.fgsm import FGSM
from robustness.perturbations.noise import Normal, Uniform
from robustness.perturbations.pgd import IFGSM, PGD, AdaptivePGD
from robustness.perturbations.stg import STG

KINDS: dict[str, type[Perturbation]] = {
    "clean": Clean,
    "normal": Normal,
    "uniform": Uniform,
    "fgsm": FGSM,
    "ifgsm": IFGSM,
    "pgd": PGD,
    "adaptive": AdaptivePGD,
    "gan": AdvGAN,
    "conditional-gan": ConditionalGAN,
    "stg": STG,
    "brightness": Brightness,
    "contrast": Contrast,
    "rotation": Rotation,
    "shift": Shift,
    "blur": Blur,
    "external": External,
}

__all__ = [
    "FGSM",
    "IFGSM",
    "KINDS",
    "PGD",
    "STG",
    "AdaptivePGD",
    "AdvGAN",
    "Batch",
    "Blur",
    "Brightness",
    "Clean",
    "ConditionalGAN",
    "Contrast",
    "External",
    "Normal",
    "Perturb",
    "Perturbation",
    "Rotation",
    "Shift",
    "Step",
    "Uniform",
]
