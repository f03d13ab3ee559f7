"""Makers of picture files that tests of image folders and tables need, sound ones and damaged ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from robustness.data import DataSpec, Images, load


def picture(seed: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """A picture of random bytes, ``size`` being width and height as Pillow has it."""
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def encoded(image: Image.Image, form: str = "png", **options) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def folder(top: Path, sizes: dict[str, list[tuple[int, int]]] | None = None) -> Path:
    """A folder of two classes, of pictures of several sizes."""
    sizes = sizes or {"cat": [(40, 30), (30, 40)], "dog": [(50, 50), (33, 47), (64, 31)]}
    for name, each in sizes.items():
        (top / name).mkdir(parents=True)
        for i, size in enumerate(each):
            picture(100 * len(name) + 10 * i + ord(name[0]), size).save(top / name / f"{i}.png")
    return top


def get(top: Path, side: str = "test", **table) -> Images:
    """What a card beside ``top`` gets, by default of squares of 24 pixels."""
    table = {"images": {"size": [24, 24]}, **table}
    if not {"file", "folder"} & table.keys():
        table["folder"] = f"./{top.name}"
    spec = DataSpec.model_validate({"name": "folder", **table})
    return load(spec, side, root=Path("/nonexistent"), cache=top.parent / "cache", beside=top.parent)
