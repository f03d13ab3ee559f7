"""Which module fits what a perturbation needs of the attacked model: AdvGAN's generator, or the pixels of a patch."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from robustness.perturbations import Perturbation
from robustness.util import source_files

if TYPE_CHECKING:
    from torch import nn

    from robustness.data.images import Images


def fitting_module(perturbation: Perturbation) -> ModuleType:
    """Return the module whose `unfitted`, `fit`, `save` and `load` serve a perturbation that needs fitting."""
    from robustness.workspace import generators, patches

    return {"generators": generators, "patches": patches}[_name(perturbation)]


def product(perturbation: Perturbation) -> str:
    """Return what is fitted, for messages. Needs no torch."""
    return {"generators": "generator", "patches": "square"}[_name(perturbation)]


def code_hash(perturbation: Perturbation) -> str:
    """Return the hash of the code that fits it. Needs no torch."""
    return source_files.content_hash(Path(__file__).with_name(f"{_name(perturbation)}.py"))


def unfitted(images: Images, perturbation: Perturbation) -> nn.Module | None:
    """Return what a perturbation needs fitted, before it is; None if it needs nothing."""
    if not perturbation.needs_fitting:
        return None
    module: nn.Module = fitting_module(perturbation).unfitted(images, perturbation)
    return module


def _name(perturbation: Perturbation) -> str:
    from robustness.perturbations.advgan import AdvGAN
    from robustness.perturbations.patch import Patch

    assert isinstance(perturbation, AdvGAN | Patch)
    return "patches" if isinstance(perturbation, Patch) else "generators"
