"""One perturbation, many strengths, one classifier: the evidence of a sweep, and how it came about."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import torch
from torch import nn

from robustness import batches, hardware
from robustness import strengths as strengths_
from robustness.batches import Progress
from robustness.cells import Cells
from robustness.datasets.images import Images
from robustness.decisions import Argmax
from robustness.evidence import SEMANTICS, Evidence
from robustness.modules import replicas, state_hash, undisturbed
from robustness.outcomes import Outcomes
from robustness.perturbations import Clean, Perturbation
from robustness.strengths import Strength, Unit


def sweep(
    classifier: nn.Module,
    images: Images,
    perturbation: Perturbation,
    strengths: Sequence[Strength],
    *,
    unit: Unit = "native",
    seed: int = 0,
    device: str = "cpu",
    batch_size: int | None = None,
    threads: int | None = None,
    decision: Argmax | None = None,
    probabilities: bool = False,
    progress: Progress | None = None,
) -> Evidence:
    """
    Perturb every image at every strength and record what the classifier decides.

    ``classifier`` maps images in [0, 1], (N, C, H, W), to logits (N, classes). On CPUs every batch has the
    same size (the last is padded), is computed with one torch thread, and ``threads`` of them run side by
    side: the outcome depends on neither. A cell that fails has a status that says why; nothing is raised
    for it. ModelError where the outputs do not fit the classes; ValueError where a strength cannot be.

    >>> from robustness.datasets.images import from_arrays
    >>> from robustness.perturbations import Normal
    >>> images = from_arrays(np.full((4, 1, 2), 128, np.uint8), [0, 1, 0, 1])
    >>> evidence = sweep(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), images, Normal(), [0.1, 0.2])
    >>> evidence.predictions.shape, evidence.status
    ((2, 4), ('ok', 'ok'))
    """
    strengths = strengths_.check(strengths, perturbation, unit)
    for name, value in (("batch_size", batch_size), ("threads", threads)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}; leave it out for what suits the machine")
    batch_size = batch_size or hardware.batch_size(images.shape, device)
    threads = 1 if device != "cpu" else threads or hardware.cores()
    decision = decision or Argmax()
    cells = Cells(images, perturbation, strengths, unit, seed, device, batch_size, decision)
    names = tuple(strengths_.name(strength) for strength in strengths)
    outcomes = Outcomes(images, names, drawn=cells.drawn_strengths(), probabilities=probabilities)
    started = time.perf_counter()
    with undisturbed(classifier, device) as lent:
        models = replicas(lent, min(threads, batches.count(len(images), batch_size)))
        deterministic, replicated = cells.compared(lent, models[0])
        batches.run(
            lambda model, start, stop: cells.batch(model, start, stop, outcomes),
            models if replicated else [lent],
            len(images),
            batch_size,
            device,
            progress,
        )
        state = state_hash(lent)
    seconds = time.perf_counter() - started
    return outcomes.evidence(
        {
            "perturbation": perturbation.model_dump(),
            "unit": unit,
            "seed": seed,
            "device": hardware.device_kind(device),
            "dtype": "float32",
            "batch_size": batch_size,
            "semantics": SEMANTICS,
            "images": {"name": images.name, "n": len(images), "fingerprint": images.fingerprint},
            "state": state,
            "decision": decision.model_dump(),
            "versions": {"torch": torch.__version__, "numpy": np.__version__},
            # Said once a classifier: every card has clean evidence.
            "doubts": [] if deterministic or not isinstance(perturbation, Clean) else ["non-deterministic forward"],
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "images_per_second": round(len(images) * len(strengths) / seconds, 1),
        }
    )
