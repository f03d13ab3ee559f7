"""The global random states of torch, NumPy and Python, isolated while a recipe trains."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

State = dict[str, Any]


def state() -> State:
    """Return the three states, as values that ``torch.load`` reads without executing code."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (recipes may use the one that all share)
    return {"torch": torch.get_rng_state(), "numpy": [kind, list(map(int, keys)), *rest], "python": random.getstate()}


def restore(state: Mapping[str, Any]) -> None:
    """Set the three states."""
    torch.set_rng_state(state["torch"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """
    Seed the global generators inside the context; the process's own states are neither used nor changed.

    >>> random.seed(0)
    >>> with isolated_rng(1):
    ...     _ = random.random()
    >>> round(random.random(), 3)
    0.844
    """
    before = state()
    try:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        yield
    finally:
        restore(before)
