"""Count the decisions that differ from float32, by sweeping a sample of chunks in both precisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from robustness.classifiers import precision
from robustness.metrics.evidence import OK, Evidence
from robustness.sweep import chunks
from robustness.sweep.batch import SweepBatches
from robustness.util.rng import CHUNK

# One chunk in so many is compared, at least one; from the middle, because data may be sorted by class.
SAMPLE_INTERVAL = 20


def count_differing_decisions(
    evidence: Evidence, batches: SweepBatches, modules: nn.ModuleDict, threads: int
) -> Evidence:
    """
    Add to the evidence how many decisions of a sample differ from float32's; ``modules`` compute in float32.

    A strength without numbers in either precision is not compared.
    """
    count = chunks.chunk_count(batches.images)
    sample = range(min(SAMPLE_INTERVAL, count) // 2, count, SAMPLE_INTERVAL)
    recorder = chunks.new_recorder(batches, probabilities=False)
    with precision.matmul_precision("float32", batches.device):
        chunks.sweep_chunks(batches, modules, recorder, sample, threads)
    rows = np.concatenate([np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, len(evidence))) for chunk in sample])
    dtype, notes, counts = evidence.provenance["dtype"], dict(evidence.provenance["notes"]), dict[str, int]()
    for i, strength in enumerate(evidence.strengths):
        expected = recorder.predictions[i, rows]
        if evidence.status[i] != OK or (expected < 0).any():
            continue
        counts[strength] = differing = int((evidence.predictions[i, rows] != expected).sum())
        note = f"{dtype} differs from float32 in {differing:,} of {len(rows):,} decisions ({differing / len(rows):.2%})"
        notes[strength] = "; ".join(filter(None, (notes.get(strength), note)))
    fields = {"notes": notes, "float32": {"images": len(rows), "differ": counts}}
    return replace(evidence, provenance={**evidence.provenance, **fields})
