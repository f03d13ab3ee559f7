"""Profiles: named sets of sweeps, at strengths that fit the size of the images. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robustness.cards import renames
from robustness.errors import CardError, nearest
from robustness.perturbations.common_corruptions.severities import NAMES

Shape = tuple[int, int, int]
"""Channels, height and width."""
Sweeps = dict[str, dict[str, Any]]
"""Tables as in a card, by the sweep's name."""

SHAPES: dict[str, Shape] = {"digits": (1, 28, 28), "mnist": (1, 28, 28)}
"""Image shapes of data sets; a card on other data sets `shape` with its profile."""

SMALL = 64
"""Images with a shorter side below this are small."""

PGD: dict[str, Any] = {
    "kind": "pgd",
    "steps": 20,
    "relative_step_size": 2.0,
    "schedule": "linear",
    "stop_when_fooled": True,
}
"""On undefended models as strong as 40 steps of ε/10 with five restarts, at a tenth of the cost: docs/doubts.md."""


APGD: dict[str, Any] = {"kind": "autoattack", "attacks": ["apgd", "apgd-t"], "steps": 50, "target_classes": 2}
"""Within two points of AutoAttack, at no more time than PGD of ten steps with three restarts: docs/attacks.md."""


def _budgets(shape: Shape) -> list[float]:
    """
    Return the L∞ budgets that the field reports: 0.05 to 0.3 on small grey images, 2 to 16 of 255 on small ones in
    colour, half a level to 4 levels on larger ones.

    >>> _budgets((3, 32, 32)), _budgets((3, 224, 224))
    ([0.0078, 0.0157, 0.0314, 0.0627], [0.002, 0.0039, 0.0078, 0.0157])
    """
    if min(shape[1:]) < SMALL and shape[0] == 1:
        return [0.05, 0.1, 0.2, 0.3]
    return [round(levels / 255, 4) for levels in ((2, 4, 8, 16) if min(shape[1:]) < SMALL else (0.5, 1, 2, 4))]


def _noise(shape: Shape) -> list[float]:
    return [0.1, 0.2, 0.3, 0.4, 0.5] if shape[0] == 1 and min(shape[1:]) < SMALL else [0.02, 0.05, 0.1, 0.2, 0.3]


def _blurs(shape: Shape) -> list[float]:
    """
    Return deviations in pixels: those of ImageNet-C on 224 pixels, in proportion on others, larger on small images.

    >>> _blurs((3, 224, 224)), _blurs((1, 28, 28))
    ([1.0, 2.0, 4.0, 6.0], [0.5, 0.75, 1.0, 1.5])
    """
    side = min(shape[1:])
    return [0.5, 0.75, 1.0, 1.5] if side < SMALL else [round(s * min(side, 1800) / 224, 3) for s in (1, 2, 4, 6)]


def _default(shape: Shape) -> Sweeps:
    return {
        "normal": {"kind": "gaussian", "strengths": _noise(shape)},
        "uniform": {"kind": "uniform", "strengths": _noise(shape)},
        "fgsm": {"kind": "fgsm", "strengths": _budgets(shape)},
        "apgd": {**APGD, "strengths": _budgets(shape)},
        "brightness": {"kind": "brightness", "strengths": [-0.3, -0.15, 0.15, 0.3]},
        "contrast": {"kind": "contrast", "strengths": [-0.6, -0.3, 0.5, 1.0]},
        "blur": {"kind": "gaussian-blur", "strengths": _blurs(shape)},
    }


def _quick(shape: Shape) -> Sweeps:
    return {
        "normal": {"kind": "gaussian", "strengths": _noise(shape)[:3]},
        "fgsm": {"kind": "fgsm", "strengths": _budgets(shape)[:3]},
        "pgd": {**PGD, "strengths": _budgets(shape)[1:2]},
        "brightness": {"kind": "brightness", "strengths": [-0.15, 0.15]},
        "blur": {"kind": "gaussian-blur", "strengths": _blurs(shape)[1:2]},
    }


def _paper(shape: Shape) -> Sweeps:
    """Return what the papers sweep on small images, whatever the size: the noise of digits-noise, and FGSM."""
    tenths = [n / 10 for n in range(1, 11)]
    return {
        "normal": {"kind": "gaussian", "bound": 1.0, "strengths": tenths},
        "uniform": {"kind": "uniform", "strengths": tenths},
        "fgsm": {"kind": "fgsm", "strengths": [0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3]},
    }


def _thorough(shape: Shape) -> Sweeps:
    side = min(shape[1:])
    radii = [round(step * side / 32, 3) for step in (0.25, 0.5, 1.0)]
    cheap = {name: table for name, table in _default(shape).items() if name != "apgd"}
    return cheap | {
        "autoattack": {"kind": "autoattack", "strengths": _budgets(shape)},
        "autoattack-l2": {"kind": "autoattack", "norm": "l2", "strengths": radii},
        "rotation": {"kind": "rotation", "strengths": [-30.0, -15.0, 15.0, 30.0]},
        "shift": {
            "kind": "translation",
            "strengths": list(dict.fromkeys(max(1.0, side // part) for part in (20, 10, 5))),
        },
    }


def _corruptions(shape: Shape) -> Sweeps:
    """Return the 15 common corruptions and the 4 extra ones; their severities fit the size of the images."""
    return {name: {"kind": "corruption", "name": name, "strengths": [1, 2, 3, 4, 5]} for name in NAMES}


PROFILES: dict[str, Callable[[Shape], Sweeps]] = {
    "default": _default,
    "quick": _quick,
    "paper": _paper,
    "thorough": _thorough,
    "corruptions": _corruptions,
}
"""To add a profile: a function of the images' shape, and a line here; a project's own stand in its pyproject.toml."""


def sweeps(name: str, shape: Shape, own: Mapping[str, Any] | None = None) -> Sweeps:
    """
    Return the sweeps of a profile for images of a shape; a project's ``own`` profiles take precedence over the built-in
    ones.

    CardError if there is no such profile. Its tables are validated with the card.

    >>> list(sweeps("quick", (1, 28, 28)))
    ['normal', 'fgsm', 'pgd', 'brightness', 'blur']
    """
    own = own or {}
    if name in own:
        table = own[name]
        if not isinstance(table, Mapping) or not table or not all(isinstance(each, Mapping) for each in table.values()):
            raise CardError(
                f"tool.robustness.profiles.{name} must have a table per sweep, such as "
                f'[tool.robustness.profiles.{name}.noise] kind = "gaussian", strengths = [0.1], got {table!r}'
            )
        if "clean" in table:
            raise CardError(f"tool.robustness.profiles.{name}.clean: the clean pass is part of every sweep; remove it")
        if changes := renames.renamed(table, "sweeps", f"{renames.PROFILES}.{name}")[1]:
            raise CardError(renames.advice(Path("pyproject.toml"), changes))
        return {sweep: dict(each) for sweep, each in table.items()}
    if name not in PROFILES:
        known = list(dict.fromkeys([*PROFILES, *own]))
        raise CardError(f"profile = {name!r}: no such profile; known: {', '.join(known)}{nearest(name, known)}")
    return PROFILES[name](shape)
