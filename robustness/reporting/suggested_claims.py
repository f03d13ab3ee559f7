"""Suggested claims for a measured model, and the strengths without numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robustness import claims
from robustness.metrics.chance_level import lucky_level
from robustness.metrics.evidence import OK, Evidence

MARGIN = 0.01
"""Distance of a suggested claim below the interval's lower end, because retraining changes accuracy too."""
PLACES = 1000


def suggested(evidence: Mapping[str, Evidence | None], doubted: Sequence[str] = ()) -> str:
    """
    Return claims of accuracy as TOML, by sweep: the lower end of each 95 % interval minus a margin, rounded down.

    Nothing is suggested if a doubt was raised or could not be checked. Where that is not beyond what a classifier that
    knows nothing may get by luck, no claim is possible; a sweep of which none is, or some cell has no numbers, is left
    out.
    """
    from robustness.cards.edit import claims_table

    if doubted:
        return ""
    tables = []
    for sweep, found in evidence.items():
        if found is None or set(found.status) != {OK}:
            continue
        row = [_threshold(found, strength) for strength in found.strengths]
        if any(threshold is not None for threshold in row):
            tables.append(claims_table(sweep, {"accuracy": row}))
    return "\n".join(tables)


def _threshold(evidence: Evidence, strength: str) -> float | None:
    low = claims.measure(evidence, strength, "accuracy").interval.low
    threshold = int((low - MARGIN) * PLACES) / PLACES
    return threshold if threshold > lucky_level("accuracy", evidence.labels, evidence.classes) else None


def failed_cells(evidence: Evidence) -> Sequence[str]:
    """Return a sentence for each strength that has no numbers."""
    return [f"at {s}: {status}" for s, status in zip(evidence.strengths, evidence.status, strict=True) if status != OK]
