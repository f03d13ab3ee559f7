"""The array files of a run: what targets are trained on, the hybrid set, and its real half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reports.hybrid_gan import building
from reports.hybrid_gan.building import Target, divided, forged
from reports.hybrid_gan.protocol import TEST, VALIDATION, Scale
from robustness import data
from robustness.data import DataSpec
from robustness.data.images import Images, from_arrays
from robustness.data.validation import Array, Indices
from robustness.perturbations.fgsm import fgsm
from robustness.perturbations.strength import perturb_to_snr, signal_to_noise_ratio
from robustness.util.rng import Purpose, generator

TARGETS, HYBRID, REAL = "targets.npz", "hybrid.npz", "real.npz"
"""In the folder that is a run's data root."""
SOURCES = ("cifar10", "digits")


def images(source: str, root: Path, cache: Path) -> dict[str, Images]:
    """Return the training and the test images of a source; digits have three channels here, and 16x16 pixels."""
    if source == "digits":
        return _digits()
    spec = DataSpec(name="array", file="cifar10.npz.xz")
    return {part: data.load(spec, part, root=root, cache=cache) for part in ("train", "test")}


def sources(found: Mapping[str, Images], scale: Scale, seed: int = 0) -> dict[str, tuple[Indices, Indices]]:
    """
    Return for either part the rows that are left for targets and generators, and those that the hybrid set is made of.

    Of the training part as many as table 1 has, and those by which the epoch is chosen; of the test part 500 a class.
    """
    test = [max(2, round(scale.part * TEST))] * len(found["test"].classes)
    return {
        "train": divided(found["train"].labels, scale.counts(VALIDATION), seed),
        "test": divided(found["test"].labels, test, seed),
    }


def write_targets(found: Mapping[str, Images], rows: Mapping[str, tuple[Indices, Indices]], folder: Path) -> Path:
    """Write what targets are trained and tested on: nothing of it is in the hybrid set."""
    parts = {part: found[part].select(rows[part][0], f"{part} of the targets") for part in ("train", "test")}
    return _write(folder / TARGETS, {part: (_pixels(some), some.labels) for part, some in parts.items()}, parts)


def write_hybrid(
    parts: Mapping[str, Images], rows: Mapping[str, tuple[Indices, Indices]], targets: Sequence[Target], folder: Path
) -> tuple[dict[str, int], str]:
    """Write the hybrid set of some images, unless it is there, and its real half; give its counts and its digest."""
    file = folder / HYBRID
    counts = building.write(parts, {part: rows[part][1] for part in parts}, targets, file)
    with np.load(file) as held:
        real = {part: (held[f"{part}_x"][::2], held[f"{part}_y"][::2]) for part in parts}
        made_of = str(held["made_of"])
    _write(folder / REAL, real, parts)
    return counts, made_of


PROBES = ("real", "own generator", "another generator", "FGSM", "noise of the same norm")
"""What a detector is tested on: false alarms of the first and the last, detections of the others."""


def write_probes(images: Images, own: Target, another: Target, epsilon: float, file: Path, seed: int = 0) -> None:
    """Write real images as they are and in four ways perturbed, as bytes all of them; a file that holds them stays."""
    made_of = building.digest(own.key, another.key, epsilon, images.fingerprint, seed)
    if building.holds(file, made_of):
        return
    inputs = torch.from_numpy(images.batch(0, len(images)))
    labels = torch.from_numpy(images.labels.astype(np.int64))
    made = [torch.from_numpy(_unit(forged(target, images).pixels)) for target in (own, another)]
    attacked = _attacked(own, inputs, labels, epsilon)
    every = [building.stored(each) for each in (inputs, *made, attacked, _noisy(inputs, made[0], seed))]
    pixels = np.concatenate([_pixel_bytes(each) for each in every])
    what = np.repeat(np.arange(len(PROBES)), len(images))
    kinds = np.isin(what, (1, 2, 3)).astype(np.int64)
    arrays = {"kind_classes": np.array(building.KINDS), "test_what": what, "classes": np.array(images.classes)}
    arrays["made_of"] = np.array(made_of)
    for part, some in (("train", slice(0, None, len(images))), ("test", slice(None))):
        arrays |= {f"{part}_x": pixels[some], f"{part}_kind": kinds[some]}
        arrays |= {f"{part}_y": np.tile(images.labels, len(PROBES))[some]}
    building.save(file, arrays)


def _attacked(own: Target, inputs: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    batches = [slice(start, start + 100) for start in range(0, len(inputs), 100)]
    with own.lent() as lent:
        made = [
            fgsm(lent.classifier, *(each[rows].to(own.device) for each in (inputs, labels)), epsilon=epsilon)
            for rows in batches
        ]
    return torch.cat(made).cpu()


def _noisy(inputs: Tensor, made: Tensor, seed: int) -> Tensor:
    """Return normal noise on images, after clipping as large as what was made of them."""
    noise = torch.from_numpy(generator(seed, Purpose.EXAMPLES).standard_normal(inputs.shape, dtype=np.float32))

    def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
        return torch.addcmul(inputs, noise, torch.as_tensor(strength), out=out).clamp_(0, 1)

    return perturb_to_snr(perturb, inputs, signal_to_noise_ratio(inputs, made), torch.empty_like(inputs))[0]


def _pixel_bytes(images: Tensor) -> Array:
    return np.ascontiguousarray((images * 255).round().byte().numpy().transpose(0, 2, 3, 1))


def _unit(pixels: Array) -> Array:
    return np.ascontiguousarray((pixels / np.float32(255)).transpose(0, 3, 1, 2))


def _write(file: Path, parts: Mapping[str, tuple[Array, Array]], images: Mapping[str, Images]) -> Path:
    arrays = {"classes": np.array(next(iter(images.values())).classes)}
    for part, (pixels, labels) in parts.items():
        arrays |= {f"{part}_x": pixels, f"{part}_y": labels}
    building.save(file, arrays)
    return file


def _pixels(some: Images) -> Array:
    return np.ascontiguousarray(some.stored(0, len(some)).transpose(0, 2, 3, 1))


def _digits() -> dict[str, Images]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    large = np.kron(np.minimum(bunch.images * 16, 255), np.ones((2, 2))).astype(np.uint8)
    pixels = np.repeat(large[..., None], 3, axis=3)
    test = np.arange(len(pixels)) % 4 == 0
    names = tuple(str(digit) for digit in range(10))
    return {
        part: from_arrays(pixels[rows], bunch.target[rows], names, name=f"digits {part}")
        for part, rows in (("train", ~test), ("test", test))
    }
