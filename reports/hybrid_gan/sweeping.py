"""Numbers of hybrid-gan from evidence: rows by kind of image, contaminated streams, and pairs of twins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from reports.hybrid_gan.building import KINDS, PROBES
from reports.hybrid_gan.protocol import CLASSIFIERS, STREAMS
from robustness import claims
from robustness.metrics.confusion import confusion_matrix
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.intervals import mean_interval, wilson
from robustness.metrics.registry import measure_matrix
from robustness.util.rng import Purpose, generator

# Images of a contaminated stream, and how many streams are drawn.
SIZE, DRAWS = 1000, 200


def rows(name: str, sweep: str, evidence: Evidence, kinds: np.ndarray) -> Iterator[dict[str, Any]]:
    """Return a row per strength: of all images, and on the hybrid set also of the real and the adversarial ones."""
    model, _, images = name.partition("@")
    for index, (strength, status) in enumerate(zip(evidence.strengths, evidence.status, strict=True)):
        fields = {"model": model, "images": images, "sweep": sweep, "strength": strength, "status": status}
        if status != OK:
            yield {**fields, "kind": "all", "n": len(evidence)}
            continue
        masks = {"all": np.full(len(evidence), True)}
        if images == "hybrid":
            masks |= {kind: kinds == number for number, kind in enumerate(KINDS)}
        for kind, mask in masks.items():
            yield {**fields, "kind": kind, **_numbers(evidence, index, mask)}


def _numbers(evidence: Evidence, index: int, mask: np.ndarray) -> dict[str, Any]:
    labels, predictions = evidence.labels[mask], evidence.predictions[index][mask]
    matrix = confusion_matrix(labels, predictions, len(evidence.classes))
    correct = int((labels == predictions).sum())
    low, high = wilson(correct, len(labels))
    numbers: dict[str, Any] = {"n": len(labels), "accuracy": round(correct / len(labels), 6)}
    for metric in ("precision", "recall"):
        value = measure_matrix(metric, matrix, evidence.classes).value
        numbers[metric] = None if np.isnan(value) else round(value, 6)
    numbers |= {"low": round(low, 6), "high": round(high, 6)}
    if mask.all() and evidence.probabilities is not None and len(set(labels.tolist())) > 1:
        numbers["roc_auc"] = round(claims.measure(evidence, evidence.strengths[index], "roc_auc").value, 6)
    snr = evidence.snr[index][mask]
    finite = snr[np.isfinite(snr)]
    numbers["snr"] = round(float(finite.mean()), 3) if len(finite) else None
    return numbers


def probe_rows(name: str, evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Return the fraction of each kind of probe that a detector takes for adversarial."""
    fields = {"model": name.partition("@")[0], "images": "probes", "sweep": "clean", "strength": "0"}
    for probe, predictions in zip(PROBES, np.split(evidence.predictions[0], len(PROBES)), strict=True):
        called, n = int((predictions == 1).sum()), len(predictions)
        low, high = wilson(called, n)
        numbers = {"called_adversarial": called / n, "low": low, "high": high}
        yield {**fields, "kind": probe, "status": OK, "n": n} | {key: round(value, 6) for key, value in numbers.items()}


def streams(
    correct: np.ndarray, kinds: np.ndarray, size: int = SIZE, draws: int = DRAWS, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """
    Draw streams of images with a fraction of adversarial ones, and count the correct predictions of either kind.

    Images of one stream differ from each other. ``kinds`` are 1 for adversarial images, 0 for real ones. The Wilson
    interval is that of one stream, such as the paper's; the smallest and the largest rate are those of all streams.
    """
    rows_of = [np.flatnonzero(kinds == kind) for kind in (0, 1)]
    for number, share in enumerate(STREAMS):
        random = generator(seed, Purpose.SPLIT, 2 + number)
        stream = {"share": share, "draws": draws}
        for kind, indices, count in zip(KINDS, rows_of, (size - round(share * size), round(share * size)), strict=True):
            n = min(count, len(indices))
            rates = [float(correct[random.permutation(indices)[:n]].mean()) for _ in range(draws)]
            mean = float(np.mean(rates))
            low, high = wilson(round(mean * n), n)
            numbers = {"mean": mean, "low": low, "high": high, "least": min(rates), "largest": max(rates)}
            stream |= {f"n_{kind}": n} | {f"{name}_{kind}": round(value, 6) for name, value in numbers.items()}
        yield stream


def losses(evidence: Evidence) -> np.ndarray:
    """Return how much accuracy each image costs, (N,): 1 or 0 on the clean image minus the mean over the strengths."""
    assert evidence.clean is not None
    clean = evidence.clean.predictions[0] == evidence.labels
    return np.asarray(clean - (evidence.predictions == evidence.labels).mean(axis=0))


def pairs(lost: Mapping[tuple[str, str], np.ndarray]) -> Iterator[dict[str, Any]]:
    """
    Return how much less each network loses than its twin under each sweep, with the 95 % interval over the images.

    ``lost`` has the losses by model (``HEAD-NETWORK``) and sweep.
    """
    for sweep in dict.fromkeys(sweep for _, sweep in lost):
        for network in CLASSIFIERS:
            clean, hybrid = (lost.get((f"{kind}-{network}", sweep)) for kind in ("clean", "classify"))
            if clean is not None and hybrid is not None:
                less = clean - hybrid
                low, high = mean_interval(less)
                numbers = {"difference": less.mean(), "low": low, "high": high}
                yield {"network": network, "sweep": sweep, "n": len(less)} | {
                    name: round(float(value), 6) for name, value in numbers.items()
                }
