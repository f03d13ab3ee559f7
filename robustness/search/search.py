"""Looking with Hypothesis for perturbations within a budget that flip what a model is sure of."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, find, settings, target
from hypothesis.errors import NoSuchExample
from torch import nn

from robustness.classifiers.modules import restored_afterwards
from robustness.data.images import Images
from robustness.decisions import Argmax, Decision
from robustness.perturbations.norms import Budget
from robustness.search.descriptions import DescribedPerturbation, read
from robustness.search.strategies import perturbations
from robustness.sweep.batching import single_threaded


def search(
    classifier: nn.Module,
    images: Images,
    budget: Budget,
    *,
    count: int = 20,
    sure: float = 0.9,
    examples: int = 100,
    seed: int = 0,
    decision: Decision | None = None,
) -> dict[str, Any]:
    """
    Look for described perturbations that flip images which the model is right on and sure of; plain values.

    The first ``count`` such images with a confidence of at least ``sure`` are tried, all at once, with ``examples``
    drawn perturbations; what flips any is shrunk, its images are done, and the search goes on with the others.
    The same arguments find the same.
    """
    with single_threaded(), restored_afterwards(classifier) as model:
        look = _Look(model, images, budget, decision or Argmax(), count, sure)
        tried, left = len(look.rows), np.arange(len(look.rows))
        found: list[dict[str, Any]] = []
        while len(left):
            flips = _flipping(look, left, examples, seed + len(found))
            if flips is None:
                break
            flipped = left[look.margins(flips, left) > 0]
            found += look.report(flips, flipped)
            left = np.setdiff1d(left, flipped)
    return {
        "budget": budget.model_dump(),
        "images": look.rows.tolist(),
        "examples": examples,
        "sure": sure,
        "found": found,
        "flip_rate": len(found) / tried if tried else None,
    }


def replay(
    classifier: nn.Module, images: Images, row: int, text: str, budget: Budget | None, decision: Decision | None = None
) -> tuple[int, int]:
    """Return the class of an image before and after a described perturbation."""
    pair = pair_of(images, row, text, budget)
    with single_threaded(), restored_afterwards(classifier) as model, torch.no_grad():
        before, after = (decision or Argmax()).predictions(model(torch.from_numpy(pair)).float()).tolist()
    return before, after


def pair_of(images: Images, row: int, text: str, budget: Budget | None) -> np.ndarray:
    """Return an image and the image perturbed, (2, C, H, W)."""
    one = images.batch(row, row + 1)
    return np.concatenate([one, read(text).apply(one, budget)])


class _Look:
    """The images that are tried, and what the model says of them."""

    def __init__(
        self, model: nn.Module, images: Images, budget: Budget, decision: Decision, count: int, sure: float
    ) -> None:
        self._model, self._budget, self._decision, self._classes = model, budget, decision, images.classes
        rows: list[int] = []
        for start in range(0, len(images), 100):
            stop = min(start + 100, len(images))
            scores = self._scores(images.batch(start, stop))
            right = (scores.argmax(1) == images.labels[start:stop]) & (np.exp(scores.max(1)) >= sure)
            rows += (start + right.nonzero()[0]).tolist()
            if len(rows) >= count:
                break
        self.rows = np.array(rows[:count], int)
        chosen = images.select(self.rows, images.name)
        self._inputs, self._labels = chosen.batch(0, len(chosen)), chosen.labels
        self.shape = images.shape

    def _scores(self, inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = self._model(torch.from_numpy(np.ascontiguousarray(inputs))).float()
            found: np.ndarray = self._decision.log_probabilities(logits).numpy()
        return found

    def margins(self, description: DescribedPerturbation, left: np.ndarray) -> np.ndarray:
        """Return how far each image is beyond the model's boundary under a perturbation; above 0 it is flipped."""
        scores = self._scores(description.apply(self._inputs[left], self._budget))
        rows, labels = np.arange(len(left)), self._labels[left]
        own = scores[rows, labels].copy()
        scores[rows, labels] = -np.inf
        margins: np.ndarray = scores.max(1) - own
        if np.isnan(margins).any():
            raise ValueError("the model's outputs must be numbers, got NaN under " + str(description))
        return margins

    def report(self, description: DescribedPerturbation, flipped: np.ndarray) -> list[dict[str, Any]]:
        """Write down what a perturbation does to some images."""
        before = np.exp(self._scores(self._inputs[flipped]))
        after = self._scores(description.apply(self._inputs[flipped], self._budget))
        return [
            {
                "row": int(self.rows[row]),
                "description": description.text,
                "sentence": str(description),
                "label": self._classes[self._labels[row]],
                "after": self._classes[int(after[i].argmax())],
                "confidence": round(float(before[i].max()), 4),
            }
            for i, row in enumerate(flipped)
        ]


def _flipping(look: _Look, left: np.ndarray, examples: int, seed: int) -> DescribedPerturbation | None:
    """Find a perturbation that flips an image that is left, shrunk as far as it goes; None where none is found."""

    def flips(description: DescribedPerturbation) -> bool:
        worst = float(look.margins(description, left).max())
        target(worst, label="margin")
        return worst > 0

    return _found(perturbations(look.shape, look._budget), flips, examples, seed)


def _found(
    strategy: Any, flips: Callable[[DescribedPerturbation], bool], examples: int, seed: int
) -> DescribedPerturbation | None:
    quiet = settings(
        max_examples=examples,
        derandomize=False,  # the seed decides
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.target, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        found: DescribedPerturbation = find(strategy, flips, settings=quiet, random=random.Random(seed))
    except NoSuchExample:
        return None
    return found


def png(pair: np.ndarray) -> bytes:
    """
    Write images (N, C, H, W), C 1 or 3, side by side as one PNG.

    >>> png(np.zeros((2, 1, 4, 4)))[1:4]
    b'PNG'
    """
    import struct
    import zlib

    wide = np.concatenate(list(np.clip(np.rint(pair * 255), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)), 1)
    height, width, channels = wide.shape
    if channels not in (1, 3):
        raise ValueError(f"`pair` must have 1 or 3 channels to be a picture, got {channels}; choose some of them")

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
