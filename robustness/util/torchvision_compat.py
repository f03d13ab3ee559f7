"""
torchvision's Python parts, also where its compiled part does not fit the installed torch.

torchvision's wheel is compiled for CUDA. Beside a CPU-only torch its library does not load, its operators do not exist,
and `import torchvision` dies at the first one that it wants to describe. Data sets, models and transforms need none.

    from robustness.util.torchvision_compat import datasets, models, torchvision, transforms
"""

from __future__ import annotations

import importlib
import re
import threading
from types import ModuleType

_MISSING = re.compile(r"operator torchvision::\w+ does not exist")
_OPERATORS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_importing = threading.Lock()  # a second thread must not find the first one between its two attempts


def __getattr__(name: str) -> ModuleType:
    """Import torchvision, or the part of it called ``name``, when it is first asked for."""
    if name not in {"torchvision", "datasets", "models", "transforms"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _importing:
        torchvision = _import()
    return torchvision if name == "torchvision" else importlib.import_module(f"torchvision.{name}")


def _import() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if not _MISSING.search(str(error)):
            raise
    # Not before it failed: a library that loads declares its operators itself, and none may be declared twice.
    _declare()
    return importlib.import_module("torchvision")


def _declare() -> None:
    """Declare the operators that `import torchvision` looks up, without code: calling one says that it cannot run."""
    import torch

    for operator, schema in _OPERATORS.items():
        if not hasattr(torch.ops.torchvision, operator.partition("::")[2]):
            torch.library.define(operator, schema)
