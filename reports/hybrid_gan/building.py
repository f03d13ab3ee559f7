"""Hybrid sets: every source image as it is, and its adversarial twin by the generator of one of several targets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustness.classifiers.modules import restored_afterwards
from robustness.data.images import Images
from robustness.data.validation import Array, Indices
from robustness.decisions import Argmax
from robustness.errors import DataError
from robustness.perturbations.attack import most_likely_wrong_class
from robustness.util import atomic_write
from robustness.util.rng import Purpose, generator

KINDS = ("real", "adversarial")
"""By label, and by folder where pictures are written."""
STRENGTHS = tuple(round(0.01 * step, 2) for step in range(1, 11))
"""k in the order in which they are tried."""


@dataclass(frozen=True)
class Target:
    """A classifier that is attacked, and the generator that was fitted to it."""

    name: str
    classifier: nn.Module
    generator: nn.Module
    key: str
    """Of weights and generator, by content."""
    device: str = "cpu"

    @contextmanager
    def lent(self) -> Iterator[Target]:
        """Lend it with classifier and generator on the device; afterwards both are as they were."""
        with (
            restored_afterwards(self.classifier, self.device) as classifier,
            restored_afterwards(self.generator, self.device) as made,
        ):
            yield replace(self, classifier=classifier, generator=made)


@dataclass(frozen=True)
class Forged:
    """Adversarial images of some sources: (N, H, W, C) bytes, the k of each, and whether it misled its target."""

    pixels: Array
    strengths: Array
    fooled: Array


def divided(labels: Array, counts: Sequence[int], seed: int) -> tuple[Indices, Indices]:
    """
    Draw ``counts`` rows of each class for the hybrid set; the rest is for the targets and their generators.

    >>> rest, chosen = divided(np.array([0, 0, 0, 1, 1, 1]), [2, 1], seed=0)
    >>> sorted(rest.tolist() + chosen.tolist()), len(chosen)
    ([0, 1, 2, 3, 4, 5], 3)
    """
    there = np.bincount(labels, minlength=len(counts))
    for label, (has, wanted) in enumerate(zip(there, counts, strict=True)):
        if not 0 < wanted < has:
            raise DataError(
                f"`counts` must leave images of every class on both sides, got {wanted} of class {label}, "
                f"which has {has}"
            )
    order = np.argsort(generator(seed, Purpose.SPLIT).bit_generator.random_raw(len(labels)), kind="stable")
    chosen = np.concatenate([order[labels[order] == label][:count] for label, count in enumerate(counts)])
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    return rest, np.sort(chosen)


def stored(images: Tensor) -> Tensor:
    """Return images as they are after being kept as bytes: every image of a set goes through this, real ones too."""
    return (images * 255).round().clamp(0, 255) / 255


def forged(target: Target, images: Images, strengths: Sequence[float] = STRENGTHS, batch_size: int = 200) -> Forged:
    """
    Perturb every image towards the likeliest wrong class with the smallest k that misleads the target, as bytes.

    Where none does the largest k is kept, and said. DataError for a k that is not above 0, and for a generator whose
    output is no number.
    """
    if not strengths or min(strengths) <= 0:
        raise DataError(
            f"`strengths` must be above 0, got {list(strengths)}: at 0 an adversarial image is the real one"
        )
    with target.lent() as lent:
        parts = [
            _forged(lent, *_batch(images, start, batch_size), sorted(strengths))
            for start in range(0, len(images), batch_size)
        ]
    pixels, found, fooled = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return Forged(
        np.ascontiguousarray((pixels * 255).round().byte().numpy().transpose(0, 2, 3, 1)), found.numpy(), fooled.numpy()
    )


def _batch(images: Images, start: int, size: int) -> tuple[Tensor, Tensor]:
    stop = min(start + size, len(images))
    return torch.from_numpy(images.batch(start, stop)), torch.from_numpy(images.labels[start:stop].astype(np.int64))


@torch.no_grad()
def _forged(
    target: Target, inputs: Tensor, labels: Tensor, strengths: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    inputs, labels = inputs.to(target.device), labels.to(target.device)
    aims = most_likely_wrong_class(target.classifier, inputs, labels, Argmax())
    direction = target.generator(inputs, aims)
    if bad := int((~direction.flatten(1).isfinite().all(1)).sum()):
        raise DataError(
            f"the generator of {target.name} gave no numbers for {bad} of {len(inputs)} images; fit it again"
        )
    made, used = inputs.clone(), torch.zeros(len(inputs), device=target.device)
    fooled = torch.zeros(len(inputs), dtype=torch.bool, device=target.device)
    for strength in strengths:
        open_ = ~fooled
        made[open_] = stored((inputs[open_] + strength * direction[open_]).clamp(0, 1))
        used[open_] = strength
        fooled[open_] = target.classifier(made[open_]).argmax(1) != labels[open_]
        if bool(fooled.all()):
            break
    return made.cpu(), used.cpu(), fooled.cpu()


def write(
    parts: Mapping[str, Images], sources: Mapping[str, Indices], targets: Sequence[Target], file: Path,
    strengths: Sequence[float] = STRENGTHS, seed: int = 0,
) -> dict[str, int]:  # fmt: skip
    """
    Write the hybrid set of some images, "train" and "test", as an array file; give the counts of what it holds.

    ``sources`` are the images' rows in their data set. Every image is there twice, real and adversarial, one after the
    other; the targets take turns in an order that the seed decides. What one target has made is kept beside the file
    until all is there, so that an interrupted build goes on; the file itself appears whole or not at all. One that was
    made of the same by the same targets stays.
    """
    made_of = digest(
        [target.key for target in targets], [part.fingerprint for part in parts.values()],
        [rows.tolist() for rows in sources.values()], list(strengths), seed,
    )  # fmt: skip
    if holds(file, made_of):
        with np.load(file) as held:
            return _counts(held)
    arrays: dict[str, Any] = {
        "made_of": np.array(made_of),
        "classes": np.array(next(iter(parts.values())).classes),
        "kind_classes": np.array(KINDS),
        "targets": np.array([target.name for target in targets]),
    }
    for part, images in parts.items():
        turns = generator(seed, Purpose.SPLIT, 1).permutation(len(images)) % len(targets)
        columns = _both(images, turns, targets, strengths, file) | {"source": np.repeat(sources[part], 2)}
        arrays |= {f"{part}_{name}": column for name, column in columns.items()}
    save(file, arrays)
    for piece in file.parent.glob(f".{file.name}.*.npz"):
        piece.unlink()
    return _counts(arrays)


def _both(
    images: Images, turns: Array, targets: Sequence[Target], strengths: Sequence[float], file: Path
) -> dict[str, Array]:
    """Return every image as it is and as the target whose turn it is makes it, with what is recorded of it."""
    pixels = np.repeat(_bytes(images), 2, axis=0)
    strength, fooled = np.zeros(2 * len(images), np.float32), np.zeros(2 * len(images), bool)
    for number, target in enumerate(targets):
        rows = np.flatnonzero(turns == number)
        if len(rows):
            piece = _piece(target, images.select(rows, f"{images.name} for {target.name}"), strengths, file)
            with np.load(piece) as made:
                places = 2 * rows + 1
                pixels[places], strength[places], fooled[places] = made["pixels"], made["strengths"], made["fooled"]
    return {
        "x": pixels,
        "y": np.repeat(images.labels, 2),
        "kind": np.tile([0, 1], len(images)),
        "target": np.stack([np.full(len(images), -1), turns], axis=1).ravel(),
        "k": strength,
        "fooled": fooled,
    }


def _counts(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Count the adversarial images of each part, and those of them that mislead their target."""
    names = [f"{part} {name}" for part in ("train", "test") for name in ("kind", "fooled")]
    return {name: int(arrays[name.replace(" ", "_")].sum()) for name in names}


