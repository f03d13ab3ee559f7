"""Picture strips: an image as it is, then at every strength its perturbation, magnified, and what became of it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustness.cards import Card
from robustness.workspace.examples import examples
from robustness.workspace.workspace import Workspace

MAGNIFIED = 10
Strip = Mapping[str, Any]


def strip(
    harness: Workspace, card: Card, sweep: str, title: str, row: int = 0, *, changes: bool = True
) -> dict[str, Any]:
    """
    Return one image of a sweep with what the model says of it, as goes into a result file; pixels as bytes.

    Without ``changes`` the perturbations are not shown apart.
    """
    found = examples(harness, card, sweep, [row])
    evidence, classes = found.evidence, harness.images(card).classes
    perturbed = found.perturbed[:, 0]
    # The perturbations apart: as bytes the small ones would be gone.
    apart = [magnified(perturbed - found.clean)] if changes else []
    every = np.concatenate([found.clean, perturbed, *apart])
    pixels = (np.clip(every, 0, 1) * 255).round().astype(np.uint8)  # noise without clipping leaves the range
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
    """Return a strip's images, the clean one first, then any magnified perturbations, (images, H, W, C)."""
    flat = np.frombuffer(zlib.decompress(base64.b64decode(kept["pixels"])), np.uint8)
    return flat.reshape(kept["shape"]).transpose(0, 2, 3, 1) / np.float32(255)


def magnified(change: np.ndarray) -> np.ndarray:
    """
    Return perturbations ten times as large around grey.

    >>> magnified(np.array([0.0, 0.02, -0.5])).round(2).tolist()
    [0.5, 0.7, 0.0]
    """
    grown: np.ndarray = np.clip(0.5 + MAGNIFIED * change, 0, 1)
    return grown


def draw(strips: Sequence[Strip], file: Path, unit: str) -> Path:
    """
    Draw strips below each other, any perturbation above its image; the same bytes each time.

    ``unit`` is how a strength is written, as ``{} dB``.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = 1 + max(len(kept["strengths"]) for kept in strips)
    changes = any(len(pixels(kept)) > 1 + len(kept["strengths"]) for kept in strips)
    rows = 2 if changes else 1
    file.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": file.stem, "font.size": 7}):
        figure = Figure(figsize=(1.1 * columns, 1.3 * rows * len(strips)), layout="constrained")
        grid = figure.subplots(rows * len(strips), columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for number, kept in enumerate(strips):
            images, count = pixels(kept), 1 + len(kept["strengths"])
            below, strengths = grid[rows * number + rows - 1], [unit.format(each) for each in kept["strengths"]]
            said = [said if said == kept["true"] else f"{said} (wrong)" for said in kept["said"]]
            if changes:
                above = grid[rows * number]
                above[0].text(0.5, 0.3, f"{kept['title']}\n{kept['true']}", ha="center", va="center")
                for axes, change, strength in zip(above[1:], images[count:], strengths, strict=False):
                    _show(axes, change, strength)
            else:
                said = [f"{at}\n{each}" for at, each in zip((kept["title"], *strengths), said, strict=True)]
            for axes, image, words in zip(below, images[:count], said, strict=False):
                _show(axes, image, words)
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file


def _show(axes: Any, image: np.ndarray, title: str) -> None:
    axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, pad=2)
