"""Picture strips: an image as it is, then at every strength its perturbation, magnified, and what became of it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustness.cards import Card
from robustness.harness import Harness
from robustness.sweep.examples import examples

MAGNIFIED = 10
Strip = Mapping[str, Any]


def strip(harness: Harness, card: Card, sweep: str, title: str, row: int = 0) -> dict[str, Any]:
    """Give one image of a sweep with what the model says of it, as goes into a result file; pixels as bytes."""
    found = examples(harness, card, sweep, [row])
    evidence, classes = found.evidence, harness.images(card).classes
    perturbed = found.perturbed[:, 0]
    # The perturbations apart: as bytes the small ones would be gone.
    every = np.concatenate([found.clean, perturbed, magnified(perturbed - found.clean)])
    pixels = (every * 255).round().astype(np.uint8)
    assert evidence.clean is not None
    said = [evidence.clean.predictions[0, row], *evidence.predictions[:, row]]
    return {
        "title": title,
        "true": classes[evidence.labels[row]],
        "strengths": list(evidence.strengths),
        "said": [classes[label] for label in said],
        "shape": list(pixels.shape),
        "pixels": base64.b64encode(zlib.compress(pixels.tobytes(), 9)).decode(),
    }


def pixels(kept: Strip) -> np.ndarray:
    """Give a strip's images, the clean one first, then its magnified perturbations, (1 + 2·strengths, H, W, C)."""
    flat = np.frombuffer(zlib.decompress(base64.b64decode(kept["pixels"])), np.uint8)
    return flat.reshape(kept["shape"]).transpose(0, 2, 3, 1) / np.float32(255)


def magnified(change: np.ndarray) -> np.ndarray:
    """
    Give perturbations ten times as large around grey.

    >>> magnified(np.array([0.0, 0.02, -0.5])).round(2).tolist()
    [0.5, 0.7, 0.0]
    """
    grown: np.ndarray = np.clip(0.5 + MAGNIFIED * change, 0, 1)
    return grown


def draw(strips: Sequence[Strip], file: Path, unit: str) -> Path:
    """Draw strips below each other, the perturbation above its image; the same bytes each time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = 1 + max(len(kept["strengths"]) for kept in strips)
    file.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": file.stem, "font.size": 7}):
        figure = Figure(figsize=(1.1 * columns, 2.6 * len(strips)), layout="constrained")
        grid = figure.subplots(2 * len(strips), columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for number, kept in enumerate(strips):
            images, count = pixels(kept), 1 + len(kept["strengths"])
            above, below = grid[2 * number], grid[2 * number + 1]
            above[0].text(0.5, 0.3, f"{kept['title']}\n{kept['true']}", ha="center", va="center")
            for axes, change, strength in zip(above[1:], images[count:], kept["strengths"], strict=False):
                _show(axes, change, f"{strength} {unit}".strip())
            for axes, image, said in zip(below, images[:count], kept["said"], strict=False):
                _show(axes, image, said if said == kept["true"] else f"{said} (wrong)")
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file


def _show(axes: Any, image: np.ndarray, title: str) -> None:
    axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, pad=2)