def holds(file: Path, made_of: str) -> bool:
    """Return whether an array file is there and says that it was made of this."""
    if not file.is_file():
        return False
    with np.load(file) as held:
        return str(held.get("made_of")) == made_of


def digest(*about: Any) -> str:
    """Hash all that an array file is made of."""
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _bytes(images: Images) -> Array:
    inputs = stored(torch.from_numpy(images.batch(0, len(images))))
    return np.ascontiguousarray((inputs * 255).round().byte().numpy().transpose(0, 2, 3, 1))


def _piece(target: Target, images: Images, strengths: Sequence[float], file: Path) -> Path:
    """Return the file of what a target makes of some images; made now if it is not there."""
    made_of = digest(target.key, images.fingerprint, list(strengths))[:16]
    piece = file.with_name(f".{file.name}.{target.name}.{made_of}.npz")
    if not piece.is_file():
        found = forged(target, images, strengths)
        save(piece, {"pixels": found.pixels, "strengths": found.strengths, "fooled": found.fooled})
    return piece


def save(file: Path, arrays: Mapping[str, Any]) -> None:
    """Write an array file so that it is there whole or not at all."""
    with atomic_write.atomic_writer(file) as stream:
        np.savez_compressed(stream, **dict[str, Any](arrays))


def pictures(file: Path, folder: Path) -> int:
    """Write an array file's images as PNGs, ``PART/CLASS/0`` for real ones and ``1`` for adversarial; count them."""
    from PIL import Image

    count = 0
    with np.load(file) as held:
        classes = held["classes"].tolist()
        for part in ("train", "test"):
            every = zip(held[f"{part}_x"], held[f"{part}_y"], held[f"{part}_kind"], held[f"{part}_source"], strict=True)
            for pixels, label, kind, source in every:
                path = folder / part / str(classes[label]) / str(int(kind)) / f"{source}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.squeeze()).save(path)
                count += 1
    return count
