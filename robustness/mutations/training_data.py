"""Mutate training data: fewer images, or labels off by one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from robustness.data import splits
from robustness.util.rng import Purpose, generator

if TYPE_CHECKING:
    from robustness.data.images import Images
    from robustness.mutations.kinds import Mutation


def mutate_training_data(images: Images, mutation: Mutation | None) -> Images:
    """Return the images that a recipe trains on: mutated if the mutation is one of training data."""
    if mutation is None or mutation.operator.target != "training":
        return images
    return (drop_training_data if mutation.kind == "data" else shift_labels)(images, mutation.level, mutation.seed)


def drop_training_data(images: Images, fraction: float, seed: int = 0) -> Images:
    """Return a stratified fraction of the images, with at least one per class."""
    count = max(round(fraction * len(images)), len(np.unique(images.labels)))
    if count >= len(images):
        return images
    return images.select(splits.some(images.labels, count, seed), f"{count} of {images.name}")


def shift_labels(images: Images, fraction: float, seed: int = 0) -> Images:
    """Label a fraction of the images with the next class, as a label list with a lost line does."""
    count = round(fraction * len(images))
    # From raw bits, whose stream NumPy guarantees.
    order = np.argsort(generator(seed, Purpose.DAMAGE).bit_generator.random_raw(len(images)), kind="stable")
    labels = images.labels.copy()
    labels[order[:count]] = (labels[order[:count]] + 1) % len(images.classes)
    return replace(images, name=f"{images.name} with {count} labels shifted", labels=labels)
