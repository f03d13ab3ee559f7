"""What the papers' figures are drawn with: SVG files that are the same each time, lines with bars, picture strips."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from robustness.cards import Card
from robustness.workspace.examples import examples
from robustness.workspace.workspace import Workspace

MARKERS = "osv^D<>p"
MAGNIFIED = 10
Strip = Mapping[str, Any]


@contextmanager
def figure(file: Path, size: tuple[float, float], salt: str = "", font_size: float = 9) -> Iterator[Any]:
    """Yield an empty figure and write it as SVG; a fixed ``salt`` gives the same bytes each time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": salt or file.stem, "font.size": font_size}):
        canvas = Figure(figsize=size, layout="constrained")
        yield canvas
        canvas.savefig(file, format="svg", metadata={"Date": None})


@contextmanager
def pair(file: Path, size: tuple[float, float], salt: str = "") -> Iterator[tuple[Any, Any]]:
    """Yield the two axes of a figure that share the vertical axis, a grid and the left one's legend."""
    with figure(file, size, salt) as canvas:
        left, right = canvas.subplots(1, 2, sharey=True)
        yield left, right
        left.grid(alpha=0.3)
        right.grid(alpha=0.3)
        canvas.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)


def line(axes: Any, points: Iterable[tuple[float, Sequence[float]]], label: str, number: int, **style: Any) -> None:
    """
    Draw a line through means, with bars to the smallest and the largest value; ``number`` decides colour and marker.

    A position without values, or with a missing one (NaN), is left out.
    """
    known = [(x, values) for x, values in points if values and not any(map(math.isnan, values))]
    if not known:
        return
    means = [sum(values) / len(values) for _, values in known]
    below = [mean - min(values) for mean, (_, values) in zip(means, known, strict=True)]
    above = [max(values) - mean for mean, (_, values) in zip(means, known, strict=True)]
    axes.errorbar(
        [x for x, _ in known], means, yerr=(below, above), label=label, color=f"C{number}",
        marker=MARKERS[number], markersize=3, linewidth=1.2, elinewidth=0.8, capsize=2, **style,
    )  # fmt: skip


def strip(
    workspace: Workspace, card: Card, sweep: str, title: str, row: int = 0, *, changes: bool = True
) -> dict[str, Any]:
    """Return an image of a sweep with the predictions, pixels as bytes; ``changes`` adds the magnified changes."""
    example = examples(workspace, card, sweep, [row])
    evidence, classes = example.evidence, workspace.images(card).classes
    perturbed = example.perturbed[:, 0]
    # As bytes, small perturbations would be gone unless magnified.
    parts = [example.clean, perturbed, *([magnified(perturbed - example.clean)] if changes else [])]
    pixels = (np.clip(np.concatenate(parts), 0, 1) * 255).round().astype(np.uint8)
    assert evidence.clean is not None
    predictions = [evidence.clean.predictions[0, row], *evidence.predictions[:, row]]
    return {
        "title": title,
        "true": classes[evidence.labels[row]],
        "strengths": list(evidence.strengths),
        "said": [classes[label] for label in predictions],
        "shape": list(pixels.shape),
        "pixels": base64.b64encode(zlib.compress(pixels.tobytes(), 9)).decode(),
    }


def strip_pixels(record: Strip) -> np.ndarray:
    """Return a strip's images, the clean one first, then any magnified perturbations, (images, H, W, C)."""
    flat = np.frombuffer(zlib.decompress(base64.b64decode(record["pixels"])), np.uint8)
    return flat.reshape(record["shape"]).transpose(0, 2, 3, 1) / np.float32(255)


def magnified(change: np.ndarray) -> np.ndarray:
    """Return perturbations ten times as large around grey."""
    return np.asarray(np.clip(0.5 + MAGNIFIED * change, 0, 1))


def draw_strips(strips: Sequence[Strip], file: Path, unit: str) -> Path:
    """Draw strips below each other, any perturbation above its image; ``unit`` is a format for strengths."""
    columns = 1 + max(len(record["strengths"]) for record in strips)
    changes = any(len(strip_pixels(record)) > 1 + len(record["strengths"]) for record in strips)
    rows = 2 if changes else 1
    with figure(file, (1.1 * columns, 1.3 * rows * len(strips)), font_size=7) as canvas:
        grid = canvas.subplots(rows * len(strips), columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for number, record in enumerate(strips):
            images, count = strip_pixels(record), 1 + len(record["strengths"])
            below, strengths = grid[rows * number + rows - 1], [unit.format(value) for value in record["strengths"]]
            words = [word if word == record["true"] else f"{word} (wrong)" for word in record["said"]]
            if changes:
                above = grid[rows * number]
                above[0].text(0.5, 0.3, f"{record['title']}\n{record['true']}", ha="center", va="center")
                for axes, change, strength in zip(above[1:], images[count:], strengths, strict=False):
                    _show(axes, change, strength)
            else:
                heads = (record["title"], *strengths)
                words = [f"{head}\n{word}" for head, word in zip(heads, words, strict=True)]
            for axes, image, word in zip(below, images[:count], words, strict=False):
                _show(axes, image, word)
    return file


def _show(axes: Any, image: np.ndarray, title: str) -> None:
    axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, pad=2)
