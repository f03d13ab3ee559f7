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
from robustness.perturbations.fgsm import fgsm
from robustness.perturbations.strength import perturb_to_snr, signal_to_noise_ratio
from robustness.util import atomic_write
from robustness.util.rng import Purpose, generator

# By label, and by folder where pictures are written.
KINDS = ("real", "adversarial")
# k in the order in which they are tried.
STRENGTHS = tuple(round(0.01 * step, 2) for step in range(1, 11))
# What a detector is tested on: false alarms of the first and the last, detections of the others.
PROBES = ("real", "own generator", "another generator", "FGSM", "noise of the same norm")


@dataclass(frozen=True)
class Target:
    """A classifier that is attacked, the generator that was fitted to it, and the hash of both."""

    name: str
    classifier: nn.Module
    generator: nn.Module
    key: str
    device: str = "cpu"

    @contextmanager
    def on_device(self) -> Iterator[Target]:
        """Yield it with classifier and generator on the device; both are restored afterwards."""
        with (
            restored_afterwards(self.classifier, self.device) as classifier,
            restored_afterwards(self.generator, self.device) as fitted,
        ):
            yield replace(self, classifier=classifier, generator=fitted)


@dataclass(frozen=True)
class Forged:
    """Adversarial images as bytes (N, H, W, C), the k of each, and whether it misled its target."""

    pixels: Array
    strengths: Array
    fooled: Array


def divided(labels: Array, counts: Sequence[int], seed: int) -> tuple[Indices, Indices]:
    """Draw ``counts`` rows of each class for the hybrid set; return the rest first, for targets and generators."""
    for label, (size, count) in enumerate(zip(np.bincount(labels, minlength=len(counts)), counts, strict=True)):
        if not 0 < count < size:
            raise DataError(
                f"`counts` must leave images of every class on both sides, got {count} of class {label}, "
                f"which has {size}"
            )
    order = np.argsort(generator(seed, Purpose.SPLIT).bit_generator.random_raw(len(labels)), kind="stable")
    chosen = np.concatenate([order[labels[order] == label][:count] for label, count in enumerate(counts)])
    return np.setdiff1d(np.arange(len(labels)), chosen), np.sort(chosen)


def rounded(images: Tensor) -> Tensor:
    """Return images as bytes would store them: every image of a set goes through this, real ones too."""
    return (images * 255).round().clamp(0, 255) / 255


def to_bytes(images: Tensor) -> Array:
    """Return images (N, C, H, W) in [0, 1] as bytes (N, H, W, C)."""
    return np.ascontiguousarray((rounded(images) * 255).round().byte().numpy().transpose(0, 2, 3, 1))


