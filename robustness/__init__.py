"""
Test PyTorch image classifiers against robustness thresholds.

The names below are the public interface; each is imported when it is first used. Everything else may change.

>>> import robustness
>>> robustness.judge.__module__
'robustness.claims'
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustness.cards import Card as Card
    from robustness.cards import Claim as Claim
    from robustness.cards import load as load_card  # noqa: F401
    from robustness.claims import Verdict as Verdict
    from robustness.claims import judge as judge
    from robustness.data import DatasetReader as DatasetReader
    from robustness.data import DataSpec as DataSpec
    from robustness.data import Images as Images
    from robustness.data import from_arrays as from_arrays
    from robustness.data import load as load_images  # noqa: F401
    from robustness.errors import RobustnessError as RobustnessError
    from robustness.metrics.evidence import Evidence as Evidence
    from robustness.metrics.metric import Measurement as Measurement
    from robustness.metrics.registry import measure as measure
    from robustness.perturbations import Perturbation as Perturbation
    from robustness.sweep.runner import run_sweep as run_sweep
    from robustness.workspace.store import Store as Store
    from robustness.workspace.workspace import Workspace as Workspace

__version__ = "0.1.0"

PUBLIC = {
    "Card": "robustness.cards:Card",
    "Claim": "robustness.cards:Claim",
    "DataSpec": "robustness.data:DataSpec",
    "DatasetReader": "robustness.data:DatasetReader",
    "Evidence": "robustness.metrics.evidence:Evidence",
    "Images": "robustness.data:Images",
    "Measurement": "robustness.metrics.metric:Measurement",
    "Perturbation": "robustness.perturbations:Perturbation",
    "RobustnessError": "robustness.errors:RobustnessError",
    "Store": "robustness.workspace.store:Store",
    "Verdict": "robustness.claims:Verdict",
    "Workspace": "robustness.workspace.workspace:Workspace",
    "from_arrays": "robustness.data:from_arrays",
    "judge": "robustness.claims:judge",
    "load_card": "robustness.cards:load",
    "load_images": "robustness.data:load",
    "measure": "robustness.metrics.registry:measure",
    "run_sweep": "robustness.sweep.runner:run_sweep",
}
__all__ = ["__version__", *PUBLIC]

# `robustness.suites`: in an installed package it lies here; in a checkout it is the folder `suites` beside this one.
if not (_here := Path(__file__).parent).joinpath("suites").is_dir() and (_here.parent / "suites").is_dir():
    __path__.append(str(_here.parent))


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the plugin's start must not wait for torch or NumPy."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from robustness.util.registry import import_object

    globals()[name] = import_object(PUBLIC[name])
    return globals()[name]
