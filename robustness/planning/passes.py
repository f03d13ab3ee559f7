"""How many passes a sweep takes through a model, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


def per_image(modules: Mapping[str, nn.Module | None], swept: Callable[..., Any]) -> Counter[str]:
    """
    Count the passes of one batch, by module and as "backward": of two batches less those of one.

    So a sweep's trials of the model drop out. ``swept(count, batch_size=2, threads=1)`` sweeps some images.

    >>> class Twice(nn.Linear):
    ...     def swept(self, count, **_):
    ...         for _ in range(count):  # two passes a batch of two, and one to try it
    ...             _ = self(torch.zeros(1, 2))
    >>> model = Twice(2, 2)
    >>> per_image({"forward": model}, model.swept)
    Counter({'forward': 2})
    """
    return _calls(modules, swept, 4) - _calls(modules, swept, 2)


def _calls(modules: Mapping[str, nn.Module | None], swept: Callable[..., Any], count: int) -> Counter[str]:
    """Count what a sweep of some images, two a batch, calls: each module's forwards, and the backwards."""
    calls: Counter[str] = Counter()

    def hook(name: str, output: Any) -> None:
        calls[name] += 1
        if isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(lambda gradient: calls.update(backward=1))  # type: ignore[no-untyped-call]

    hooks = [
        module.register_forward_hook(lambda _, __, output, n=name: hook(n, output))
        for name, module in modules.items()
        if module is not None
    ]
    try:
        swept(count, batch_size=2, threads=1)
    finally:
        for each in hooks:
            each.remove()
    return calls