def to_tensor(images: Images, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
    """Return some images and their labels."""
    stop = len(images) if stop is None else min(stop, len(images))
    return torch.from_numpy(images.batch(start, stop)), torch.from_numpy(images.labels[start:stop].astype(np.int64))


def forged(target: Target, images: Images, strengths: Sequence[float] = STRENGTHS, batch_size: int = 200) -> Forged:
    """
    Perturb every image towards the likeliest wrong class with the smallest k that misleads the target, as bytes.

    An image that no k misleads has the largest one.
    """
    if not strengths or min(strengths) <= 0:
        raise DataError(
            f"`strengths` must be above 0, got {list(strengths)}: at 0 an adversarial image is the real one"
        )
    with target.on_device() as ready:
        parts = [
            _forge(ready, *to_tensor(images, start, start + batch_size), sorted(strengths))
            for start in range(0, len(images), batch_size)
        ]
    pixels, used, fooled = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return Forged(to_bytes(pixels), used.numpy(), fooled.numpy())


@torch.no_grad()
def _forge(target: Target, inputs: Tensor, labels: Tensor, strengths: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    inputs, labels = inputs.to(target.device), labels.to(target.device)
    direction = target.generator(inputs, most_likely_wrong_class(target.classifier, inputs, labels, Argmax()))
    if bad := int((~direction.flatten(1).isfinite().all(1)).sum()):
        raise DataError(
            f"the generator of {target.name} gave no numbers for {bad} of {len(inputs)} images; fit it again"
        )
    images, used = inputs.clone(), torch.zeros(len(inputs), device=target.device)
    fooled = torch.zeros(len(inputs), dtype=torch.bool, device=target.device)
    for strength in strengths:
        rest = ~fooled
        images[rest] = rounded((inputs[rest] + strength * direction[rest]).clamp(0, 1))
        used[rest] = strength
        fooled[rest] = target.classifier(images[rest]).argmax(1) != labels[rest]
        if bool(fooled.all()):
            break
    return images.cpu(), used.cpu(), fooled.cpu()


def write(
    parts: Mapping[str, Images], sources: Mapping[str, Indices], targets: Sequence[Target], file: Path,
    strengths: Sequence[float] = STRENGTHS, seed: int = 0,
) -> dict[str, int]:  # fmt: skip
    """
    Write the hybrid set of some images, "train" and "test", as an array file; return its counts.

    Every image is in it twice, real and adversarial, one after the other; the targets take turns in an order that the
    seed decides. ``sources`` are the images' rows in their data set. The images of one target are stored beside the
    file until all are complete, so an interrupted build continues. A file with the same inputs is left as it is.
    """
    made_of = digest(
        [target.key for target in targets], [images.fingerprint for images in parts.values()],
        [rows.tolist() for rows in sources.values()], list(strengths), seed,
    )  # fmt: skip
    if not holds(file, made_of):
        arrays: dict[str, Any] = {
            "made_of": np.array(made_of),
            "classes": np.array(next(iter(parts.values())).classes),
            "kind_classes": np.array(KINDS),
            "targets": np.array([target.name for target in targets]),
        }
        for part, images in parts.items():
            turns = generator(seed, Purpose.SPLIT, 1).permutation(len(images)) % len(targets)
            columns = _twins(images, turns, targets, strengths, file) | {"source": np.repeat(sources[part], 2)}
            arrays |= {f"{part}_{name}": column for name, column in columns.items()}
        save(file, arrays)
        for piece in file.parent.glob(f".{file.name}.*.npz"):
            piece.unlink()
    with np.load(file) as stored:
        names = [f"{part} {name}" for part in ("train", "test") for name in ("kind", "fooled")]
        return {name: int(stored[name.replace(" ", "_")].sum()) for name in names}


def _twins(
    images: Images, turns: Array, targets: Sequence[Target], strengths: Sequence[float], file: Path
) -> dict[str, Array]:
    """Return every image as it is and as the target of its turn forges it, with the record of each."""
    pixels = np.repeat(to_bytes(to_tensor(images)[0]), 2, axis=0)
    strength, fooled = np.zeros(2 * len(images), np.float32), np.zeros(2 * len(images), bool)
    for number, target in enumerate(targets):
        rows = np.flatnonzero(turns == number)
        if len(rows):
            piece = _piece(target, images.select(rows, f"{images.name} for {target.name}"), strengths, file)
            with np.load(piece) as stored:
                odd = 2 * rows + 1
                pixels[odd], strength[odd], fooled[odd] = stored["pixels"], stored["strengths"], stored["fooled"]
    return {
        "x": pixels,
        "y": np.repeat(images.labels, 2),
        "kind": np.tile([0, 1], len(images)),
        "target": np.stack([np.full(len(images), -1), turns], axis=1).ravel(),
        "k": strength,
        "fooled": fooled,
    }


def _piece(target: Target, images: Images, strengths: Sequence[float], file: Path) -> Path:
    """Return the file of the images that a target forges; written now unless it exists."""
    made_of = digest(target.key, images.fingerprint, list(strengths))[:16]
    piece = file.with_name(f".{file.name}.{target.name}.{made_of}.npz")
    if not piece.is_file():
        save(piece, vars(forged(target, images, strengths)))
    return piece


def write_probes(images: Images, own: Target, another: Target, epsilon: float, file: Path, seed: int = 0) -> None:
    """Write real images as they are and perturbed in four ways, all as bytes; a file of the same inputs stays."""
    made_of = digest(own.key, another.key, epsilon, images.fingerprint, seed)
    if holds(file, made_of):
        return
    inputs, labels = to_tensor(images)
    first, second = (forged(target, images).pixels for target in (own, another))
    noisy = _noisy(inputs, torch.from_numpy(first / np.float32(255)).permute(0, 3, 1, 2), seed)
    x = np.concatenate(
        [to_bytes(inputs), first, second, to_bytes(_fgsm(own, inputs, labels, epsilon)), to_bytes(noisy)]
    )
    what = np.repeat(np.arange(len(PROBES)), len(images))
    kinds, y = np.isin(what, (1, 2, 3)).astype(np.int64), np.tile(images.labels, len(PROBES))
    arrays = {"kind_classes": np.array(KINDS), "test_what": what, "classes": np.array(images.classes)}
    arrays["made_of"] = np.array(made_of)
    for part, rows in (("train", slice(0, None, len(images))), ("test", slice(None))):
        arrays |= {f"{part}_x": x[rows], f"{part}_kind": kinds[rows], f"{part}_y": y[rows]}
    save(file, arrays)


def _fgsm(target: Target, inputs: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    with target.on_device() as ready:
        batches = zip(*(torch.split(values.to(target.device), 100) for values in (inputs, labels)), strict=True)
        return torch.cat([fgsm(ready.classifier, *batch, epsilon=epsilon) for batch in batches]).cpu()


def _noisy(inputs: Tensor, perturbed: Tensor, seed: int) -> Tensor:
    """Return images with normal noise that is, after clipping, as large as another perturbation."""
    noise = torch.from_numpy(generator(seed, Purpose.EXAMPLES).standard_normal(inputs.shape, dtype=np.float32))

    def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
        return torch.addcmul(inputs, noise, torch.as_tensor(strength), out=out).clamp_(0, 1)

    return perturb_to_snr(perturb, inputs, signal_to_noise_ratio(inputs, perturbed), torch.empty_like(inputs))[0]


def holds(file: Path, made_of: str) -> bool:
    """Return whether an array file exists and has the hash of these inputs."""
    if not file.is_file():
        return False
    with np.load(file) as stored:
        return str(stored.get("made_of")) == made_of


def digest(*inputs: Any) -> str:
    """Hash all inputs of an array file."""
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def save(file: Path, arrays: Mapping[str, Any]) -> None:
    """Write an array file as a whole or not at all."""
    with atomic_write.atomic_writer(file) as stream:
        np.savez_compressed(stream, **dict[str, Any](arrays))


def pictures(file: Path, folder: Path) -> int:
    """Write an array file's images as PNGs, ``PART/CLASS/0`` for real ones and ``1`` for adversarial; count them."""
    from PIL import Image

    count = 0
    with np.load(file) as stored:
        classes = stored["classes"].tolist()
        for part in ("train", "test"):
            columns = (stored[f"{part}_{name}"] for name in ("x", "y", "kind", "source"))
            for pixels, label, kind, source in zip(*columns, strict=True):
                path = folder / part / str(classes[label]) / str(int(kind)) / f"{source}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.squeeze()).save(path)
                count += 1
    return count
