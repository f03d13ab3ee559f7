"""Search with Hypothesis for perturbations within a budget that flip confident predictions."""

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
from robustness.search.descriptions import DescribedPerturbation, parse_description
from robustness.search.strategies import perturbations
from robustness.sweep.batching import single_threaded


def search(
    classifier: nn.Module,
    images: Images,
    budget: Budget,
    *,
    count: int = 20,
    min_confidence: float = 0.9,
    max_examples: int = 100,
    seed: int = 0,
    decision: Decision | None = None,
) -> dict[str, Any]:
    """
    Search for described perturbations that flip correct and confident predictions.

    The first ``count`` correctly classified images with a confidence of at least ``min_confidence`` are tried together,
    with at most ``max_examples`` drawn perturbations. A perturbation that flips any is shrunk, the flipped images are
    finished, and the search continues with the others. The result is deterministic, and can be written as JSON.
    """
    with single_threaded(), restored_afterwards(classifier) as model:
        state = _SearchState(model, images, budget, decision or Argmax(), count, min_confidence)
        total, remaining = len(state.rows), np.arange(len(state.rows))
        results: list[dict[str, Any]] = []
        while len(remaining):
            description = _find_flip(state, remaining, max_examples, seed + len(results))
            if description is None:
                break
            flipped = remaining[state.margins(description, remaining) > 0]
            results += state.report(description, flipped)
            remaining = np.setdiff1d(remaining, flipped)
    return {
        "budget": budget.model_dump(),
        "images": state.rows.tolist(),
        "max_examples": max_examples,
        "min_confidence": min_confidence,
        "found": results,
        "flip_rate": len(results) / total if total else None,
    }


def predict_pair(
    classifier: nn.Module, images: Images, row: int, text: str, budget: Budget | None, decision: Decision | None = None
) -> tuple[int, int]:
    """Return the class of an image before and after a described perturbation."""
    pair = image_pair(images, row, text, budget)
    with single_threaded(), restored_afterwards(classifier) as model, torch.no_grad():
        before, after = (decision or Argmax()).predictions(model(torch.from_numpy(pair)).float()).tolist()
    return before, after


def image_pair(images: Images, row: int, text: str, budget: Budget | None) -> np.ndarray:
    """Return an image and its perturbed version, (2, C, H, W)."""
    image = images.batch(row, row + 1)
    return np.concatenate([image, parse_description(text).apply(image, budget)])


class _SearchState:
    """The images of a search, and the model's predictions for them."""

    def __init__(
        self, model: nn.Module, images: Images, budget: Budget, decision: Decision, count: int, min_confidence: float
    ) -> None:
        self._model, self._budget, self._decision, self._classes = model, budget, decision, images.classes
        rows: list[int] = []
        for start in range(0, len(images), 100):
            stop = min(start + 100, len(images))
            scores = self._scores(images.batch(start, stop))
            selected = (scores.argmax(1) == images.labels[start:stop]) & (np.exp(scores.max(1)) >= min_confidence)
            rows += (start + selected.nonzero()[0]).tolist()
            if len(rows) >= count:
                break
        self.rows = np.array(rows[:count], int)
        subset = images.select(self.rows, images.name)
        self._inputs, self._labels = subset.batch(0, len(subset)), subset.labels
        self.shape = images.shape

    def _scores(self, inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = self._model(torch.from_numpy(np.ascontiguousarray(inputs))).float()
            scores: np.ndarray = self._decision.log_probabilities(logits).numpy()
        return scores

    def margins(self, description: DescribedPerturbation, indices: np.ndarray) -> np.ndarray:
        """Return each image's margin beyond the decision boundary under a perturbation; above 0 it is flipped."""
        scores = self._scores(description.apply(self._inputs[indices], self._budget))
        rows, labels = np.arange(len(indices)), self._labels[indices]
        label_scores = scores[rows, labels].copy()
        scores[rows, labels] = -np.inf
        margins: np.ndarray = scores.max(1) - label_scores
        if np.isnan(margins).any():
            raise ValueError(f"the model's outputs must be finite, got NaN under {description}")
        return margins

    def report(self, description: DescribedPerturbation, flipped: np.ndarray) -> list[dict[str, Any]]:
        """Return a record of each flipped image."""
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


def _find_flip(
    state: _SearchState, remaining: np.ndarray, max_examples: int, seed: int
) -> DescribedPerturbation | None:
    """Return a shrunk perturbation that flips one of the remaining images, or None."""

    def flips(description: DescribedPerturbation) -> bool:
        worst = float(state.margins(description, remaining).max())
        target(worst, label="margin")
        return worst > 0

    return _find(perturbations(state.shape, state._budget), flips, max_examples, seed)


def _find(
    strategy: Any, flips: Callable[[DescribedPerturbation], bool], max_examples: int, seed: int
) -> DescribedPerturbation | None:
    profile = settings(
        max_examples=max_examples,
        derandomize=False,  # the seed decides
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.target, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        description: DescribedPerturbation = find(strategy, flips, settings=profile, random=random.Random(seed))
    except NoSuchExample:
        return None
    return description


def png(pair: np.ndarray) -> bytes:
    """
    Encode images (N, C, H, W), C 1 or 3, side by side as one PNG.

    >>> png(np.zeros((2, 1, 4, 4)))[1:4]
    b'PNG'
    """
    import struct
    import zlib

    wide = np.concatenate(list(np.clip(np.rint(pair * 255), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)), 1)
    height, width, channels = wide.shape
    if channels not in (1, 3):
        raise ValueError(f"`pair` must have 1 or 3 channels to be a picture, got {channels}; select 1 or 3 of them")

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
