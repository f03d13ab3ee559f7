"""How many images are decided otherwise than in float32: some chunks swept again in it, and counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from robustness.classifiers import precision
from robustness.metrics.evidence import OK, Evidence
from robustness.sweep import chunks
from robustness.sweep.batch import SweepBatches
from robustness.util.rng import CHUNK

EVERY = 20
"""Of so many chunks one is looked at, at least one: what lies in the middle, for data may be sorted by class."""


def count_differing_decisions(
    evidence: Evidence, cells: SweepBatches, modules: nn.ModuleDict, threads: int
) -> Evidence:
    """
    Note at each strength how many decisions of a sample are not float32's; ``modules`` compute in float32.

    Where either has no numbers nothing is compared.
    """
    count = chunks.count(cells.images)
    wanted = range(min(EVERY, count) // 2, count, EVERY)
    outcomes = chunks.new_recorder(cells, probabilities=False)
    with precision.matmul_precision("float32", cells.device):
        chunks.sweep_chunks(cells, modules, outcomes, wanted, threads)
    rows = np.concatenate([np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, len(evidence))) for chunk in wanted])
    dtype, notes, differ = evidence.provenance["dtype"], dict(evidence.provenance["notes"]), dict[str, int]()
    for i, strength in enumerate(evidence.strengths):
        due = outcomes.predictions[i, rows]
        if evidence.status[i] != OK or (due < 0).any():
            continue
        differ[strength] = other = int((evidence.predictions[i, rows] != due).sum())
        said = f"{dtype} decides {other:,} of {len(rows):,} images ({other / len(rows):.2%}) otherwise than float32"
        notes[strength] = "; ".join(filter(None, (notes.get(strength), said)))
    told = {"notes": notes, "float32": {"images": len(rows), "differ": differ}}
    return replace(evidence, provenance={**evidence.provenance, **told})
