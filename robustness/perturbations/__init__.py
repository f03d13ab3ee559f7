"""
Every perturbation: its file, and one line here.

A class is imported when its kind is first looked up. Other distributions add kinds by entry points of the group
`robustness.perturbations`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robustness.perturbations.base import FAMILIES, Batch, Perturb, Perturbation, Step
from robustness.util.registry import Registry, import_object

if TYPE_CHECKING:
    from robustness.perturbations.advgan import AdvGAN, ConditionalAdvGAN
    from robustness.perturbations.apgd import APGD, TargetedAPGD
    from robustness.perturbations.clean import Clean
    from robustness.perturbations.common_corruptions.corruption import CommonCorruption
    from robustness.perturbations.corruptions import Brightness, Contrast, GaussianBlur, Rotation, Translation
    from robustness.perturbations.external import External
    from robustness.perturbations.fab import FAB
    from robustness.perturbations.fgsm import FGSM
    from robustness.perturbations.noise import GaussianNoise, UniformNoise
    from robustness.perturbations.patch import Patch
    from robustness.perturbations.pgd import IFGSM, PGD, AdaptivePGD
    from robustness.perturbations.smoothing import Smoothing
    from robustness.perturbations.square import Square
    from robustness.perturbations.stg import STG

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "IFGSM",
    "PERTURBATIONS",
    "PGD",
    "STG",
    "AdaptivePGD",
    "AdvGAN",
    "AutoAttack",
    "Batch",
    "Brightness",
    "Clean",
    "CommonCorruption",
    "ConditionalAdvGAN",
    "Contrast",
    "External",
    "GaussianBlur",
    "GaussianNoise",
    "Patch",
    "Perturb",
    "Perturbation",
    "Rotation",
    "Smoothing",
    "Square",
    "Step",
    "TargetedAPGD",
    "Translation",
    "UniformNoise",
]


def _problem(kind: str, candidate: Any) -> str:
    """Return why an entry point is no perturbation, or ""."""
    if not (isinstance(candidate, type) and issubclass(candidate, Perturbation)):
        return f"must be a subclass of robustness.perturbations.Perturbation, got {candidate!r}; name the class"
    default = candidate.model_fields["kind"].default
    if default != kind:
        return f'its field `kind` must have the default {kind!r}, got {default!r}; declare kind: Literal["{kind}"]'
    if (family := getattr(candidate, "family", None)) not in FAMILIES:
        return (
            f"its `family` must be one of {', '.join(FAMILIES)}, got {family!r}; it says which suite holds its claims"
        )
    return ""


PERTURBATIONS: Registry[type[Perturbation]] = Registry(
    "robustness.perturbations",
    {
        "clean": "robustness.perturbations.clean:Clean",
        "gaussian": "robustness.perturbations.noise:GaussianNoise",
        "uniform": "robustness.perturbations.noise:UniformNoise",
        "fgsm": "robustness.perturbations.fgsm:FGSM",
        "ifgsm": "robustness.perturbations.pgd:IFGSM",
        "pgd": "robustness.perturbations.pgd:PGD",
        "adaptive-pgd": "robustness.perturbations.pgd:AdaptivePGD",
        "apgd": "robustness.perturbations.apgd:APGD",
        "apgd-t": "robustness.perturbations.apgd:TargetedAPGD",
        "autoattack": "robustness.perturbations.autoattack:AutoAttack",
        "fab": "robustness.perturbations.fab:FAB",
        "smoothing": "robustness.perturbations.smoothing:Smoothing",
        "square": "robustness.perturbations.square:Square",
        "advgan": "robustness.perturbations.advgan:AdvGAN",
        "conditional-advgan": "robustness.perturbations.advgan:ConditionalAdvGAN",
        "patch": "robustness.perturbations.patch:Patch",
        "stg": "robustness.perturbations.stg:STG",
        "brightness": "robustness.perturbations.corruptions:Brightness",
        "contrast": "robustness.perturbations.corruptions:Contrast",
        "rotation": "robustness.perturbations.corruptions:Rotation",
        "translation": "robustness.perturbations.corruptions:Translation",
        "gaussian-blur": "robustness.perturbations.corruptions:GaussianBlur",
        "corruption": "robustness.perturbations.common_corruptions.corruption:CommonCorruption",
        "external": "robustness.perturbations.external:External",
    },
    _problem,
)


def __getattr__(name: str) -> Any:
    """Import a built-in perturbation's class by its own name: ``from robustness.perturbations import FGSM``."""
    for target in PERTURBATIONS.built_in.values():
        if str(target).endswith(f":{name}"):
            return import_object(str(target))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
