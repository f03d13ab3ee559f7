"""Damage to what a model is trained on: fewer images, or labels off by one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from robustness.data import splits
from robustness.util.rng import Purpose, generator

if TYPE_CHECKING:
    from robustness.data.images import Images
    from robustness.mutations.kinds import Mutation


def mutate_training_data(images: Images, damage: Mutation | None) -> Images:
    """Return what a recipe is to train on: the images as they are, unless its data are damaged."""
    if damage is None or damage.of.done != "training":
        return images
    return (drop_training_data if damage.kind == "data" else shift_labels)(images, damage.level, damage.seed)


def drop_training_data(images: Images, share: float, seed: int = 0) -> Images:
    """Take a share of the images, of every class alike and at least one of each."""
    count = max(round(share * len(images)), len(np.unique(images.labels)))
    if count >= len(images):
        return images
    return images.select(splits.some(images.labels, count, seed), f"{count} of {images.name}")


def shift_labels(images: Images, share: float, seed: int = 0) -> Images:
    """Return a share of the images the class after their own, as a list that has lost a line somewhere does."""
    count = round(share * len(images))
    # By the raw bits, which NumPy promises to keep.
    order = np.argsort(generator(seed, Purpose.DAMAGE).bit_generator.random_raw(len(images)), kind="stable")
    labels = images.labels.copy()
    labels[order[:count]] = (labels[order[:count]] + 1) % len(images.classes)
    return replace(images, name=f"{images.name} with {count} labels shifted", labels=labels)
