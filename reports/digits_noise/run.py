"""Train, sweep and count for the digits-noise paper: everything that its tables are computed from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reports import running
from reports.digits_noise import numbers, published
from robustness import cards, sources
from robustness.cards import Card
from robustness.datasets import mnist
from robustness.errors import CardError, SweepError
from robustness.evidence import OK, Evidence
from robustness.harness import Harness
from robustness.measures.confusion import confusion_matrix
from robustness.parallel import train_many
from robustness.perturbations import Normal
from robustness.progress import bar
from robustness.store import Store

CARD = Path(__file__).parents[2] / "models" / "mnist-mlp.toml"
FORMAT = "pytest-robustness/report/digits-noise/1"
SEEDS = (0, 1, 2, 3, 4)
EPOCHS = (1, 5, 10)

Say = Callable[[str], None]


def measure(
    card: Card, store: Store, data: Path, seeds: Sequence[int], epochs: Sequence[int], workers: int, say: Say
) -> dict[str, Any]:
    """Train, sweep and count; everything that a reader needs, as it goes into the JSON file. ``say`` gets notices."""
    began = time.perf_counter()
    # The longest first: a short one begun last leaves the other cores idle for less.
    tasks = [(seed, e) for e in sorted(epochs, reverse=True) for seed in seeds]
    variants_ = [card.reseeded(seed, epochs=e) for seed, e in tasks]
    files = train_many(variants_, store.root, data, workers, say=say, progress=bar)
    trained = [
        {"seed": seed, "epochs": e, **running.training(file)} for (seed, e), file in zip(tasks, files, strict=True)
    ]
    trained_in = time.perf_counter() - began
    counts, sweeps = [], []
    harness = Harness(store, data, progress=bar)
    for e in epochs:
        for seed in seeds:
            for reading, variant in variants(card.reseeded(seed, epochs=e)).items():
                if reading == "bounded" or e == max(epochs):
                    matrices, about = _swept(harness, *variant)
                    counts.append({"seed": seed, "epochs": e, "reading": reading, "matrices": matrices})
                    sweeps.append({"seed": seed, "epochs": e, "reading": reading, **about})
    for notice in harness.notices:
        say(notice)
    swept_in = time.perf_counter() - began - trained_in
    return {
        "format": FORMAT,
        "paper": "digits-noise",
        "scale": scale(card, data, seeds, epochs),
        "provenance": _provenance(card, harness, seeds, epochs, workers)
        | {"seconds": {"training": round(trained_in, 1), "sweeping": round(swept_in, 1)}},
        "trainings": trained,
        "sweeps": sweeps,
        "V": published.load()["accuracy"]["V"],
        "tables": numbers.derive(counts),
        "counts": counts,
    }


def scale(card: Card, data: Path, seeds: Sequence[int], epochs: Sequence[int]) -> str:
    """
    Say what a run is: "full" is the paper's classifier on MNIST's own images, its epochs, seeds 0 to 4 (or beyond).

    "short" is that with other seeds or epochs; any other card or data are "smoke", or what the card says of itself.
    """
    if card.file.scale != "full":
        return card.file.scale
    shipped = cards.load(CARD).file
    tables = ("model", "recipe", "data", "sweeps")
    if any(getattr(card.file, table) != getattr(shipped, table) for table in tables) or not _is_mnist(data):
        return "smoke"
    fixed_beforehand = len(seeds) >= len(SEEDS) and tuple(seeds) == tuple(range(len(seeds)))
    return "full" if fixed_beforehand and tuple(epochs) == EPOCHS else "short"


def _is_mnist(data: Path) -> bool:
    """Say whether the files have the published sums; any images could lie under these names."""
    files = {mnist.folder(data) / name: digest for name, digest in mnist.SUMS.items()}
    return all(file.is_file() and sources.file_hash(file) == digest for file, digest in files.items())


def variants(card: Card) -> dict[str, tuple[Card, str]]:
    """Give the card and the sweep of it for each reading of the noise; CardError where one has other amplitudes."""
    sweeps = card.file.sweeps
    due = tuple(v for v in published.load()["accuracy"]["V"] if v)
    bounded = Normal(bound=1.0)
    for name in ("normal", "uniform"):
        if name not in sweeps or tuple(s for s in sweeps[name].strengths if s) != due:
            raise CardError(f"{card.path}: sweeps.{name}: must be swept over V = {', '.join(map(str, due))}")
    if sweeps["normal"].perturbation != bounded:
        raise CardError(f"{card.path}: sweeps.normal: must be bounded at 1, the reading that is taken for the paper's")
    free = sweeps["normal"].model_copy(update={"perturbation": Normal()})
    unbounded = replace(card, file=card.file.model_copy(update={"sweeps": {**sweeps, "normal": free}}))
    return {"bounded": (card, "normal"), "unbounded": (unbounded, "normal"), "uniform": (card, "uniform")}


def _swept(harness: Harness, card: Card, sweep: str) -> tuple[list[list[list[int]]], dict[str, Any]]:
    """Give a confusion matrix for each V, clean first, and where they come from."""
    parts = {"clean": harness.evidence(card), sweep: harness.evidence(card, sweep)}
    matrices = [m for name, part in parts.items() for m in _counted(card, name, part)]
    return matrices, {"evidence": {name: running.swept(part, harness.store.run) for name, part in parts.items()}}


def _counted(card: Card, sweep: str, evidence: Evidence) -> list[list[list[int]]]:
    """Count predictions by true class for each strength but 0, which the clean pass has."""
    counted = []
    for strength, status, predictions in zip(evidence.strengths, evidence.status, evidence.predictions, strict=True):
        if status != OK:
            raise SweepError(f"{card.name}:{sweep}:{strength} has no numbers: {status}")
        if sweep == "clean" or strength != "0":
            counted.append(confusion_matrix(evidence.labels, predictions, len(evidence.classes)).tolist())
    return counted


def _provenance(
    card: Card, harness: Harness, seeds: Sequence[int], epochs: Sequence[int], workers: int
) -> dict[str, Any]:
    tested, trained = harness.images(card), harness.images(card, "train")
    recipe = card.file.recipe
    assert recipe is not None
    return {
        "model": {"name": card.name, "factory": card.file.model.factory, "recipe": recipe.callable},
        "data": {
            **running.images(tested),
            "per_class": np.bincount(tested.labels, minlength=len(tested.classes)).tolist(),
            "trained_on": running.images(trained),
        },
        "seeds": list(seeds),
        "epochs": list(epochs),
        "noise_seed": harness.seed,
        "trainings_at_once": workers,
        **running.machine(harness),
    }
