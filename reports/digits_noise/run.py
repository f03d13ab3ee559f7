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
from reports.digits_noise.numbers import INITIAL_WEIGHTS, PAPER, READINGS
from reports.strips import strip
from robustness import cards
from robustness.cards import Card
from robustness.data import mnist
from robustness.errors import CardError, SweepError
from robustness.metrics.confusion import confusion_matrix
from robustness.metrics.evidence import OK, Evidence
from robustness.perturbations import GaussianNoise, Perturbation
from robustness.util import source_files
from robustness.util.progress import progress_bar
from robustness.workspace.store import Store
from robustness.workspace.training import train_many
from robustness.workspace.workspace import Workspace

CARD = Path(__file__).parents[2] / "models" / "mnist-mlp.toml"
FORMAT = "pytest-robustness/report/digits-noise/2"
SEEDS = tuple(range(10))
EPOCHS = (1, 5, 10)
PICTURED = (0, 2, 5, 7)
NOISES = {
    "accumulated": GaussianNoise(clip=False, accumulate=True),
    "bounded": GaussianNoise(bound=1.0),
    "unbounded": GaussianNoise(),
}

Say = Callable[[str], None]


def measure(
    card: Card, store: Store, data: Path, seeds: Sequence[int], epochs: Sequence[int], workers: int, say: Say
) -> dict[str, Any]:
    """Train, sweep and count; everything that a reader needs, as it goes into the JSON file. ``say`` gets notices."""
    began = time.perf_counter()
    # The longest first: a short one begun last leaves the other cores idle for less.
    tasks = [(name, seed, e) for e in sorted(epochs, reverse=True) for name in INITIAL_WEIGHTS for seed in seeds]
    networks = [initialised(card, name).reseeded(seed, epochs=e) for name, seed, e in tasks]
    files = train_many(networks, store.root, data, workers, say=say, progress=progress_bar)
    trained = [
        {"initial": name, "seed": seed, "epochs": e, **running.training(file)}
        for (name, seed, e), file in zip(tasks, files, strict=True)
    ]
    trained_in = time.perf_counter() - began
    counts, sweeps = [], []
    harness = Workspace(store, data, progress=progress_bar)
    for (name, seed, e), network in zip(tasks, networks, strict=True):
        for reading, variant in variants(network).items():
            # What was taken for the paper's noise before is measured on the networks that it was measured on.
            if reading == PAPER or (e == max(epochs) and name == "torch"):
                matrices, about = _swept(harness, *variant)
                which = {"initial": name, "seed": seed, "epochs": e, "reading": reading}
                counts.append({**which, "matrices": matrices})
                sweeps.append({**which, **about})
    first = initialised(card, "keras").reseeded(seeds[0], epochs=max(epochs))
    pictures = [
        strip(harness, *variants(first)[PAPER], title, row, changes=False) for title, row in _rows(harness, card)
    ]
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
        "pictures": pictures,
    }


def initialised(card: Card, initial_weights: str) -> Card:
    """Return the same card with other initial weights."""
    if initial_weights == "torch":
        return card
    arguments = {**card.file.model.arguments, "initial_weights": initial_weights}
    return replace(
        card, file=card.file.model_copy(update={"model": card.file.model.model_copy(update={"arguments": arguments})})
    )


def _rows(harness: Workspace, card: Card) -> list[tuple[str, int]]:
    """Return the digits that the figure shows, and the first image of each."""
    labels = harness.images(card).labels
    return [(f"digit {digit}", int(np.flatnonzero(labels == digit)[0])) for digit in PICTURED]


def scale(card: Card, data: Path, seeds: Sequence[int], epochs: Sequence[int]) -> str:
    """
    Say what a run is: "full" is the paper's classifier on MNIST's own images, its epochs, seeds 0 to 9 (or beyond).

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
    """Return whether the files have the published sums; any images could lie under these names."""
    files = {mnist.folder(data) / name: digest for name, digest in mnist.SUMS.items()}
    return all(file.is_file() and source_files.sha256_file(file) == digest for file, digest in files.items())


def variants(card: Card) -> dict[str, tuple[Card, str]]:
    """Return a card and one of its sweeps per reading of the noise; CardError for a card with other amplitudes."""
    sweeps = card.file.sweeps
    due = tuple(v for v in published.load()["accuracy"]["V"] if v)
    for name in ("normal", "uniform"):
        if name not in sweeps or tuple(s for s in sweeps[name].strengths if s) != due:
            raise CardError(f"{card.path}: sweeps.{name}: must be swept over V = {', '.join(map(str, due))}")

    def of(perturbation: Perturbation) -> Card:
        table = sweeps["normal"].model_copy(update={"perturbation": perturbation})
        return replace(card, file=card.file.model_copy(update={"sweeps": {**sweeps, "normal": table}}))

    return {
        reading: (of(NOISES[reading]), "normal") if reading in NOISES else (card, "uniform") for reading in READINGS
    }


def _swept(harness: Workspace, card: Card, sweep: str) -> tuple[list[list[list[int]]], dict[str, Any]]:
    """Return a confusion matrix for each V, clean first, and where they come from."""
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
    card: Card, harness: Workspace, seeds: Sequence[int], epochs: Sequence[int], workers: int
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
