"""The images of a sweep, clean and as the classifier got them at each strength, for galleries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robustness.classifiers import precision
from robustness.perturbations import strength as strengths_
from robustness.workspace import attack_inputs

if TYPE_CHECKING:
    from torch import nn

    from robustness.cards import Card
    from robustness.metrics.evidence import Evidence
    from robustness.sweep.batch import SweepBatches
    from robustness.workspace.workspace import Workspace


@dataclass(frozen=True, eq=False)
class Examples:
    """Images, (N, C, H, W) in [0, 1], the same perturbed, (strengths, N, C, H, W), and the evidence of the sweep."""

    rows: Sequence[int]
    clean: np.ndarray
    perturbed: np.ndarray
    evidence: Evidence


def examples(
    harness: Workspace, card: Card, sweep: str, rows: Sequence[int], at: Sequence[int] | None = None
) -> Examples:
    """
    Recompute images of a card's sweep, each in the batch in which it was swept, so that they are equal bit for bit.

    Args:
        harness: The workspace.
        card: The card of the model.
        sweep: The name of the sweep.
        rows: The rows of the images in the card's data.
        at: Indices of strengths; None for all.

    Raises:
        IndexError: If the data do not have a row.
    """
    from robustness.decisions import Argmax
    from robustness.sweep.batch import SweepBatches
    from robustness.sweep.batching import batch_ranges
    from robustness.sweep.runner import module_dict

    evidence, images = harness.evidence(card, sweep), harness.images(card)
    if bad := [row for row in rows if not 0 <= row < len(images)]:
        raise IndexError(f"`rows` must lie in 0 to {len(images) - 1}, the images of {images.name}, got {bad}")
    arguments = attack_inputs.attack_inputs(harness, card, sweep).arguments
    table = card.file.sweeps.get(sweep)
    cells = SweepBatches(
        images,
        card.perturbation(sweep),
        card.file.strengths_of(sweep),
        table.unit if table else "default",
        harness.seed,
        harness.device,
        evidence.provenance["batch_size"],
        card.file.model.decision,
        arguments.get("source_decision") or (Argmax() if "source" in arguments else card.file.model.decision),
        arguments.get("directions"),
    )
    models = module_dict(harness.classifier(card).module, arguments.get("source"), arguments.get("generator"))
    models = precision.in_precision(models, harness.dtype, harness.device)
    at = range(len(cells.strengths)) if at is None else at
    perturbed = np.empty((len(at), len(rows), *images.shape), np.float32)
    for start, stop in batch_ranges(len(images), cells.batch_size):
        if inside := {index: row - start for index, row in enumerate(rows) if start <= row < stop}:
            batch = _batch(cells, models, start, stop, at, harness.dtype)
            perturbed[:, list(inside)] = batch[:, list(inside.values())]
    clean = np.concatenate([images.batch(row, row + 1) for row in rows])
    return Examples(tuple(rows), clean, perturbed, evidence)


def _batch(
    cells: SweepBatches, models: nn.ModuleDict, start: int, stop: int, at: Sequence[int], dtype: str
) -> np.ndarray:
    """Return one batch of a sweep at the strengths ``at``, (strengths, batch, C, H, W)."""
    import torch

    from robustness.classifiers.modules import channels_last, restored_afterwards
    from robustness.sweep.batching import single_threaded

    with (
        precision.matmul_precision(dtype, cells.device),
        restored_afterwards(models, cells.device) as lent,
        single_threaded(),
    ):
        channels_last(lent, lambda: cells.accepts(lent))
        batch = cells.attack_batch(lent, start, stop)
        perturb = strengths_.convert_unit(cells.unit, cells.perturbation.prepare(batch), batch.inputs)
        drawn, out = cells.drawn_strengths(), torch.empty_like(batch.inputs)
        perturbed = []
        for i in at:
            with torch.no_grad():
                perturbed.append(cells.perturb(batch, perturb, i, slice(start, stop), out, drawn).cpu().numpy().copy())
    return np.stack(perturbed)
