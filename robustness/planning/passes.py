"""Counts the passes of a sweep through a model."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def per_image(modules: Mapping[str, nn.Module | None], sweep: Callable[..., Any]) -> Counter[str]:
    """
    Count the passes per image, by module and as "backward": those of four images minus those of two, halved.

    So the trials of the model cancel out. ``sweep(count, batch_size=2, threads=1)`` sweeps the first images.

    >>> import torch
    >>> class Twice(torch.nn.Linear):
    ...     def sweep(self, count, **_):
    ...         for _ in range(count + 1):  # two passes per image, and one trial of the model
    ...             _ = self(torch.zeros(2, 2))
    >>> model = Twice(2, 2)
    >>> per_image({"forward": model}, model.sweep)
    Counter({'forward': 2})
    """
    counts = []
    for count in (4, 2):
        with counted((name, module) for name, module in modules.items() if module is not None) as images:
            sweep(count, batch_size=2, threads=1)
        counts.append(images)
    return Counter({name: round(images / 2) for name, images in (counts[0] - counts[1]).items()})


@contextmanager
def counted(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[Counter[str]]:
    """Count the images that pass forward through modules, by name, and "backward", in all threads."""
    images: Counter[str] = Counter()
    lock = threading.Lock()

    def count(name: str, number: int) -> None:
        with lock:
            images[name] += number

    def hook(name: str, output: Any) -> None:
        if not hasattr(output, "requires_grad"):  # no tensor: the sweep rejects it
            return
        count(name, len(output))
        if output.requires_grad:
            output.register_hook(lambda gradient: count("backward", len(gradient)))

    handles = [module.register_forward_hook(lambda _, __, output, n=name: hook(n, output)) for name, module in modules]
    try:
        yield images
    finally:
        for handle in handles:
            handle.remove()
