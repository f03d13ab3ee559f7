"""Doubts that the images themselves give: whether they use their range, and whether they were trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from robustness.doubts.trial import Answers, NotLookedFor, answer
from robustness.errors import RobustnessError

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.data.images import Images
    from robustness.workspace.workspace import Workspace

DIM = 1.001 / 255
"""The largest value of images that are 0 and 1 as bytes, or were divided by 255 twice; a little above for rounding."""
SHARE = 0.01
"""Of the tested images, and more than one: so many that were trained on are a doubt, fewer are said."""
ROOM = 2**29
"""Bytes of a training part that is looked through."""


def of_range(inputs: NDArray[np.float32]) -> Answers:
    """
    Return whether images, floats of any shape, use hardly any of their range.

    >>> of_range(np.array([0.0, 1 / 255], np.float32))["dim images"]["seen"]
    'values from 0 to 0.00392: they use 1/255 of the range; 0/1 bytes, or divided by 255 twice?'
    """
    low, high = float(inputs.min()), float(inputs.max())
    what = "they are all black" if high == 0 else "they use 1/255 of the range; 0/1 bytes, or divided by 255 twice?"
    seen = f"values from {low:.3g} to {high:.3g}"
    return {"dim images": answer(high <= DIM, f"{seen}: {what}" if high <= DIM else seen)}


def of_copies(images: Images, training: Callable[[], Images] | None) -> Answers:
    """Return whether tested images are among those that were trained on, bit for bit."""
    contents = images.contents
    again = len(contents) - len(set(contents))
    alone = f"{again:,} of {len(images):,} are there more than once"
    if training is None:
        raise NotLookedFor(f"nobody says what was trained on; {alone}")
    trained = training()
    known = set(trained.contents)
    leaked = sum(content in known for content in contents)
    seen = f"{leaked:,} of {len(images):,} tested images are among the {len(trained):,} of the training part; {alone}"
    return {"tested on training images": answer(leaked > max(1, SHARE * len(images)), seen)}


def training_part(harness: Workspace, card: Card) -> Images:
    """Return the training part of a card's data; raise NotLookedFor where there is none, or a large one."""
    from robustness import data

    spec, beside = card.file.data, card.path.parent
    place = (beside if spec.beside_card else harness.data_root) / str(spec.folder or spec.file or "")
    if spec.folder is not None and (size := _size(place)) > ROOM:
        raise NotLookedFor(f"its data take {size >> 20:,} MB or more; {ROOM >> 20:,} MB are looked through at most")
    try:
        images = data.load(
            spec, "train", root=harness.data_root, cache=harness.store.root, beside=beside, progress=harness.store.say
        )
    except RobustnessError as error:
        raise NotLookedFor(f"there is no training part to compare with: {error}") from error
    if isinstance(images.pixels, np.ndarray) and images.pixels.nbytes > ROOM:
        raise NotLookedFor(f"its training part takes {images.pixels.nbytes >> 20:,} MB")
    return images


def _size(folder: Path) -> int:
    """Return the bytes of the files below a folder, or of the first of them that are too many."""
    size = 0
    for file in folder.rglob("*"):
        size += file.stat().st_size if file.is_file() else 0
        if size > ROOM:
            break
    return size
