"""Checks of the images: do they use their range, and was the model trained on them?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from robustness.doubts.probe import CheckResults, NotChecked, check_result
from robustness.errors import RobustnessError

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.data.images import Images
    from robustness.workspace.workspace import Workspace

# The largest value of images with bytes 0 and 1, or divided by 255 twice, with a tolerance for rounding.
DIM_MAXIMUM = 1.001 / 255
# The fraction of test images that may be training images; more than that, and more than one, is a doubt.
MAX_LEAKED_FRACTION = 0.01
# The largest training part that is searched, in bytes.
MAX_BYTES = 2**29


def check_range(inputs: NDArray[np.float32]) -> CheckResults:
    """
    Return whether images, floats of any shape, use hardly any of their range.

    >>> check_range(np.array([0.0, 1 / 255], np.float32))["dim images"]["seen"]
    'values from 0 to 0.00392: they use 1/255 of the range; 0/1 bytes, or divided by 255 twice?'
    """
    low, high = float(inputs.min()), float(inputs.max())
    reason = "they are all black" if high == 0 else "they use 1/255 of the range; 0/1 bytes, or divided by 255 twice?"
    seen = f"values from {low:.3g} to {high:.3g}"
    return {"dim images": check_result(high <= DIM_MAXIMUM, f"{seen}: {reason}" if high <= DIM_MAXIMUM else seen)}


def check_leakage(images: Images, training: Callable[[], Images] | None) -> CheckResults:
    """Check whether test images are among the training images, bit for bit."""
    contents = images.contents
    duplicates = len(contents) - len(set(contents))
    note = f"{duplicates:,} of {len(images):,} are duplicates"
    if training is None:
        raise NotChecked(f"the training images are unknown; {note}")
    training_images = training()
    training_contents = set(training_images.contents)
    leaked = sum(content in training_contents for content in contents)
    seen = (
        f"{leaked:,} of {len(images):,} test images are among the {len(training_images):,} of the training part; {note}"
    )
    return {"tested on training images": check_result(leaked > max(1, MAX_LEAKED_FRACTION * len(images)), seen)}


def training_part(workspace: Workspace, card: Card) -> Images:
    """Return the training part of a card's data; raise NotChecked if there is none, or it is too large."""
    from robustness import data

    spec, card_folder = card.file.data, card.path.parent
    path = (card_folder if spec.beside_card else workspace.data_root) / str(spec.folder or spec.file or "")
    if spec.folder is not None and (size := _folder_size(path)) > MAX_BYTES:
        raise NotChecked(f"its data take {size >> 20:,} MB or more; at most {MAX_BYTES >> 20:,} MB are searched")
    try:
        images = data.load(
            spec,
            "train",
            root=workspace.data_root,
            cache=workspace.store.root,
            beside=card_folder,
            progress=workspace.store.say,
        )
    except RobustnessError as error:
        raise NotChecked(f"there is no training part to compare with: {error}") from error
    if isinstance(images.pixels, np.ndarray) and images.pixels.nbytes > MAX_BYTES:
        raise NotChecked(f"its training part takes {images.pixels.nbytes >> 20:,} MB")
    return images


def _folder_size(folder: Path) -> int:
    """Return the bytes of the files below a folder; counting stops above the limit."""
    size = 0
    for file in folder.rglob("*"):
        size += file.stat().st_size if file.is_file() else 0
        if size > MAX_BYTES:
            break
    return size
